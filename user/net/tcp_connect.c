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

void dial_tune(int fd, const struct dial_patience *p)
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

int dial_socket(const struct klb_endpoint *to)
{
	int fd = socket(endpoint_is_ipv4(to) ? AF_INET : AF_INET6,
			SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	return fd;
}

int dial_connect(int fd, const struct klb_endpoint *to)
{
	struct sockaddr_storage ss;
	socklen_t length = endpoint_to_sockaddr(to, &ss);

	/* An interrupted connect goes on by itself, like one in progress. */
	if (connect(fd, (struct sockaddr *)&ss, length) == 0 || errno == EINPROGRESS ||
	    errno == EINTR)
		return 0;
	return -errno;
}

int dial_open(const struct klb_endpoint *to, const struct dial_patience *patience)
{
	int fd = dial_socket(to), r;

	if (fd < 0)
		return fd;
	dial_tune(fd, patience);
	r = dial_connect(fd, to);
	if (!r)
		return fd;
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
