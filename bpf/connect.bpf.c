/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The programs at connect4/6 and getpeername4/6: normalise the address, find the frontend,
 * choose a backend, rewrite the address.
 *
 * Every hook returns "proceed", whatever happens. A connect to something that is no
 * frontend, and one that cannot be balanced, goes through unchanged. A return of 0 would
 * give the client an EPERM that it cannot explain.
 */
#include "maps.bpf.h"

#include <bpf/bpf_core_read.h>

#include "address.bpf.h"
#include "detour.bpf.h"
#include "kernel.bpf.h"
#include "leftovers.bpf.h"
#include "listener.bpf.h"
#include "select.bpf.h"
#include "socket.bpf.h"
#include "stash.bpf.h"

#define KLB_PROCEED 1

/* Which address families of backends a socket can connect to: 0 or 1 each. */
struct address_families {
	__u32 ipv4;
	__u32 ipv6;
	__u32 ipv6_socket; /* constant at each use */
};

/* The entry of `lookup` that matches, copied. With a pointer to it the verifier would go
 * through the rest of the program once for each index. */
struct frontend_match {
	__u32 policy;
	__u32 scope;
	__u32 table;
};

static __always_inline int find_frontend(const struct klb_endpoint *dst, struct frontend_match *ret)
{
	struct klb_lookup *lookup;
	__u32 zero = 0, i, slots;

	lookup = bpf_map_lookup_elem(&klb_lookup, &zero);
	if (!lookup)
		return -ENOENT;
	slots = lookup->slots;
	for (i = 0; i < KLB_FRONTEND_SLOTS && i < slots; i++) {
		const struct klb_lookup_entry *entry = &lookup->at[i];

		if (entry->endpoint.port != dst->port || !klb_endpoint_equal(&entry->endpoint, dst))
			continue;
		ret->policy = entry->policy;
		ret->scope = entry->scope;
		ret->table = entry->table;
		return 0;
	}
	return -ENOENT;
}

/*
 * Scope host means the network namespace in which kubelb-load ran. Its cookie comes from user
 * space: in kind, or in any other container that acts as a node, it is not init_net's.
 */
static __always_inline int in_scope(__u64 netns, const struct frontend_match *match,
				    const struct klb_control *control)
{
	return match->scope == KLB_SCOPE_ALL || netns == control->host_netns_cookie;
}

/*
 * Returns 32 random bits for one choice. Each socket has its own number and each connect of
 * a socket its own turn; the mixing (MurmurHash3's finaliser) makes numbers that follow
 * each other look unrelated.
 */
static __always_inline __u32 seed_of(struct klb_pending *p, __u64 number,
				     const struct klb_control *control)
{
	__u64 h = number ^ control->seed ^ (__u64)p->turn++ << 40;

	h = (h ^ h >> 33) * 0xff51afd7ed558ccdULL;
	h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53ULL;
	return (__u32)(h >> 32);
}

/*
 * Returns the flags that say whether this connect's outcome counts against the backend.
 *
 *   trusted    root's socket in the host's network namespace; anybody's while no agent runs,
 *              as then nobody else reports
 *   untrusted  another user's: a socket filter is enough to make its connects fail
 *   neither    a pod's, which a network policy may cut off; a socket with a device, a mark, a
 *              source address or a port of its own, which may fail for that reason; a socket
 *              under repair (TCP_REPAIR), which sends no SYN
 *
 * A filter is looked for when the connect fails: klb_distrust_limited.
 */
static __always_inline __u32 reporter_flags(const struct klb_connect *conn,
					    const struct klb_control *control)
{
	struct sock *sock = klb_sock_of(conn->tp);
	__u32 repair = BPF_CORE_READ_BITFIELD(conn->tp, repair);
	__u64 foreign = conn->netns ^ control->host_netns_cookie;
	/* SOCK_BINDADDR_LOCK and SOCK_BINDPORT_LOCK, macros of include/net/sock.h. */
	__u32 tied = sock->__sk_common.skc_bound_dev_if | sock->sk_mark |
		     (BPF_CORE_READ_BITFIELD(sock, sk_userlocks) & 12) | repair;
	__u32 untrusted;

	if (foreign | tied)
		return KLB_SOCKET_OTHER_NETNS * klb_any_bit(foreign) | KLB_SOCKET_REPAIR * repair;
	untrusted = conn->agent & klb_any_bit(sock->sk_uid.val);
	return KLB_SOCKET_TRUSTED ^ ((KLB_SOCKET_TRUSTED | KLB_SOCKET_UNTRUSTED) & (0 - untrusted));
}

