/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A server that dials itself reaches itself, always. kube-apiserver has a client of its own
 * that connects to the loopback address it listens on, with a certificate's name and a token
 * that exist in this one process (genericapiserver's loopback client), and ends itself when
 * that does not work for half a minute. The same goes for a probe that runs inside its
 * container. It does not matter whether that server is among the backends.
 *
 * A listener and a client are of one server when
 *
 *   - both sockets were made by one process: their files then have the same credentials
 *     object (f_cred): threads share it, and fork(2) and execve(2) make a new one
 *     (copy_creds, kernel/cred.c); or
 *   - both are in one cgroup, which is one container or one unit. The root is neither.
 *
 * The search for a listener costs as much as the rest of a connect. So klb_sockops notes every
 * port that a server listens on, and connects to other ports do not search.
 */
#ifndef KUBELB_LISTENER_BPF_H
#define KUBELB_LISTENER_BPF_H

#include "address.bpf.h"
#include "kernel.bpf.h"
#include "maps.bpf.h"

/* With SO_REUSEPORT several sockets listen on one port, and the kernel picks one by a hash of
 * the client's address. Asked for so many clients, it misses one of two listeners once in 30,000
 * times; of more than four it may miss some. */
#define KLB_LISTENER_ASKS 16

/* What bpf_sk_lookup_tcp looks for. In its own place, so that dst needs none on the stack while
 * it searches: with the caller's frame there are 512 bytes. */
struct klb_search {
	struct bpf_sock_tuple tuple;
	__u32 size; /* of the tuple */
};

static __always_inline void klb_search_init(struct klb_search *search,
					    const struct klb_endpoint *dst)
{
	__builtin_memset(search, 0, sizeof(*search));
	if (klb_is_ipv4(dst)) {
		search->tuple.ipv4.daddr = klb_word_be(dst, 3);
		search->tuple.ipv4.dport = bpf_htons(dst->port);
		search->size = sizeof(search->tuple.ipv4);
		return;
	}
	search->tuple.ipv6.daddr[0] = klb_word_be(dst, 0);
	search->tuple.ipv6.daddr[1] = klb_word_be(dst, 1);
	search->tuple.ipv6.daddr[2] = klb_word_be(dst, 2);
	search->tuple.ipv6.daddr[3] = klb_word_be(dst, 3);
	search->tuple.ipv6.dport = bpf_htons(dst->port);
	search->size = sizeof(search->tuple.ipv6);
}

/* Finds what listens there, in the namespace of ctx's socket. The caller releases it. client:
 * the port of an imagined client, network byte order. */
static __always_inline struct bpf_sock *klb_listener_get(struct bpf_sock_addr *ctx,
							 struct klb_search *search, __u16 client)
{
	if (search->size == sizeof(search->tuple.ipv4)) {
		search->tuple.ipv4.sport = client;
		return bpf_sk_lookup_tcp(ctx, &search->tuple, sizeof(search->tuple.ipv4),
					 BPF_F_CURRENT_NETNS, 0);
	}
	search->tuple.ipv6.sport = client;
	return bpf_sk_lookup_tcp(ctx, &search->tuple, sizeof(search->tuple.ipv6),
				 BPF_F_CURRENT_NETNS, 0);
}

static __always_inline int klb_same_server(struct tcp_sock *client, struct tcp_sock *listener)
{
	__u64 cgroup = klb_cgroup_of(client);
	__u64 process = (__u64)klb_sock_of(client)->sk_socket->file->f_cred;

	if (process && process == (__u64)klb_sock_of(listener)->sk_socket->file->f_cred)
		return 1;
	return cgroup && cgroup != KLB_ROOT_CGROUP && cgroup == klb_cgroup_of(listener);
}

/* Whether ctx's socket, which dials that address, and what listens there are of one server. */
static __always_inline int klb_dials_itself(struct bpf_sock_addr *ctx, struct klb_search *search)
{
	struct tcp_sock *client, *listener;
	int same = 0, shared = 1, i;
	struct bpf_sock *found;

	for (i = 0; i < KLB_LISTENER_ASKS && shared && !same; i++) {
		found = klb_listener_get(ctx, search, i);
		if (!found)
			break;
		client = klb_addr_tcp_sock(ctx);
		listener = KLB_HAS_CASTS ? klb_tcp_sock_of(found) : bpf_skc_to_tcp_sock(found);
		if (client && listener) {
			same = klb_same_server(client, listener);
			shared = BPF_CORE_READ_BITFIELD(&klb_sock_of(listener)->__sk_common,
							skc_reuseport);
		}
		bpf_sk_release(found);
	}
	return same;
}

static __always_inline void klb_search_dialled4(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
						struct klb_search *search)
{
	struct klb_endpoint dst, source;

	klb_dialled4(ctx, sk, &dst, &source);
	klb_search_init(search, &dst);
}

static __always_inline void klb_search_dialled6(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
						struct klb_search *search)
{
	struct klb_endpoint dst, source;

	klb_dialled6(ctx, sk, &dst, &source);
	klb_search_init(search, &dst);
}

/*
 * The same, for the two hooks. The verifier goes once through a function that takes only the
 * context, and not once for each path through the choice.
 */
__noinline int klb_dials_itself4(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct klb_search search;

	if (!sk)
		return 0;
	klb_search_dialled4(ctx, sk, &search);
	return klb_dials_itself(ctx, &search);
}

__noinline int klb_dials_itself6(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct klb_search search;

	if (!sk)
		return 0;
	klb_search_dialled6(ctx, sk, &search);
	return klb_dials_itself(ctx, &search);
}

/* Whether somebody listens on what ctx's socket dials. */
static __always_inline int klb_is_listened_on(struct bpf_sock_addr *ctx, struct klb_search *search)
{
	struct bpf_sock *found = klb_listener_get(ctx, search, 0);

	if (!found)
		return 0;
	bpf_sk_release(found);
	return 1;
}

__noinline int klb_is_listened_on4(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct klb_search search;

	if (!sk)
		return 0;
	klb_search_dialled4(ctx, sk, &search);
	return klb_is_listened_on(ctx, &search);
}

__noinline int klb_is_listened_on6(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct klb_search search;

	if (!sk)
		return 0;
	klb_search_dialled6(ctx, sk, &search);
	return klb_is_listened_on(ctx, &search);
}

/* Whether a search is needed. Listeners in other namespaces are not listed, so scope all always
 * searches. */
static __always_inline int klb_may_dial_itself(const struct klb_endpoint *dst, __u32 scope)
{
	return !klb_options.sockops || !klb_memory.listens_known || scope == KLB_SCOPE_ALL ||
	       klb_memory.listens[dst->port % KLB_LISTEN_SLOTS];
}

#endif
