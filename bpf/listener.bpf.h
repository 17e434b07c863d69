/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A server that dials itself. kube-apiserver has a client of its own that connects to the
 * loopback address it listens on, with a certificate's name and a token that exist in this
 * one process (genericapiserver's loopback client), and ends itself when that does not
 * work for half a minute. While it is not ready, the others on the node are sent elsewhere;
 * it must not be. The same goes for a probe that runs inside its container.
 *
 * The kernel does not know which process a listener belongs to; the cgroup, which is one
 * container or one unit, it does.
 */
#ifndef KUBELB_LISTENER_BPF_H
#define KUBELB_LISTENER_BPF_H

#include "address.bpf.h"
#include "kernel.bpf.h"

/* What is in no container and no unit is in here together (kernfs numbers the root first). */
#define KLB_CGROUP_ROOT_ID 1

/* Finds what listens on dst in the namespace of ctx's socket; to be released. */
static __always_inline struct bpf_sock *klb_listener_get(struct bpf_sock_addr *ctx,
							 const struct klb_endpoint *dst)
{
	struct bpf_sock_tuple tuple = {};
	__u32 size = sizeof(tuple.ipv4);

	if (klb_is_ipv4(dst)) {
		tuple.ipv4.daddr = klb_word_be(dst, 3);
		tuple.ipv4.dport = bpf_htons(dst->port);
		return bpf_sk_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	}
	size = sizeof(tuple.ipv6);
	tuple.ipv6.daddr[0] = klb_word_be(dst, 0);
	tuple.ipv6.daddr[1] = klb_word_be(dst, 1);
	tuple.ipv6.daddr[2] = klb_word_be(dst, 2);
	tuple.ipv6.daddr[3] = klb_word_be(dst, 3);
	tuple.ipv6.dport = bpf_htons(dst->port);
	return bpf_sk_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
}

/* Whether tp, which is ctx's socket and dials dst, and what listens there are in one cgroup. */
static __always_inline int klb_dials_itself(struct bpf_sock_addr *ctx, struct tcp_sock *tp,
					    const struct klb_endpoint *dst)
{
	__u64 own = klb_cgroup_of(tp);
	struct tcp_sock *listener;
	struct bpf_sock *found;
	int same;

	if (own == KLB_CGROUP_ROOT_ID)
		return 0;
	found = klb_listener_get(ctx, dst);
	if (!found)
		return 0;
	listener = klb_has_casts() ? klb_tcp_sock_of(found) : bpf_skc_to_tcp_sock(found);
	same = listener && klb_cgroup_of(listener) == own;
	bpf_sk_release(found);
	return same;
}

#endif
