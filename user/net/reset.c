/* SPDX-License-Identifier: BSD-2-Clause */
/* Sends resets by TCP sockets in repair mode. */
#include "net/reset.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/endpoint.h"

/* Ends repair without a window probe (Linux 4.19), which would announce the reset. */
#ifndef TCP_REPAIR_OFF_NO_WP
#define TCP_REPAIR_OFF_NO_WP (-1)
#endif

static int set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) ? -errno : 0;
}

static int set_seq(int fd, int queue, __u32 seq)
{
	int r = set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue);

	return r ? r : set(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, (int)seq);
}

/* Lets the socket bind to an address that is not this host's, and connect without a segment. */
static int prepare(int fd, bool ipv4)
{
	int r = ipv4 ? set(fd, IPPROTO_IP, IP_TRANSPARENT, 1)
		     : set(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, 1);

	return r ? r : set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON);
}

static int become(int fd, const struct reset *r)
{
	struct sockaddr_storage from, to;
	socklen_t length = endpoint_to_sockaddr(&r->from, &from);
	int code;

	endpoint_to_sockaddr(&r->to, &to);
	if (bind(fd, (const struct sockaddr *)&from, length))
		return -errno;
	code = set_seq(fd, TCP_SEND_QUEUE, r->seq);
	if (!code)
		code = set_seq(fd, TCP_RECV_QUEUE, r->ack);
	if (!code && connect(fd, (const struct sockaddr *)&to, length))
		code = -errno;
	return code;
}

/* What is closed in repair mode sends nothing; what does not linger sends a reset. */
static int arm(int fd)
{
	const struct linger none = { .l_onoff = 1 };
	int r = set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);

	if (!r && setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none)))
		r = -errno;
	return r;
}

int reset_send(int fd, const struct reset *r)
{
	int code = prepare(fd, endpoint_is_ipv4(&r->from));

	if (!code)
		code = become(fd, r);
	if (!code)
		code = arm(fd);
	close(fd);
	return code;
}

int reset_can_send(struct err *e)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), r = fd < 0 ? -errno : 0;

	if (!r)
		r = prepare(fd, true);
	if (!r)
		r = set_seq(fd, TCP_SEND_QUEUE, 1);
	if (fd >= 0)
		close(fd);
	if (r == -EPERM)
		return err_set(e, EPERM, "not permitted: it takes CAP_NET_ADMIN");
	return r ? err_set(e, -r, "TCP_REPAIR: %s", strerror(-r)) : 0;
}
