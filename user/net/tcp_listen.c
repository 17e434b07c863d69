/* SPDX-License-Identifier: BSD-2-Clause */
/* Listening sockets. */
#include "net/tcp_listen.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/endpoint.h"

static int set(int fd, int level, int option)
{
	const int on = 1;

	return setsockopt(fd, level, option, &on, sizeof(on)) ? -errno : 0;
}

static int make_transparent(int fd, int family)
{
	return family == AF_INET ? set(fd, IPPROTO_IP, IP_TRANSPARENT)
				 : set(fd, IPPROTO_IPV6, IPV6_TRANSPARENT);
}

static int bind_and_listen(int fd, struct klb_endpoint *at)
{
	struct sockaddr_storage ss;
	socklen_t length = endpoint_to_sockaddr(at, &ss);

	/* The queue is as long as the host allows (net.core.somaxconn). */
	if (bind(fd, (const struct sockaddr *)&ss, length) || listen(fd, SOMAXCONN))
		return -errno;
	length = sizeof(ss);
	if (getsockname(fd, (struct sockaddr *)&ss, &length))
		return -errno;
	return endpoint_from_sockaddr((const struct sockaddr *)&ss, at);
}

int tcp_listen(struct klb_endpoint *at, bool transparent)
{
	int family = endpoint_is_ipv4(at) ? AF_INET : AF_INET6;
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int r = fd < 0 ? -errno : 0;

	if (!r)
		r = set(fd, SOL_SOCKET, SO_REUSEADDR);
	if (!r && transparent)
		r = make_transparent(fd, family);
	if (!r)
		r = bind_and_listen(fd, at);
	if (!r)
		return fd;
	if (fd >= 0)
		close(fd);
	return r;
}

int tcp_listen_can_be_transparent(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int r = fd < 0 ? -errno : make_transparent(fd, AF_INET);

	if (fd >= 0)
		close(fd);
	return r;
}
