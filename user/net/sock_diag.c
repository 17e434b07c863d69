/* SPDX-License-Identifier: BSD-2-Clause */
/* Lists and ends balanced sockets by netlink (sock_diag(7)), in one network namespace or more. */
#include "net/sock_diag.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "net/endpoint.h"
#include "net/netns.h"

/* From include/net/tcp_states.h, which the kernel does not export to user space. */
#define STATE_ESTABLISHED 1
#define STATE_SYN_SENT 2
#define STATE_FIN_WAIT1 4
#define STATE_FIN_WAIT2 5
#define STATE_CLOSE_WAIT 8
#define STATE_LAST_ACK 9
#define STATE_LISTEN 10
#define STATE_CLOSING 11

/* All states of a client's connection but TIME_WAIT, in which there is no socket any more. */
#define CONNECTION_STATES                                                         \
	(1U << STATE_ESTABLISHED | 1U << STATE_SYN_SENT | 1U << STATE_FIN_WAIT1 | \
	 1U << STATE_FIN_WAIT2 | 1U << STATE_CLOSE_WAIT | 1U << STATE_LAST_ACK |  \
	 1U << STATE_CLOSING)

/* A part of a dump is 32 KiB at most (netlink_dump, net/netlink/af_netlink.c). */
#define PART_SIZE 65536

/* A netlink socket in one network namespace; fd is a negative errno when it was not found. */
struct diag_ns {
	__u64 netns;
	__u64 cookie;
	int fd;
};

struct sock_diag {
	__u32 sequence;
	struct diag_ns own;
	struct diag_ns *others;
	size_t n_others;
	char *part; /* PART_SIZE */
};

struct request {
	struct nlmsghdr header;
	struct inet_diag_req_v2 body;
	/* Which map's records to add: only in requests of a walk. */
	struct nlattr storages;
	struct nlattr map;
	__u32 map_fd;
};

#define PLAIN_REQUEST offsetof(struct request, storages)

/* One comparison of the kernel's filter (inet_diag_bc_run, net/ipv4/inet_diag.c). */
struct filter {
	struct inet_diag_bc_op op;
	char peer[sizeof(struct inet_diag_hostcond)]; /* the address follows it */
	__be32 addr[4];
};

struct list_request {
	struct request plain;
	struct nlattr bytecode;
	struct filter filter;
};

/* --- netlink ------------------------------------------------------------------------ */

typedef int (*message_fn)(const struct inet_diag_msg *m, size_t length, void *arg);

/* The error in an answer: 0 or negative. */
static int error_of(const struct nlmsghdr *header)
{
	struct nlmsgerr error;

	if (header->nlmsg_len < NLMSG_LENGTH(sizeof(error)))
		return -EPROTO;
	memcpy(&error, NLMSG_DATA(header), sizeof(error));
	return error.error <= 0 ? error.error : -EPROTO;
}

/*
 * The result that the end of a list carries: 0 or negative (netlink_dump_done,
 * net/netlink/af_netlink.c).
 */
static int end_of(const struct nlmsghdr *header)
{
	int code = 0;

	if (header->nlmsg_len >= NLMSG_LENGTH(sizeof(code)))
		memcpy(&code, NLMSG_DATA(header), sizeof(code));
	return code < 0 ? code : 0;
}

