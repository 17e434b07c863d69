/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * connect4/6 and getpeername4/6: normalise the address, look up, select, rewrite.
 *
 * Every hook returns "proceed" whatever happens: what is not ours, and what we
 * cannot help, goes through untouched. A return of 0 would be EPERM in the hands
 * of a client that knows nothing of us.
 */
#include "maps.bpf.h"

#include <bpf/bpf_core_read.h>

#include "address.bpf.h"
#include "kernel.bpf.h"
#include "listener.bpf.h"
#include "select.bpf.h"
#include "socket.bpf.h"

#define KLB_PROCEED 1

#define AF_INET 2 /* include/linux/socket.h */
#define AF_INET6 10
#define LOOPBACK_IFINDEX 1 /* include/net/flow.h */
#define SOCK_STREAM 1 /* include/linux/net.h: not in BTF, an enum without users there */

/* errno values: macros, hence not in vmlinux.h (uapi/asm-generic/errno-base.h). */
#define ENOENT 2
#define ENODEV 19
#define EADDRINUSE 98
#define EADDRNOTAVAIL 99

/* Which backends a socket can go to. */
struct reach {
	__u32 ipv4;
	__u32 ipv6;
	__u32 ipv6_socket; /* constant at each use */
};

#define COUNT(field)                                                 \
	do {                                                         \
		struct klb_counters *counters_ = klb_counters_get(); \
		if (counters_)                                       \
			__sync_fetch_and_add(&counters_->field, 1);  \
	} while (0)

/* What `lookup` says of a frontend, without a pointer into it: with one, the verifier
 * would go through the rest of the program once for each place. */
struct found {
	__u32 policy;
	__u32 scope;
	__u32 table;
};

