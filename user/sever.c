/* SPDX-License-Identifier: BSD-2-Clause */
#include "sever.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "endpoint.h"
#include "netns.h"

/* A netlink socket in one network namespace; fd is a negative errno when it was not found. */
struct place {
	__u64 cookie;
	int fd;
};

struct sever {
	__u32 sequence;
	struct place own;
	struct place *others;
	size_t n_others;
};

struct request {
	struct nlmsghdr header;
	struct inet_diag_req_v2 body;
};

/* --- netlink ------------------------------------------------------------------------ */

/* The answer's error, 0 or negative; 1 for a message that is not the answer. */
static int judge(const struct nlmsghdr *header, __u32 sequence)
{
	struct nlmsgerr error;

	if (header->nlmsg_seq != sequence)
		return 1;
	if (header->nlmsg_type == NLMSG_DONE)
		return 0;
	if (header->nlmsg_type != NLMSG_ERROR || header->nlmsg_len < NLMSG_LENGTH(sizeof(error)))
		return 1;
	memcpy(&error, NLMSG_DATA(header), sizeof(error));
	return error.error <= 0 ? error.error : -EPROTO;
}

static int receive(int fd, __u32 sequence)
{
	union {
		struct nlmsghdr first;
		char bytes[4096];
	} in;

	for (;;) {
		struct nlmsghdr *header = &in.first;
		ssize_t n = recv(fd, &in, sizeof(in), 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		for (size_t left = (size_t)n; NLMSG_OK(header, left);
		     header = NLMSG_NEXT(header, left)) {
			int r = judge(header, sequence);

			if (r <= 0)
				return r;
		}
	}
}

static int ask(struct sever *s, int fd, struct request *q)
{
	const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };

	q->header.nlmsg_len = sizeof(*q);
	q->header.nlmsg_flags |= NLM_F_REQUEST;
	q->header.nlmsg_seq = ++s->sequence;
	if (sendto(fd, q, sizeof(*q), 0, (const struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		return -errno;
	return receive(fd, q->header.nlmsg_seq);
}

/* The kernel has answered when sendto returns; the limit is for the day when it has not. */
static void limit_wait(int fd)
{
	const struct timeval limit = { .tv_sec = 1 };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

/* --- what the kernel can do ----------------------------------------------------------- */

/*
 * A kernel without tcp_diag answers ENOENT, as it does for a socket that has ended. It
 * also does to a list of no state at all, which is otherwise empty.
 */
static int check_diag(struct sever *s, struct err *e)
{
	struct request q = { .header = { .nlmsg_type = SOCK_DIAG_BY_FAMILY,
					 .nlmsg_flags = NLM_F_DUMP },
			     .body = { .sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP } };
	int r = ask(s, s->own.fd, &q);

	if (r == -ENOENT)
		return err_set(
			e, EOPNOTSUPP,
			"this kernel cannot end connections: tcp_diag is missing "
			"(CONFIG_INET_TCP_DIAG); `modprobe tcp_diag`, or restart the clients");
	if (r)
		return err_set(e, -r, "sock_diag: %s", strerror(-r));
	return 0;
}

/* Nothing has port 0. */
static int check_destroy(struct sever *s, struct err *e)
{
	struct request q = { .header = { .nlmsg_type = SOCK_DESTROY, .nlmsg_flags = NLM_F_ACK },
			     .body = { .sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP } };
	int r = ask(s, s->own.fd, &q);

	if (r == -EOPNOTSUPP)
		return err_set(e, EOPNOTSUPP,
			       "this kernel cannot end connections: it was built without "
			       "CONFIG_INET_DIAG_DESTROY; restart the clients instead");
	if (r != -ENOENT)
		return err_set(e, r ? -r : EPROTO, "sock_diag: %s",
			       r ? strerror(-r) : "it claims to have ended no socket at all");
	return 0;
}

/* --- where a socket is ------------------------------------------------------------------ */

static int open_own(struct sever *s, struct err *e)
{
	int r;

	s->own.fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	r = s->own.fd < 0 ? -errno : netns_cookie(s->own.fd, &s->own.cookie);
	if (r)
		return err_set(e, -r, "cannot open a sock_diag socket: %s", strerror(-r));
	limit_wait(s->own.fd);
	return 0;
}

/* What was not found is remembered as well. */
static int add_place(struct sever *s, __u64 cookie, int fd)
{
	struct place *others = realloc(s->others, (s->n_others + 1) * sizeof(*others));

	if (!others)
		return -ENOMEM;
	s->others = others;
	s->others[s->n_others++] = (struct place){ cookie, fd };
	if (fd >= 0)
		limit_wait(fd);
	return 0;
}

static int place_of(struct sever *s, const struct klb_connection *c, struct err *e)
{
	int fd;

	if (c->netns_cookie == s->own.cookie)
		return s->own.fd;
	for (size_t i = 0; i < s->n_others; i++) {
		if (s->others[i].cookie != c->netns_cookie)
			continue;
		if (s->others[i].fd >= 0)
			return s->others[i].fd;
		return err_set(e, -s->others[i].fd, "its network namespace was not found");
	}
	fd = netns_netlink(c->netns_cookie, c->record.pid, NETLINK_SOCK_DIAG, e);
	if (add_place(s, c->netns_cookie, fd) && fd >= 0) {
		close(fd);
		return err_set(e, ENOMEM, "out of memory");
	}
	return fd;
}

/* --- the one job ---------------------------------------------------------------------- */

/*
 * An AF_INET6 socket that is connected to ::ffff:a.b.c.d lies among the IPv4 ones
 * (inet_diag_find_one_icsk, net/ipv4/inet_diag.c), and is found there by either family.
 */
static void name_socket(const struct klb_connection *c, struct inet_diag_req_v2 *ret)
{
	const struct klb_endpoint *local = &c->local, *remote = &c->record.backend;
	bool ipv4 = endpoint_is_ipv4(remote);
	size_t skip = ipv4 ? 12 : 0;

	ret->sdiag_family = ipv4 ? AF_INET : AF_INET6;
	ret->sdiag_protocol = IPPROTO_TCP;
	ret->id.idiag_sport = htons((uint16_t)local->port);
	ret->id.idiag_dport = htons((uint16_t)remote->port);
	memcpy(ret->id.idiag_src, local->addr + skip, sizeof(local->addr) - skip);
	memcpy(ret->id.idiag_dst, remote->addr + skip, sizeof(remote->addr) - skip);
	ret->id.idiag_if = c->bound_if;
	ret->id.idiag_cookie[0] = (__u32)c->cookie;
	ret->id.idiag_cookie[1] = (__u32)(c->cookie >> 32);
}

int sever_one(struct sever *s, const struct klb_connection *c, struct err *e)
{
	struct request q = { .header = { .nlmsg_type = SOCK_DESTROY, .nlmsg_flags = NLM_F_ACK } };
	int r, fd = place_of(s, c, e);

	if (fd < 0)
		return fd;
	name_socket(c, &q.body);
	r = ask(s, fd, &q);
	if (!r || r == -ENOENT)
		return r;
	if (r == -EPERM)
		return err_set(e, EPERM, "not permitted: it takes CAP_NET_ADMIN");
	return err_set(e, -r, "%s", strerror(-r));
}

int sever_open(struct sever **ret, struct err *e)
{
	struct sever *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_set(e, ENOMEM, "out of memory");
	r = open_own(s, e);
	if (!r)
		r = check_diag(s, e);
	if (!r)
		r = check_destroy(s, e);
	if (r)
		sever_close(s);
	else
		*ret = s;
	return r;
}

void sever_close(struct sever *s)
{
	if (!s)
		return;
	if (s->own.fd >= 0)
		close(s->own.fd);
	for (size_t i = 0; i < s->n_others; i++)
		if (s->others[i].fd >= 0)
			close(s->others[i].fd);
	free(s->others);
	free(s);
}