/* Returns 1 to go on, or the result of the request: 0 or negative. */
static int take_message(const struct nlmsghdr *header, __u32 sequence, message_fn take, void *arg)
{
	int r;

	if (header->nlmsg_seq != sequence)
		return 1;
	if (header->nlmsg_type == NLMSG_DONE)
		return end_of(header);
	if (header->nlmsg_type == NLMSG_ERROR)
		return error_of(header);
	if (!take || header->nlmsg_len < NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
		return 1;
	r = take(NLMSG_DATA(header), header->nlmsg_len - NLMSG_HDRLEN, arg);
	return r ? r : 1;
}

/* Takes one part of an answer. Returns 1 when there is more, or the result: 0 or negative. */
static int receive_part(struct sock_diag *d, int fd, message_fn take, void *arg)
{
	struct nlmsghdr *header = (struct nlmsghdr *)d->part;
	ssize_t n;
	size_t left;

	do
		n = recv(fd, d->part, PART_SIZE, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	left = (size_t)n;
	for (; NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
		int r = take_message(header, d->sequence, take, arg);

		if (r <= 0)
			return r;
	}
	return 1;
}

static int receive_all(struct sock_diag *d, int fd, message_fn take, void *arg)
{
	int r;

	do
		r = receive_part(d, fd, take, arg);
	while (r > 0);
	return r;
}

/* Asks, and leaves the answer to be received. */
static int send_request(struct sock_diag *d, int fd, struct request *q, size_t size)
{
	q->header.nlmsg_len = (__u32)size;
	q->header.nlmsg_type = q->header.nlmsg_type ? q->header.nlmsg_type : SOCK_DIAG_BY_FAMILY;
	q->header.nlmsg_flags |= NLM_F_REQUEST;
	q->header.nlmsg_seq = ++d->sequence;
	q->body.sdiag_protocol = IPPROTO_TCP;
	return send(fd, q, size, 0) < 0 ? -errno : 0;
}

/* size: of the request; what is behind PLAIN_REQUEST may be left out. */
static int ask(struct sock_diag *d, int fd, struct request *q, size_t size, message_fn take,
	       void *arg)
{
	int r = send_request(d, fd, q, size);

	return r ? r : receive_all(d, fd, take, arg);
}

/* --- network namespaces ------------------------------------------------------------------ */

/* The kernel answers before sendto returns, so this limit is a safeguard only. */
static void limit_wait(int fd)
{
	const struct timeval limit = { .tv_sec = 1 };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

/*
 * A connected netlink socket receives only from its peer. Otherwise a process with CAP_NET_ADMIN in
 * that namespace could answer instead of the kernel (netlink_unicast).
 */
static int receive_from_kernel_only(int fd)
{
	const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };

	return connect(fd, (const struct sockaddr *)&kernel, sizeof(kernel)) ? -errno : 0;
}

/* Before Linux 5.14 there is no cookie, and the inode number has to be enough. */
static void fill_ns(struct diag_ns *p, __u64 netns, int fd)
{
	int r = fd < 0 ? fd : receive_from_kernel_only(fd);

	*p = (struct diag_ns){ .netns = netns, .fd = r ? r : fd };
	if (r && fd >= 0)
		close(fd);
	if (r)
		return;
	if (netns_cookie(fd, &p->cookie))
		p->cookie = 0;
	limit_wait(fd);
}

static struct diag_ns *find_ns(struct sock_diag *d, __u64 netns)
{
	if (netns == d->own.netns)
		return &d->own;
	for (size_t i = 0; i < d->n_others; i++)
		if (d->others[i].netns == netns)
			return &d->others[i];
	return NULL;
}

/* A namespace that was not found (fd negative) is remembered as well. */
static int add_ns(struct sock_diag *d, __u64 netns, int fd)
{
	struct diag_ns *others = realloc(d->others, (d->n_others + 1) * sizeof(*others));

	if (!others)
		return -ENOMEM;
	d->others = others;
	fill_ns(&others[d->n_others++], netns, fd);
	return 0;
}

struct walk {
	struct sock_diag *d;
	__u64 only; /* 0: every one */
	bool out_of_memory;
};

static bool wants(void *arg, __u64 netns)
{
	const struct walk *w = arg;

	return (!w->only || netns == w->only) && !find_ns(w->d, netns);
}

static bool takes(void *arg, __u64 netns, int fd)
{
	struct walk *w = arg;

	if (add_ns(w->d, netns, fd)) {
		close(fd);
		w->out_of_memory = true;
		return false;
	}
	return netns != w->only;
}

/* only: 0 for all. pid: a process that may be there; 0 for none. */
static int visit_namespaces(struct sock_diag *d, __u64 only, __u32 pid, bool everywhere,
			    struct err *e)
{
	struct walk w = { .d = d, .only = only };
	const struct netns_visitor visitor = { .wants = wants, .takes = takes, .arg = &w };
	int r = netns_visit(pid, NETLINK_SOCK_DIAG, &visitor, e);

	if (!r && everywhere)
		r = netns_visit_sockets(NETLINK_SOCK_DIAG, &visitor, e);
	return w.out_of_memory ? err_no_memory(e) : r;
}

static int ns_of(struct sock_diag *d, __u64 netns, __u32 pid, struct diag_ns **ret, struct err *e)
{
	struct diag_ns *p = find_ns(d, netns);
	int r = p ? 0 : visit_namespaces(d, netns, pid, false, e);

	if (r)
		return r;
	p = find_ns(d, netns);
	if (!p && add_ns(d, netns, -ESRCH))
		return err_no_memory(e);
	p = find_ns(d, netns);
	if (p->fd < 0)
		return err_set(e, ESRCH,
			       "no process, and no name in /run/netns, leads to its network "
			       "namespace; run this in the host's PID namespace");
	*ret = p;
	return 0;
}

/* --- open and close ----------------------------------------------------------------------- */

/* Opens a socket in this process's network namespace, for the caller to close. */
static int diag_socket(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

	if (fd < 0)
		return -errno;
	return fd;
}

static int open_own(struct diag_ns *own)
{
	__u64 netns;
	int r = netns_own(&netns);

	if (r)
		return r;
	fill_ns(own, netns, diag_socket());
	return own->fd < 0 ? own->fd : 0;
}

int sock_diag_open(struct sock_diag **ret, struct err *e)
{
	struct sock_diag *d = calloc(1, sizeof(*d));
	int r;

	if (d)
		d->part = malloc(PART_SIZE);
	if (!d || !d->part) {
		free(d);
		return err_no_memory(e);
	}
	d->own.fd = -1;
	r = open_own(&d->own);
	if (r) {
		sock_diag_close(d);
		return err_set(e, -r, "cannot open a sock_diag socket: %s", strerror(-r));
	}
	*ret = d;
	return 0;
}

void sock_diag_close(struct sock_diag *d)
{
	if (!d)
		return;
	if (d->own.fd >= 0)
		close(d->own.fd);
	for (size_t i = 0; i < d->n_others; i++)
		if (d->others[i].fd >= 0)
			close(d->others[i].fd);
	free(d->others);
	free(d->part);
	free(d);
}

/* --- the list --------------------------------------------------------------------------- */

struct listing {
	const struct diag_ns *ns;
	int (*visit)(const struct klb_connection *c, void *arg);
	void *arg;
};

/* The payload of the first attribute of that type; NULL for none. ret_length: its bytes. */
static const void *find_attribute(const void *attributes, size_t length, int type,
				  size_t *ret_length)
{
	const struct rtattr *a = attributes;

	for (; RTA_OK(a, length); a = RTA_NEXT(a, length)) {
		if ((a->rta_type & NLA_TYPE_MASK) != type)
			continue;
		*ret_length = RTA_PAYLOAD(a);
		return RTA_DATA(a);
	}
	return NULL;
}

/* The record inside INET_DIAG_SK_BPF_STORAGES (diag_get, net/core/bpf_sk_storage.c). */
static bool find_record(const void *attributes, size_t length, struct klb_socket *ret)
{
	const void *at = find_attribute(attributes, length, INET_DIAG_SK_BPF_STORAGES, &length);

	if (at)
		at = find_attribute(at, length, SK_DIAG_BPF_STORAGE, &length);
	if (at)
		at = find_attribute(at, length, SK_DIAG_BPF_STORAGE_MAP_VALUE, &length);
	if (!at || length != sizeof(*ret))
		return false;
	memcpy(ret, at, sizeof(*ret));
	return true;
}

/* The SYN counts as acknowledged data. */
static bool is_silent(const struct tcp_info *info)
{
	return info->tcpi_bytes_acked > 1 && !info->tcpi_unacked && !info->tcpi_bytes_received;
}

/*
 * The time begins with the connection. A peer that has closed sends nothing more, and its FIN
 * counts as data.
 */
static __u32 last_data_ms(__u32 tcp_state, const struct tcp_info *info)
{
	return info->tcpi_bytes_received && tcp_state == STATE_ESTABLISHED
		       ? info->tcpi_last_data_recv
		       : CONNECTION_NO_DATA;
}

/* Fills in what struct tcp_info says, if it was asked for. */
static void read_info(const void *attributes, size_t length, struct klb_connection *ret)
{
	struct tcp_info info = { 0 };
	const void *at = find_attribute(attributes, length, INET_DIAG_INFO, &length);

	if (at)
		memcpy(&info, at, length < sizeof(info) ? length : sizeof(info));
	ret->srtt_us = info.tcpi_rtt;
	ret->last_data_ms = last_data_ms(ret->tcp_state, &info);
	ret->silent_ms = ret->tcp_state == STATE_ESTABLISHED && is_silent(&info)
				 ? info.tcpi_last_data_sent
				 : 0;
}

static void read_local(const struct inet_diag_msg *m, struct klb_endpoint *ret)
{
	if (m->idiag_family == AF_INET) {
		memset(ret->addr, 0, 10);
		memset(ret->addr + 10, 0xff, 2);
		memcpy(ret->addr + 12, m->id.idiag_src, 4);
	} else {
		memcpy(ret->addr, m->id.idiag_src, sizeof(ret->addr));
	}
	ret->port = ntohs(m->id.idiag_sport);
}

static int take_connection(const struct inet_diag_msg *m, size_t length, void *arg)
{
	const struct listing *l = arg;
	struct klb_connection c;

	length -= sizeof(*m);
	memset(&c, 0, sizeof(c));
	/* A socket that is not balanced has no record. */
	if (!find_record(m + 1, length, &c.record))
		return 0;
	read_local(m, &c.local);
	c.tcp_state = m->idiag_state;
	c.uid = m->idiag_uid;
	c.bound_if = m->id.idiag_if;
	c.cookie = m->id.idiag_cookie[0] | (__u64)m->id.idiag_cookie[1] << 32;
	read_info(m + 1, length, &c);
	c.netns = l->ns->netns;
	c.netns_cookie = l->ns->cookie;
	return l->visit(&c, l->arg);
}

/* Fills a filter for sockets that are connected to peer. Returns its length. */
static size_t fill_filter(const struct klb_endpoint *peer, struct filter *ret)
{
	bool ipv4 = endpoint_is_ipv4(peer);
	size_t skip = ipv4 ? 12 : 0, bytes = sizeof(peer->addr) - skip;
	size_t length = offsetof(struct filter, addr) + bytes;
	struct inet_diag_hostcond cond;

	/* The bytes between its fields go to the kernel as well. */
	memset(&cond, 0, sizeof(cond));
	cond.family = ipv4 ? AF_INET : AF_INET6;
	cond.prefix_len = (__u8)(8 * bytes);
	cond.port = (int)peer->port;
	/* The program matches when it ends exactly behind its last step. */
	ret->op = (struct inet_diag_bc_op){ .code = INET_DIAG_BC_D_COND,
					    .yes = (__u8)length,
					    .no = (__u16)(length + sizeof(ret->op)) };
	memcpy(ret->peer, &cond, sizeof(cond));
	memcpy(ret->addr, peer->addr + skip, bytes);
	return length;
}

/* states: 0 asks for sockets in no state at all, of which there are none. */
static int send_list_request(struct sock_diag *d, int fd, int family,
			     const struct sock_diag_query *q, __u32 states)
{
	struct list_request r = {
		.plain = { .header.nlmsg_flags = NLM_F_DUMP,
			   .body = { .sdiag_family = (__u8)family,
				     .idiag_states = states,
				     .idiag_ext = q->info ? 1 << (INET_DIAG_INFO - 1) : 0 },
			   .storages = { .nla_len = sizeof(r.plain) - PLAIN_REQUEST,
					 .nla_type = INET_DIAG_REQ_SK_BPF_STORAGES | NLA_F_NESTED },
			   .map = { .nla_len = sizeof(r.plain.map) + sizeof(r.plain.map_fd),
				    .nla_type = SK_DIAG_BPF_STORAGE_REQ_MAP_FD },
			   .map_fd = (__u32)q->map_fd },
		.bytecode = { .nla_type = INET_DIAG_REQ_BYTECODE },
	};
	size_t size = sizeof(r.plain);

	if (q->peer) {
		r.bytecode.nla_len = (__u16)(sizeof(r.bytecode) + fill_filter(q->peer, &r.filter));
		size = offsetof(struct list_request, bytecode) + r.bytecode.nla_len;
	}
	return send_request(d, fd, &r.plain, size);
}

static int list_error(int code, struct err *e)
{
	switch (code) {
	case ENOENT:
		return err_set(e, EOPNOTSUPP,
			       "this kernel cannot list connections: tcp_diag is missing "
			       "(CONFIG_INET_TCP_DIAG); `modprobe tcp_diag`");
	case EPERM:
		return err_set(e, EPERM, "not permitted: it takes CAP_BPF to list connections");
	case EOPNOTSUPP:
		return err_set(e, EOPNOTSUPP,
			       "this kernel cannot list connections: sock_diag knows no BPF "
			       "storages (Linux 5.7)");
	default:
		return err_set(e, code, "cannot list connections: sock_diag: %s", strerror(code));
	}
}

int sock_diag_can_list(struct sock_diag *d, int map_fd, struct err *e)
{
	const struct sock_diag_query q = { .map_fd = map_fd };
	int r = send_list_request(d, d->own.fd, AF_INET, &q, 0);

	if (!r)
		r = receive_all(d, d->own.fd, NULL, NULL);
	return r ? list_error(-r, e) : 0;
}

/* The place after the last one: the walk is over. */
#define WALK_END (~(size_t)0)

/* places: 0: the namespace that the query names; 1: this process's own; from 2 on: the others. */
static struct diag_ns *place_of(struct sock_diag_walk *w)
{
	struct sock_diag *d = w->diag;

	if (w->place < 2)
		return w->place ? &d->own : find_ns(d, w->first);
	return w->place - 2 < d->n_others ? &d->others[w->place - 2] : NULL;
}

static int leave_place(struct sock_diag_walk *w, struct err *e)
{
	int r = 0;

	w->family = AF_INET;
	if (!w->query.elsewhere)
		w->place = WALK_END;
	else if (!w->place++)
		r = visit_namespaces(w->diag, 0, 0, w->query.everywhere, e);
	return r;
}

/* Sends the next request. Returns 1 when there is one more place to look at, 0 at the end. */
static int ask_next(struct sock_diag_walk *w, struct err *e)
{
	const struct diag_ns *p = w->place == WALK_END ? NULL : place_of(w);
	int r;

	if (!p)
		return 0;
	if (p->fd < 0 || (w->place && p->netns == w->first)) {
		r = leave_place(w, e);
		return r ? r : 1;
	}
	r = send_list_request(w->diag, p->fd, w->family, &w->query, CONNECTION_STATES);
	if (r)
		return list_error(-r, e);
	w->asked = true;
	return 1;
}

/* What comes after a namespace's sockets of one family. */
static int ask_less(struct sock_diag_walk *w, int result, struct err *e)
{
	/* A kernel without IPv6 has no such family. */
	if (result && !(result == -ENOENT && w->family == AF_INET6))
		return list_error(-result, e);
	w->asked = false;
	if (w->family == AF_INET6)
		return leave_place(w, e);
	/* An IPv6 socket that is connected to ::ffff:a.b.c.d is among these. */
	w->family = AF_INET6;
	return 0;
}

int sock_diag_walk_begin(struct sock_diag_walk *w, struct sock_diag *d,
			 const struct sock_diag_query *q, struct err *e)
{
	struct diag_ns *first = NULL;

	*w = (struct sock_diag_walk){ .diag = d,
				      .query = *q,
				      .first = q->netns ? q->netns : d->own.netns,
				      .family = AF_INET };
	return ns_of(d, w->first, 0, &first, e);
}

int sock_diag_walk_step(struct sock_diag_walk *w,
			int (*visit)(const struct klb_connection *c, void *arg), void *arg,
			struct err *e)
{
	struct listing l = { .visit = visit, .arg = arg };
	int r;

	if (!w->asked)
		return ask_next(w, e);
	l.ns = place_of(w);
	r = receive_part(w->diag, l.ns->fd, take_connection, &l);
	if (r > 0)
		return 1;
	r = ask_less(w, r, e);
	return r ? r : 1;
}

/* --- listeners ----------------------------------------------------------------------------- */

static int take_listener(const struct inet_diag_msg *m, size_t length, void *arg)
{
	unsigned int port = ntohs(m->id.idiag_sport);
	__u64 *ports = arg;

	(void)length;
	ports[port / 64] |= 1ULL << port % 64;
	return 0;
}

static int list_listeners(struct sock_diag *d, int family, message_fn take, void *arg)
{
	struct request q = { .header.nlmsg_flags = NLM_F_DUMP,
			     .body = { .sdiag_family = (__u8)family,
				       .idiag_states = 1U << STATE_LISTEN } };

	return ask(d, d->own.fd, &q, PLAIN_REQUEST, take, arg);
}

int sock_diag_listeners(struct sock_diag *d, __u64 *ret, struct err *e)
{
	int r = list_listeners(d, AF_INET, take_listener, ret);

	if (!r)
		r = list_listeners(d, AF_INET6, take_listener, ret);
	/* A kernel without IPv6 has no such listeners. */
	if (r == -ENOENT && !list_listeners(d, AF_INET, take_listener, ret))
		r = 0;
	return r ? err_set(e, -r, "cannot list what listens: sock_diag: %s", strerror(-r)) : 0;
}

struct search {
	struct klb_endpoint at;
	struct sock_diag_listener found; /* inode 0: nobody */
};

static int take_if_at(const struct inet_diag_msg *m, size_t length, void *arg)
{
	struct search *s = arg;
	struct klb_endpoint at = { 0 };

	(void)length;
	read_local(m, &at);
	if (at.port == s->at.port && (endpoint_equal(&at, &s->at) || endpoint_is_unspecified(&at) ||
				      endpoint_is_unspecified(&s->at)))
		s->found =
			(struct sock_diag_listener){ .uid = m->idiag_uid, .inode = m->idiag_inode };
	return 0;
}

int sock_diag_find_listener(struct sock_diag *d, const struct klb_endpoint *at,
			    struct sock_diag_listener *ret)
{
	struct search s = { .at = *at };
	int r = list_listeners(d, AF_INET, take_if_at, &s);

	if (!r)
		r = list_listeners(d, AF_INET6, take_if_at, &s);
	*ret = s.found;
	if (s.found.inode)
		return 0;
	return r ? r : -ENOENT;
}

/* --- ending ----------------------------------------------------------------------------------- */

/*
 * A kernel without tcp_diag answers ENOENT, as it does for a socket that has ended. To tell the
 * two apart, this asks for sockets in no state at all: with tcp_diag, that list is empty.
 */
static int check_diag(struct sock_diag *d, struct err *e)
{
	struct request q = { .header = { .nlmsg_flags = NLM_F_DUMP },
			     .body = { .sdiag_family = AF_INET } };
	int r = ask(d, d->own.fd, &q, PLAIN_REQUEST, NULL, NULL);

	if (r == -ENOENT)
		return err_set(
			e, EOPNOTSUPP,
			"this kernel cannot end connections: tcp_diag is missing "
			"(CONFIG_INET_TCP_DIAG); `modprobe tcp_diag`, or restart the clients");
	if (r)
		return err_set(e, -r, "sock_diag: %s", strerror(-r));
	return 0;
}

int sock_diag_can_destroy(struct sock_diag *d, struct err *e)
{
	/* No socket has port 0. */
	struct request q = { .header = { .nlmsg_type = SOCK_DESTROY, .nlmsg_flags = NLM_F_ACK },
			     .body = { .sdiag_family = AF_INET } };
	int r = check_diag(d, e);

	if (r)
		return r;
	r = ask(d, d->own.fd, &q, PLAIN_REQUEST, NULL, NULL);
	if (r == -EOPNOTSUPP)
		return err_set(e, EOPNOTSUPP,
			       "this kernel cannot end connections: it was built without "
			       "CONFIG_INET_DIAG_DESTROY; restart the clients instead");
	if (r != -ENOENT)
		return err_set(e, r ? -r : EPROTO, "sock_diag: %s",
			       r ? strerror(-r) : "it claims to have ended no socket at all");
	return 0;
}

/*
 * The kernel keeps an AF_INET6 socket that is connected to ::ffff:a.b.c.d among the IPv4 ones
 * (inet_diag_find_one_icsk, net/ipv4/inet_diag.c), and finds it there by either family.
 */
static void name_socket(const struct klb_connection *c, struct inet_diag_req_v2 *ret)
{
	const struct klb_endpoint *local = &c->local, *remote = &c->record.backend;
	bool ipv4 = endpoint_is_ipv4(remote);
	size_t skip = ipv4 ? 12 : 0;

	ret->sdiag_family = ipv4 ? AF_INET : AF_INET6;
	ret->id.idiag_sport = htons((uint16_t)local->port);
	ret->id.idiag_dport = htons((uint16_t)remote->port);
	memcpy(ret->id.idiag_src, local->addr + skip, sizeof(local->addr) - skip);
	memcpy(ret->id.idiag_dst, remote->addr + skip, sizeof(remote->addr) - skip);
	ret->id.idiag_if = c->bound_if;
	ret->id.idiag_cookie[0] = (__u32)c->cookie;
	ret->id.idiag_cookie[1] = (__u32)(c->cookie >> 32);
}

bool sock_diag_is_connection(__u32 tcp_state)
{
	return tcp_state < 32 && CONNECTION_STATES & 1U << tcp_state;
}

bool sock_diag_is_syn_sent(__u32 tcp_state)
{
	return tcp_state == STATE_SYN_SENT;
}

bool sock_diag_has_sent_fin(__u32 tcp_state)
{
	return tcp_state == STATE_FIN_WAIT1 || tcp_state == STATE_FIN_WAIT2 ||
	       tcp_state == STATE_LAST_ACK || tcp_state == STATE_CLOSING;
}

static int take_progress(const struct inet_diag_msg *m, size_t length, void *arg)
{
	struct sock_diag_progress *ret = arg;
	struct tcp_info info = { 0 };
	const void *at = find_attribute(m + 1, length - sizeof(*m), INET_DIAG_INFO, &length);

	if (at)
		memcpy(&info, at, length < sizeof(info) ? length : sizeof(info));
	*ret = (struct sock_diag_progress){
		.tcp_state = m->idiag_state,
		.received = info.tcpi_bytes_received,
		.acknowledged = info.tcpi_bytes_acked,
		.sent = info.tcpi_bytes_sent - info.tcpi_bytes_retrans,
		.last_data_ms = last_data_ms(m->idiag_state, &info),
		.cookie = m->id.idiag_cookie[0] | (__u64)m->id.idiag_cookie[1] << 32,
	};
	return 0;
}

int sock_diag_look(struct sock_diag *d, const struct klb_connection *c,
		   struct sock_diag_progress *ret)
{
	/* The answer to a request for one socket has no end but the acknowledgement. */
	struct request q = { .header = { .nlmsg_flags = NLM_F_ACK },
			     .body = { .idiag_ext = 1 << (INET_DIAG_INFO - 1) } };
	struct diag_ns *p = NULL;
	int r = ns_of(d, c->netns, c->record.pid, &p, NULL);

	if (r)
		return r;
	name_socket(c, &q.body);
	return ask(d, p->fd, &q, PLAIN_REQUEST, take_progress, ret);
}

/* Ends the answer, which has no end without NLM_F_ACK. */
#define OWNER_FOUND (-EALREADY)

/*
 * A socket that its process has closed has no inode, and one in TIME_WAIT has user 0 whoever it was
 * (inet_twsk_diag_fill).
 */
static int take_owner(const struct inet_diag_msg *m, size_t length, void *arg)
{
	(void)length;
	if (!m->idiag_inode || !sock_diag_is_connection(m->idiag_state))
		return -ENOENT;
	*(__u32 *)arg = m->idiag_uid;
	return OWNER_FOUND;
}

int sock_diag_owner(struct sock_diag *d, const struct klb_endpoint *client,
		    const struct klb_endpoint *server, __u32 *ret_uid)
{
	const struct klb_connection c = { .local = *client,
					  .record.backend = *server,
					  .cookie = SOCK_DIAG_ANY_COOKIE };
	struct request q = { .body.idiag_states = CONNECTION_STATES };
	int r;

	name_socket(&c, &q.body);
	r = ask(d, d->own.fd, &q, PLAIN_REQUEST, take_owner, ret_uid);
	return r == OWNER_FOUND ? 0 : r ? r : -ENOENT;
}

int sock_diag_tcp_socket(struct sock_diag *d, const struct klb_connection *c)
{
	int family = endpoint_is_ipv4(&c->record.backend) ? AF_INET : AF_INET6;
	struct diag_ns *p = NULL;
	int r = ns_of(d, c->netns, c->record.pid, &p, NULL);

	return r ? r : netns_socket(p->fd, family, SOCK_STREAM, 0);
}

int sock_diag_destroy(struct sock_diag *d, const struct klb_connection *c, struct err *e)
{
	struct request q = { .header = { .nlmsg_type = SOCK_DESTROY, .nlmsg_flags = NLM_F_ACK } };
	struct diag_ns *p = NULL;
	int r = ns_of(d, c->netns, c->record.pid, &p, e);

	if (r)
		return r;
	name_socket(c, &q.body);
	r = ask(d, p->fd, &q, PLAIN_REQUEST, NULL, NULL);
	if (!r || r == -ENOENT)
		return r;
	if (r == -EPERM)
		return err_set(e, EPERM, "not permitted: it takes CAP_NET_ADMIN");
	return err_set(e, -r, "%s", strerror(-r));
}
