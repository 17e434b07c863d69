/* SPDX-License-Identifier: BSD-2-Clause */
/* Begins a TCP connect without blocking, and sets the socket's options. */
#include "net/tcp_connect.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/array.h"
#include "net/endpoint.h"

/*
 * Errors are ignored: without one of these options the connection works, and only notices later
 * that its peer is gone.
 */
static void tune(int fd, const struct dial_patience *p)
{
	const struct {
		int level, name, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, p->user_timeout_ms },
		{ IPPROTO_TCP, TCP_KEEPIDLE, p->keepalive_idle_s },
		{ IPPROTO_TCP, TCP_KEEPINTVL, p->keepalive_interval_s },
		{ IPPROTO_TCP, TCP_KEEPCNT, p->keepalive_count },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(options); i++)
		setsockopt(fd, options[i].level, options[i].name, &options[i].value,
			   sizeof(options[i].value));
}

int dial_open(const struct klb_endpoint *to, const struct dial_patience *patience)
{
	struct sockaddr_storage ss;
	socklen_t length = endpoint_to_sockaddr(to, &ss);
	int fd, r;

	fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	tune(fd, patience);
	/* An interrupted connect goes on by itself, like one in progress. */
	if (connect(fd, (struct sockaddr *)&ss, length) == 0 || errno == EINPROGRESS ||
	    errno == EINTR)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

int dial_result(int fd)
{
	int os_error = 0;
	socklen_t length = sizeof(os_error);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &os_error, &length) < 0)
		return errno;
	return os_error;
}