/*
 * An IPv6 socket whose connect to an IPv4 backend failed keeps the operations for v4-mapped
 * addresses (tcp_v6_connect), and gets no answer to its next SYN to an IPv6 address. So it
 * stays with IPv4.
 */
static __always_inline void families_from_record(struct bpf_sock *sk,
						 struct address_families *families)
{
	struct klb_socket *rec;

	if (!families->ipv4 || !families->ipv6)
		return;
	rec = bpf_sk_storage_get(&klb_sockets, sk, 0, 0);
	if (rec && klb_is_ipv4(&rec->backend))
		families->ipv6 = 0;
}

/* A source address that the client has bound decides the address family. */
static __always_inline void families_from_source(const struct klb_endpoint *source,
						 struct address_families *families)
{
	if (klb_is_unspecified(source))
		return;
	if (klb_is_ipv4(source))
		families->ipv6 = 0;
	else
		families->ipv4 = 0;
}

/* What is the same for every candidate. */
struct choice_inputs {
	__u64 now;
	__u64 answered; /* now, in the unit of klb_stats.answered_until */
	__u64 counted; /* all ones; 0 without klb_sockops, when no count ever goes down */
};

static __always_inline void choice_inputs_init(struct choice_inputs *in, __u64 now)
{
	in->now = now;
	in->answered = now >> KLB_ANSWERED_SHIFT;
	in->counted = 0 - (__u64)klb_options.sockops;
	KLB_OPAQUE(in->answered);
	KLB_OPAQUE(in->counted);
}

/*
 * Fills ret_view. Returns 0, or -ENOENT for an id that is out of range, which ends the
 * choice: a branch that comes back into the caller's loop would be one more path through all
 * rounds that are left.
 */
static __always_inline int view_of(const struct klb_candidate *cand, __u32 reach,
				   const struct choice_inputs *in, struct klb_view *ret_view)
{
	__u32 id = cand->id;
	struct klb_stats *stats = bpf_map_lookup_elem(&klb_stats, &id);
	struct klb_admin *admin = bpf_map_lookup_elem(&klb_admin, &id);
	__u64 same_generation;

	if (!stats || !admin)
		return -ENOENT;
	ret_view->state = cand->state;
	ret_view->rank = cand->rank;
	ret_view->preferred = cand->preferred & 1;
	ret_view->eligible = reach >> (cand->ipv4 & 1) & 1;
	ret_view->active = (stats->active + stats->connecting) & in->counted;
	ret_view->srtt_us = stats->srtt_us;
	ret_view->ejected = klb_negative_mask(in->now - stats->ejected_until_ns);
	ret_view->answered = klb_negative_mask(in->answered - stats->answered_until);
	same_generation = klb_same(admin->generation, cand->generation);
	ret_view->drained = admin->drained & same_generation;
	ret_view->weight =
		klb_blend(cand->weight, admin->weight, 0 - (admin->weight_set & same_generation));
	return 0;
}

static __always_inline const struct klb_candidate *choose(const struct klb_candidates *table,
							  enum klb_policy policy,
							  const struct address_families *families,
							  __u32 seed, __u32 agent, __u64 now)
{
	/* By klb_candidate.ipv4: bit 0 for IPv6 backends, bit 1 for IPv4. */
	__u32 reach = klb_make_unknown_scalar(families->ipv6 | families->ipv4 << 1);
	struct klb_choice choice;
	struct choice_inputs in;
	__u32 best;
	__u32 i, n;

	n = table->n;
	klb_choice_init(&choice, klb_make_unknown_scalar(policy), seed, agent);
	choice_inputs_init(&in, now);
	for (i = 0; i < KLB_MAX_BACKENDS; i++) {
		const struct klb_candidate *cand = &table->at[i];
		struct klb_view view;

		if (i >= n)
			break;
		if (view_of(cand, reach, &in, &view))
			return 0;
		klb_choice_offer(&choice, i, &view);
	}
	best = klb_make_unknown_scalar((__u32)klb_choice_result(&choice));
	if (best >= KLB_MAX_BACKENDS)
		return 0;
	return &table->at[best];
}