static __always_inline int find_frontend(const struct klb_endpoint *dst, struct found *ret)
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
 * Scope host is the namespace that kubelb-load ran in. (A field of the socket: every
 * helper call pays for the CPU's mitigations.) Its number comes from
 * user space: that of init_net would be another one inside kind or any container that
 * plays a node.
 */
static __always_inline int in_scope(__u64 netns, const struct found *fe,
				    const struct klb_control *control)
{
	return fe->scope == KLB_SCOPE_ALL || netns == control->host_netns_cookie;
}

/*
 * 32 bits for the draws: no two sockets have the same number, no two connects of one
 * the same turn, and the mixing (MurmurHash3's finaliser) leaves nothing of
 * their being sequences.
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
 * The agent's verdicts are believed while its heartbeat is fresh; 0 means that there
 * never was one. A beat that comes in while we run is newer than now: signed. Without
 * branches, as all that goes into the choice.
 */
static __always_inline __u32 agent_alive(const struct klb_control *control, __u64 now)
{
	__u64 beat = control->heartbeat_ns;

	return (__u32)(klb_negative(0 - beat) &
		       klb_negative(now - beat - control->heartbeat_max_age_ns - 1));
}

/* One connect on its way through the hook. */
struct way {
	struct tcp_sock *tp;
	struct klb_pending *pending; /* this socket's place, whoever is in it */
	__u64 number;
	__u64 netns; /* the cookie of its network namespace */
	__u64 now;
};

static __always_inline __u32 ipv6_only(struct sock *sock)
{
	return BPF_CORE_READ_BITFIELD(&sock->__sk_common, skc_ipv6only);
}

/* 1 if any bit of x is set, else 0. */
static __always_inline __u32 any_bit(__u64 x)
{
	return (__u32)klb_negative(x | (0 - x));
}

/*
 * Whether the outcome says something about the backend. A pod may be cut off from it by
 * a policy, and a socket with a device, a mark, a source or a port of its own goes where
 * its owner wants it to, or fails for being the second there: none of them may take a
 * backend from everybody else. One under repair (TCP_REPAIR) is established without a SYN.
 * Nor may a user who only has to give his socket a filter; but where no agent looks for
 * itself, there is nobody else to ask.
 */
static __always_inline __u32 witness(const struct way *w, const struct klb_control *control)
{
	struct sock *sock = klb_sock_of(w->tp);
	/* SOCK_BINDADDR_LOCK and SOCK_BINDPORT_LOCK, macros of include/net/sock.h. */
	__u32 tied = sock->__sk_common.skc_bound_dev_if | sock->sk_mark |
		     (BPF_CORE_READ_BITFIELD(sock, sk_userlocks) & 12) |
		     BPF_CORE_READ_BITFIELD(w->tp, repair);
	__u32 foreign = any_bit(w->netns ^ control->host_netns_cookie);
	__u32 counts = 1 ^ (any_bit(tied) | foreign);
	__u32 hearsay = agent_alive(control, w->now) & any_bit(sock->sk_uid.val);

	/* Without branches: what follows would be gone through once for each way. */
	return (KLB_SOCKET_OTHER_NETNS & (0 - foreign)) |
	       (KLB_SOCKET_HEARSAY & (0 - (counts & hearsay))) |
	       (KLB_SOCKET_WITNESS & (0 - (counts & (1 ^ hearsay))));
}

/*
 * A socket that tried an IPv4 backend and failed keeps the operations of v4-mapped
 * addresses in the kernel (tcp_v6_connect); its next SYN to an IPv6 address is never
 * answered. It stays with IPv4.
 */
static __always_inline void reach_from_record(struct bpf_sock *sk, struct reach *r)
{
	struct klb_socket *rec;

	if (!r->ipv4 || !r->ipv6)
		return;
	rec = bpf_sk_storage_get(&klb_sockets, sk, 0, 0);
	if (rec && klb_is_ipv4(&rec->backend))
		r->ipv6 = 0;
}

/* A source that the client bound decides the family that it can talk to. */
static __always_inline void reach_from_source(const struct klb_endpoint *source, struct reach *r)
{
	if (klb_is_unspecified(source))
		return;
	if (klb_is_ipv4(source))
		r->ipv6 = 0;
	else
		r->ipv4 = 0;
}

/*
 * Returns x, as a number of which the verifier knows nothing.
 *
 *   - An index that is added to a pointer makes it retrace, on every path, all that the
 *     index was computed from; through 64 rounds that is more than it has patience for.
 *   - A number of which it knows more on one way than on another makes it take both through
 *     the rounds.
 *
 * It remembers what the stack holds by slots of 8 bytes, and what it knows of a number in the
 * upper half of one is lost (check_stack_write_fixed_off, kernel/bpf/verifier.c); but 0 it
 * would know again, so it is never 0 that lies there. Before Linux 6.8 it retraces through
 * the frame pointer alone, which the address here is a copy of.
 */
static __always_inline __u32 launder(__u32 x)
{
	__u32 slot[2] __attribute__((aligned(8)));
	volatile __u32 *upper = &slot[1];

	KLB_OPAQUE(upper);
	*upper = ~x;
	return ~*upper;
}

/* What is the same for every candidate of a choice. */
struct moment {
	__u64 now;
	__u64 answered; /* now, in the unit of klb_stats.answered_until */
	__u64 counted; /* all ones; 0 without klb_sockops, when nobody counts connections down */
};

static __always_inline void moment_init(struct moment *at, __u64 now)
{
	at->now = now;
	at->answered = now >> KLB_ANSWERED_SHIFT;
	at->counted = 0 - (__u64)klb_options.sockops;
	KLB_OPAQUE(at->answered);
	KLB_OPAQUE(at->counted);
}

/*
 * Returns 0, or -ENOENT for an id that cannot be. Without a branch but that one, and the
 * caller gives up on it: whatever comes back into the loop by another way is a path of
 * its own through the rounds that are left.
 */
static __always_inline int view_of(const struct klb_candidate *cand, __u32 reach,
				   const struct moment *at, struct klb_view *ret_view)
{
	__u32 id = cand->id;
	struct klb_stats *stats = bpf_map_lookup_elem(&klb_stats, &id);
	struct klb_admin *admin = bpf_map_lookup_elem(&klb_admin, &id);
	__u64 meant;

	if (!stats || !admin)
		return -ENOENT;
	ret_view->state = cand->state;
	ret_view->rank = cand->rank;
	ret_view->preferred = cand->preferred & 1;
	ret_view->eligible = reach >> (cand->ipv4 & 1) & 1;
	ret_view->active = (stats->active + stats->connecting) & at->counted;
	ret_view->srtt_us = stats->srtt_us;
	ret_view->ejected = klb_negative_mask(at->now - stats->ejected_until_ns);
	ret_view->answered = klb_negative_mask(at->answered - stats->answered_until);
	meant = klb_same(admin->generation, cand->generation);
	ret_view->drained = admin->drained & meant;
	ret_view->weight = klb_blend(cand->weight, admin->weight, 0 - (admin->weight_set & meant));
	return 0;
}

static __always_inline const struct klb_candidate *
choose(const struct klb_candidates *table, enum klb_policy policy,
       const struct klb_control *control, const struct reach *r, __u32 seed, __u64 now)
{
	/* By klb_candidate.ipv4: bit 0 for IPv6 backends, bit 1 for IPv4. */
	__u32 reach = launder(r->ipv6 | r->ipv4 << 1);
	struct klb_choice choice;
	struct moment at;
	__u32 best;
	__u32 i, n;

	n = table->n;
	klb_choice_init(&choice, launder(policy), seed, agent_alive(control, now));
	moment_init(&at, now);
	for (i = 0; i < KLB_MAX_BACKENDS; i++) {
		const struct klb_candidate *cand = &table->at[i];
		struct klb_view view;

		if (i >= n)
			break;
		if (view_of(cand, reach, &at, &view))
			return 0;
		klb_choice_offer(&choice, i, &view);
	}
	best = launder((__u32)klb_choice_result(&choice));
	if (best >= KLB_MAX_BACKENDS)
		return 0;
	return &table->at[best];
}

static __always_inline void describe(struct klb_route *ret, const struct klb_endpoint *frontend,
				     const struct klb_candidate *cand, __u32 flags, __u64 now)
{
	ret->frontend = *frontend;
	ret->backend = cand->endpoint;
	ret->id = cand->id;
	ret->generation = cand->generation;
	ret->flags = flags;
	ret->pad = 0;
	ret->chosen_ns = now;
}

/*
 * Leaves the choice where the sock_ops program finds it. A connect whose SYN goes out
 * at some later time, with the first data (TCP_FASTOPEN_CONNECT), and one whose slot is
 * taken get their record here and now; and all do where there is no such program.
 */
static __always_inline void hand_over(struct bpf_sock_addr *ctx, const struct way *w,
				      const struct klb_endpoint *frontend,
				      const struct klb_candidate *cand, __u32 flags)
{
	struct klb_pending *p = 0;
	struct klb_route route = {};
	struct klb_socket *rec;

	if (klb_options.sockops && !BPF_CORE_READ_BITFIELD(w->tp, fastopen_connect))
		p = klb_pending_claim(w->pending, w->number, w->now);
	if (p) {
		describe(&p->route, frontend, cand, flags, w->now);
		if (KLB_IS_OLD)
			klb_sign_now(&p->left);
		*(volatile __u64 *)&p->number = w->number;
		return;
	}
	describe(&route, frontend, cand, flags | KLB_SOCKET_EARLY, w->now);
	rec = klb_socket_record(ctx->sk, &route);
	if (!rec)
		return;
	klb_memory.has_early = 1;
	/* Nobody comes by later to sign it. */
	if (KLB_IS_OLD || !klb_options.sockops)
		klb_sign_now(rec);
}

/* Sends the connect to the candidate. */
static __always_inline void send(struct bpf_sock_addr *ctx, const struct way *w,
				 struct klb_endpoint *dst, const struct klb_candidate *cand,
				 const struct klb_control *control)
{
	struct klb_stats *stats = klb_stats_at(cand->id);
	__u32 flags = witness(w, control);

	/* Who may not say that it has failed does not try for others either. */
	if (stats && klb_options.sockops)
		klb_try(stats, w->now, klb_decision_ns(control), flags & KLB_SOCKET_WITNESS);
	hand_over(ctx, w, dst, cand, flags);
	*dst = cand->endpoint;
}

/* Tells kubelb-load what it cannot learn by itself. */
static __always_inline void answer_selftest(const struct way *w)
{
	struct klb_counters *counters = klb_counters_get();

	if (!counters)
		return;
	counters->selftest.netns_cookie = w->netns;
	counters->selftest.jiffies = bpf_jiffies64();
	counters->selftest.now_ns = bpf_ktime_get_ns();
}

/*
 * A record that was made here, for a SYN that then never left (TCP_FASTOPEN_CONNECT, and
 * AF_UNSPEC after it), is not about what the socket dials now, be it the same backend.
 */
static __always_inline void forget_early(struct bpf_sock *sk)
{
	struct klb_socket *rec;

	if (!klb_memory.has_early)
		return;
	rec = bpf_sk_storage_get(&klb_sockets, sk, 0, 0);
	if (rec && rec->flags & KLB_SOCKET_EARLY)
		klb_socket_forget(sk, rec);
}

/*
 * The heart: dst is a destination that somebody dials; when it is a frontend of
 * ours, it becomes the chosen backend. Returns 0 then, and a negative errno with
 * dst untouched when the connect is to go through as it is.
 */
static __always_inline int balance(struct bpf_sock_addr *ctx, struct klb_endpoint *dst,
				   const struct klb_endpoint *source, struct reach *r)
{
	const struct klb_candidates *table;
	const struct klb_candidate *cand;
	struct klb_control *control;
	struct sock *sock;
	struct found fe;
	struct way w;

	if (find_frontend(dst, &fe)) {
		forget_early(ctx->sk);
		return -ENOENT;
	}
	control = klb_control_get();
	w.tp = klb_addr_tcp_sock(ctx);
	if (!control || !w.tp)
		return -ENOENT;
	sock = klb_sock_of(w.tp);
	w.netns = klb_netns_of(ctx, w.tp);
	if (!in_scope(w.netns, &fe, control)) {
		COUNT(skipped_other_netns);
		return -ENODEV;
	}
	fe.scope = launder(fe.scope); /* it was compared, and is again after the choice */
	/* It could not leave the host from there; what listens locally gets it. In one
	 * branch, which the verifier does not carry through the choice twice. */
	if (klb_is_loopback(source) |
	    klb_same(sock->__sk_common.skc_bound_dev_if, LOOPBACK_IFINDEX)) {
		COUNT(skipped_loopback_source);
		return -EADDRNOTAVAIL;
	}
	/* Bit fields of IPv4 sockets say 0 here. */
	r->ipv4 &= 1 ^ ipv6_only(sock);
	reach_from_source(source, r);
	reach_from_record(ctx->sk, r);
	w.now = klb_now_ns(control);
	w.number = klb_socket_number(w.tp);
	w.pending = klb_pending_of(w.number);
	table = bpf_map_lookup_elem(&klb_candidates, &fe.table);
	/* Neither can be; the choice is not gone through for it. */
	if (!table || !w.pending)
		return -ENOENT;
	cand = choose(table, fe.policy, control, r, seed_of(w.pending, w.number, control), w.now);
	/* After the choice, though it be in vain: before it, the verifier would go through the
	 * choice once for each way. */
	if (klb_may_dial_itself(dst, fe.scope) &&
	    (r->ipv6_socket ? klb_dials_itself6(ctx) : klb_dials_itself4(ctx))) {
		COUNT(skipped_own_listener);
		return -EADDRINUSE;
	}
	if (!cand || !cand->id) {
		COUNT(skipped_no_backend);
		return -ENOENT;
	}
	if (cand->id == KLB_ID_SELFTEST)
		answer_selftest(&w);
	send(ctx, &w, dst, cand, control);
	return 0;
}

/*
 * TCP alone. MPTCP runs this hook on its subflow, whose protocol is TCP. An address that
 * says it is of another family than the socket's is refused after us (tcp_v4_connect).
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
	struct reach r = { .ipv4 = 1, .ipv6 = 0 };
	struct klb_endpoint dst, source;
	struct bpf_sock *sk = ctx->sk;

	if (!sk || !is_tcp(ctx, AF_INET))
		return KLB_PROCEED;
	klb_ctx_get4(ctx, &dst);
	klb_set_ipv4_be(&source, sk->src_ip4);
	if (!balance(ctx, &dst, &source, &r))
		klb_ctx_set4(ctx, &dst);
	return KLB_PROCEED;
}

/* Gets ::ffff:127.0.0.1 as well, whatever the host thinks of IPv6. */
SEC("cgroup/connect6")
int klb_connect6(struct bpf_sock_addr *ctx)
{
	struct reach r = { .ipv4 = 1, .ipv6 = 1, .ipv6_socket = 1 };
	struct klb_endpoint dst, source;
	struct bpf_sock *sk = ctx->sk;

	if (!sk || !is_tcp(ctx, AF_INET6))
		return KLB_PROCEED;
	klb_ctx_get6(ctx, &dst);
	klb_set_word_be(&source, 0, sk->src_ip6[0]);
	klb_set_word_be(&source, 1, sk->src_ip6[1]);
	klb_set_word_be(&source, 2, sk->src_ip6[2]);
	klb_set_word_be(&source, 3, sk->src_ip6[3]);
	if (!balance(ctx, &dst, &source, &r))
		klb_ctx_set6(ctx, &dst);
	return KLB_PROCEED;
}

/*
 * What the client dialled, for a socket whose peer is still the backend of its
 * record: the record outlives an association.
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
	/* IPV6_ADDRFORM turns an IPv6 socket into this; an IPv6 frontend has no IPv4 name. */
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
