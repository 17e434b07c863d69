/* SPDX-License-Identifier: BSD-2-Clause */
/* Listens at an IP address, or at a Unix socket. */
#include "net/http_listen.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/endpoint.h"
#include "net/unix_listen.h"

/*
 * Everybody waits in one queue, the kubelet as well: a tenth of a second under a flood. When it is
 * full SYNs are dropped. A dropped one keeps its sender quiet for a second, so a flood from some
 * hundred sockets drops one in a hundred.
 */
#define BACKLOG 1024
/*
 * What clients leave unread, or do not read, is memory of the kernel that counts against the
 * container's. A request is short, and an answer goes out in pieces.
 */
#define RECEIVE_BYTES 8192
#define SEND_BYTES 32768
/* Until a client has sent something, or for so long, its connection costs the agent nothing. */
#define DEFER_S 1

struct http_listen {
	int fd;
	struct unix_listen socket; /* path "": it is an IP address */
};

static int ip_socket(const struct klb_endpoint *at)
{
	const int yes = 1, defer = DEFER_S, receive = RECEIVE_BYTES, send = SEND_BYTES;
	struct sockaddr_storage ss;
	socklen_t length = endpoint_to_sockaddr(at, &ss);
	int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int code;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive, sizeof(receive));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send, sizeof(send));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof(yes));
	setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &defer, sizeof(defer));
	if (!bind(fd, (struct sockaddr *)&ss, length) && !listen(fd, BACKLOG))
		return fd;
	code = errno;
	close(fd);
	return err_negative(code);
}

static int listen_ip(struct http_listen *l, const struct klb_endpoint *at, struct err *e)
{
	char text[ENDPOINT_TEXT_MAX];

	l->fd = ip_socket(at);
	if (l->fd >= 0)
		return 0;
	return err_set(e, -l->fd, "http: cannot listen on %s: %s", endpoint_format(at, text),
		       err_reason(-l->fd));
}

int http_listen_new(const struct http_address *at, struct http_listen **ret, struct err *e)
{
	struct http_listen *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return err_no_memory(e);
	l->fd = -1;
	if (at->socket)
		l->fd = r = unix_listen(at->socket, BACKLOG, &l->socket, e);
	else
		r = listen_ip(l, &at->ip, e);
	if (r < 0) {
		http_listen_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

void http_listen_free(struct http_listen *l)
{
	if (!l)
		return;
	unix_listen_remove(&l->socket);
	if (l->fd >= 0)
		close(l->fd);
	free(l);
}

int http_listen_fd(const struct http_listen *l)
{
	return l->fd;
}