/* Redirects the connect to the candidate. */
static __always_inline void redirect(struct bpf_sock_addr *ctx, const struct klb_connect *conn,
				     const struct klb_endpoint *dst,
				     const struct klb_candidate *cand,
				     const struct klb_control *control, __u32 ipv6_socket)
{
	struct klb_stats *stats = klb_stats_at(cand->id);
	__u32 flags = reporter_flags(conn, control);

	if (stats && klb_options.sockops && stats->evidence != KLB_EVIDENCE_NONE)
		klb_half_open(cand, flags, conn->tp, conn->now);
	klb_stash(ctx, conn, dst, cand, flags);
	if (ipv6_socket)
		klb_ctx_set6(ctx, &cand->endpoint);
	else
		klb_ctx_set4(ctx, &cand->endpoint);
}

/* Stores what kubelb-load cannot find out by itself. */
static __always_inline void record_selftest(const struct klb_connect *conn)
{
	struct klb_counters *counters = klb_counters_get();

	if (!counters)
		return;
	counters->selftest.netns_cookie = conn->netns;
	counters->selftest.jiffies = bpf_jiffies64();
	counters->selftest.now_ns = bpf_ktime_get_ns();
}

/* What the socket dialled before does not count any more. */
static __always_inline void dials_no_frontend(struct bpf_sock_addr *ctx)
{
	if (klb_memory.has_leftovers)
		klb_drop_leftovers(ctx);
	if (klb_memory.chosen_ns && klb_may_be_of_now(klb_memory.chosen_ns))
		klb_leave_behind(ctx);
}

/*
 * Whether the connect cannot leave the host: it goes to what listens locally. One number for
 * both cases, so that the caller has one branch and the verifier goes through the choice once.
 */
static __always_inline __u32 cannot_leave_host(const struct klb_endpoint *source,
					       const struct sock *sock)
{
	return klb_is_loopback(source) |
	       klb_same(sock->__sk_common.skc_bound_dev_if, LOOPBACK_IFINDEX);
}

/* Fills the rest of conn, and narrows families to what the socket can reach. */
static __always_inline void read_socket(struct bpf_sock_addr *ctx, struct sock *sock,
					const struct klb_endpoint *source,
					const struct klb_control *control,
					struct address_families *families, struct klb_connect *conn)
{
	/* 0 for IPv4 sockets. */
	families->ipv4 &= 1 ^ klb_is_ipv6_only(sock);
	families_from_source(source, families);
	families_from_record(ctx->sk, families);
	conn->now = klb_now_ns(control);
	conn->agent = klb_agent_alive(control, conn->now);
	conn->number = klb_socket_number(conn->tp);
	conn->pending = klb_pending_of(conn->number);
}

/* The connect cannot go to any backend itself. */
static __always_inline void leave_to_relay(struct bpf_sock_addr *ctx, __u32 why, __u32 ipv6_socket)
{
	if (ipv6_socket)
		klb_leave_to_relay6(ctx, why);
	else
		klb_leave_to_relay4(ctx, why);
}

/*
 * Sends the connect to the chosen backend, unless it comes from the listener that it would
 * reach. That is checked after the choice, although the choice may be for nothing then: before
 * it, the verifier would go through the choice once for each outcome.
 */
static __always_inline void use_choice(struct bpf_sock_addr *ctx, const struct klb_connect *conn,
				       const struct klb_endpoint *dst, __u32 scope,
				       const struct address_families *families,
				       const struct klb_candidate *cand,
				       const struct klb_control *control)
{
	if (klb_sock_of(conn->tp)->sk_mark)
		klb_unmark(ctx);
	if (klb_may_dial_itself(dst, scope) &&
	    (families->ipv6_socket ? klb_dials_itself6(ctx) : klb_dials_itself4(ctx))) {
		KLB_COUNT_LEFT_ALONE(skipped_own_listener, conn->tp);
		return;
	}
	if (!cand || !cand->id) {
		leave_to_relay(ctx, KLB_LEFT_NO_BACKEND, families->ipv6_socket);
		return;
	}
	if (cand->id == KLB_ID_SELFTEST)
		record_selftest(conn);
	redirect(ctx, conn, dst, cand, control, families->ipv6_socket);
}

/*
 * Balances one connect: when dst is a frontend, ctx gets the chosen backend's address. Otherwise,
 * and when it cannot be balanced, the connect goes through as it is.
 */
static __always_inline void balance(struct bpf_sock_addr *ctx, const struct klb_endpoint *dst,
				    const struct klb_endpoint *source,
				    struct address_families *families)
{
	const struct klb_candidates *table;
	struct klb_control *control;
	struct sock *sock;
	struct frontend_match match;
	struct klb_connect conn;

	if (find_frontend(dst, &match)) {
		dials_no_frontend(ctx);
		return;
	}
	control = klb_control_get();
	conn.tp = klb_addr_tcp_sock(ctx);
	if (!control || !conn.tp)
		return;
	sock = klb_sock_of(conn.tp);
	conn.netns = klb_netns_of(ctx, conn.tp);
	if (!in_scope(conn.netns, &match, control)) {
		KLB_COUNT(skipped_other_netns);
		return;
	}
	/* It was compared, and is again after the choice. */
	match.scope = klb_make_unknown_scalar(match.scope);
	if (cannot_leave_host(source, sock)) {
		leave_to_relay(ctx, KLB_LEFT_LOOPBACK_SOURCE, families->ipv6_socket);
		return;
	}
	read_socket(ctx, sock, source, control, families, &conn);
	table = bpf_map_lookup_elem(&klb_candidates, &match.table);
	/* Array lookups never fail. Checked here so that the verifier takes the choice once. */
	if (!table || !conn.pending)
		return;
	use_choice(ctx, &conn, dst, match.scope, families,
		   choose(table, match.policy, families,
			  seed_of(conn.pending, conn.number, control), conn.agent, conn.now),
		   control);
}

/*
 * TCP only. MPTCP runs this hook for its subflow, whose protocol is TCP. An address of
 * another family than the socket's is left alone: the kernel refuses it (tcp_v4_connect).
 */
static __always_inline int is_tcp(struct bpf_sock_addr *ctx, __u32 family)
{
	return KLB_CTX_READ(ctx->type) == SOCK_STREAM &&
	       KLB_CTX_READ(ctx->protocol) == IPPROTO_TCP &&
	       KLB_CTX_READ(ctx->user_family) == family;
}

SEC("cgroup/connect4")
int klb_connect4(struct bpf_sock_addr *ctx)
{
	struct address_families families = { .ipv4 = 1, .ipv6 = 0 };
	struct klb_endpoint dst, source;
	struct bpf_sock *sk = ctx->sk;

	if (!sk || !is_tcp(ctx, AF_INET))
		return KLB_PROCEED;
	klb_dialled4(ctx, sk, &dst, &source);
	balance(ctx, &dst, &source, &families);
	return KLB_PROCEED;
}

/* Also runs for ::ffff:127.0.0.1, whether the host uses IPv6 or not. */
SEC("cgroup/connect6")
int klb_connect6(struct bpf_sock_addr *ctx)
{
	struct address_families families = { .ipv4 = 1, .ipv6 = 1, .ipv6_socket = 1 };
	struct klb_endpoint dst, source;
	struct bpf_sock *sk = ctx->sk;

	if (!sk || !is_tcp(ctx, AF_INET6))
		return KLB_PROCEED;
	klb_dialled6(ctx, sk, &dst, &source);
	balance(ctx, &dst, &source, &families);
	return KLB_PROCEED;
}

/*
 * Returns what the client dialled, or NULL when the socket's peer is not the backend of its
 * record any more: the record stays when the socket is connected to something else.
 */
static __always_inline const struct klb_endpoint *dialled(struct bpf_sock_addr *ctx,
							  const struct klb_endpoint *peer)
{
	struct klb_socket *rec;

	if (!ctx->sk)
		return 0;
	rec = bpf_sk_storage_get(&klb_sockets, ctx->sk, 0, 0);
	if (!rec || !klb_endpoint_equal(&rec->backend, peer))
		return 0;
	return &rec->frontend;
}

SEC("cgroup/getpeername4")
int klb_getpeer4(struct bpf_sock_addr *ctx)
{
	const struct klb_endpoint *frontend;
	struct klb_endpoint peer;

	klb_ctx_get4(ctx, &peer);
	frontend = dialled(ctx, &peer);
	/* IPV6_ADDRFORM turns an IPv6 socket into an IPv4 one; an IPv6 frontend has no IPv4
	 * address to show. */
	if (frontend && klb_is_ipv4(frontend))
		klb_ctx_set4(ctx, frontend);
	return KLB_PROCEED;
}

SEC("cgroup/getpeername6")
int klb_getpeer6(struct bpf_sock_addr *ctx)
{
	const struct klb_endpoint *frontend;
	struct klb_endpoint peer;

	klb_ctx_get6(ctx, &peer);
	frontend = dialled(ctx, &peer);
	if (frontend)
		klb_ctx_set6(ctx, frontend);
	return KLB_PROCEED;
}
