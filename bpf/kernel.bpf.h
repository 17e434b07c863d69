/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's own structures behind a context, and what differs between kernels.
 *
 * The programs are built three times (Makefile), and kubelb-load takes the first build that
 * the kernel accepts:
 *
 *   KLB_BUILD_CASTS   Linux 6.2 and later, with the JIT compiler
 *   (neither)         Linux 5.12 and later
 *   KLB_BUILD_OLD     Linux 5.10 and later
 *
 * A helper call costs 20 to 25 ns where returns are protected against speculation
 * (SRSO, retbleed), a good part of what a whole program may take. The two casts are
 * moves once the verifier has been through them (kernel/bpf/verifier.c,
 * special_kfunc_list). They need a build of their own because a kernel without the JIT
 * refuses a program that merely contains such a call, reachable or not; so does a kernel
 * before 5.12 with the atomic operations that return something.
 */
#ifndef KUBELB_KERNEL_BPF_H
#define KUBELB_KERNEL_BPF_H

#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include <kubelb/abi.h>

#include "branchless.bpf.h"

/* The kernel's macros, which BTF and so vmlinux.h do not have. */
#define AF_INET 2 /* include/linux/socket.h */
#define AF_INET6 10
#define LOOPBACK_IFINDEX 1 /* include/net/flow.h */
#define SOCK_STREAM 1 /* include/linux/net.h: an enum that nothing there uses */

/* include/uapi/asm-generic/errno-base.h, errno.h */
#define ENOENT 2
#define EACCES 13 /* ICMPv6's "administratively prohibited" (icmpv6_err_convert) */
#define ENODEV 19
#define EADDRINUSE 98
#define EADDRNOTAVAIL 99
#define ENETUNREACH 101
#define ECONNABORTED 103
#define ECONNRESET 104
#define ETIMEDOUT 110
#define ECONNREFUSED 111
#define EHOSTDOWN 112
#define EHOSTUNREACH 113

#ifdef KLB_BUILD_CASTS
#define KLB_HAS_CASTS 1
extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym;
extern void *bpf_rdonly_cast(const void *pointer, __u32 type) __ksym;
#else
#define KLB_HAS_CASTS 0
#define bpf_cast_to_kern_ctx(ctx) ((void *)0)
#define bpf_rdonly_cast(pointer, type) ((void)(pointer), (void *)0)
#endif

#ifdef KLB_BUILD_OLD
#define KLB_IS_OLD 1
#else
#define KLB_IS_OLD 0
#endif

static __always_inline struct tcp_sock *klb_tcp_sock_of(const void *sock)
{
	return bpf_rdonly_cast(sock, bpf_core_type_id_kernel(struct tcp_sock));
}

/* The field sk of the context, in one load. Otherwise the compiler keeps the field's address
 * for several loads, which the verifier refuses ("dereference of modified ctx ptr"). */
static __always_inline struct bpf_sock *klb_ops_sk(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk;

	__asm__ volatile("%0 = *(u64 *)(%1 + %2)"
			 : "=r"(sk)
			 : "r"(ctx), "i"(__builtin_offsetof(struct bpf_sock_ops, sk)));
	return sk;
}

/*
 * The TCP socket that connects or is asked for its peer, or NULL. The caller has seen
 * to it that it is a full TCP socket: without the helper nobody looks.
 */
static __always_inline struct tcp_sock *klb_addr_tcp_sock(struct bpf_sock_addr *ctx)
{
	if (KLB_HAS_CASTS) {
		struct bpf_sock_addr_kern *kern = bpf_cast_to_kern_ctx(ctx);

		return klb_tcp_sock_of(kern->sk);
	}
	return bpf_skc_to_tcp_sock(ctx->sk);
}

/* The same for a sock_ops call that comes with a full socket. */
static __always_inline struct tcp_sock *klb_ops_tcp_sock(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk;

	if (KLB_HAS_CASTS) {
		struct bpf_sock_ops_kern *kern = bpf_cast_to_kern_ctx(ctx);

		return klb_tcp_sock_of(kern->sk);
	}
	/* Read once: the value that was compared with NULL must be the one that is passed on. */
	sk = klb_ops_sk(ctx);
	return sk ? bpf_skc_to_tcp_sock(sk) : 0;
}

static __always_inline struct sock *klb_sock_of(struct tcp_sock *tp)
{
	return &tp->inet_conn.icsk_inet.sk;
}

/* 1 if the flag, of enum sock_flags, is set, else 0. */
#define klb_has_flag(sk, flag) \
	((sk)->__sk_common.skc_flags >> bpf_core_enum_value(enum sock_flags, flag) & 1)

/* The root cgroup holds what is in no container and no unit (kernfs numbers it first). */
#define KLB_ROOT_CGROUP 1

/* The id of its cgroup (version 2), as stat(2) tells the inode number of the directory; 0
 * where the kernel does not say (before 5.15, but for later updates of 5.10). */
static __always_inline __u64 klb_cgroup_of(struct tcp_sock *tp)
{
	struct sock *sk = klb_sock_of(tp);

	if (!bpf_core_field_exists(sk->sk_cgrp_data.cgroup))
		return 0;
	return sk->sk_cgrp_data.cgroup->kn->id;
}

/* The cookie of its network namespace, as SO_NETNS_COOKIE. Before 5.12 a namespace gets one
 * when it is first asked for, which the helper does. */
static __always_inline __u64 klb_netns_of(struct bpf_sock_addr *ctx, struct tcp_sock *tp)
{
	(void)ctx;
	(void)tp;
#ifdef KLB_BUILD_OLD
	return bpf_get_netns_cookie(ctx);
#else
	return klb_sock_of(tp)->__sk_common.skc_net.net->net_cookie;
#endif
}

/* Adds 1 and returns the value before. On a kernel without atomic operations that return a
 * value, two CPUs at the same time may get the same number. */
static __always_inline __u64 klb_count_up(__u64 *number)
{
#ifdef KLB_BUILD_OLD
	__u64 before = *(volatile __u64 *)number;

	__sync_fetch_and_add(number, 1);
	return before;
#else
	return __sync_fetch_and_add(number, 1);
#endif
}

/* Compare and swap: makes *place `to` if it is `from`, and returns whether it was. On a kernel
 * without the atomic operation two CPUs at the same time may both succeed: one of the two
 * connects is then not recorded, or recorded under the other's frontend. */
static __always_inline int klb_take_over(__u64 *place, __u64 from, __u64 to)
{
#ifdef KLB_BUILD_OLD
	if (*(volatile __u64 *)place != from)
		return 0;
	*(volatile __u64 *)place = to;
	return 1;
#else
	return __sync_val_compare_and_swap(place, from, to) == from;
#endif
}

static __always_inline __u32 klb_is_ipv6_only(struct sock *sk)
{
	return BPF_CORE_READ_BITFIELD(&sk->__sk_common, skc_ipv6only);
}

/* 1 for a test connect of user space, else 0: it takes CAP_NET_ADMIN to be one. */
static __always_inline __u32 klb_is_test(struct tcp_sock *tp)
{
	return BPF_CORE_READ_BITFIELD(tp, repair) &
	       (__u32)klb_same(klb_sock_of(tp)->sk_priority, KLB_TEST_PRIORITY);
}

/* Whether the application has attached a filter (SO_ATTACH_FILTER, SO_ATTACH_BPF), which drops what
 * it likes of what the socket receives. */
static __always_inline int klb_has_filter(struct tcp_sock *tp)
{
	return klb_sock_of(tp)->sk_filter != 0;
}

/* Whether the application has said which ports the socket may have (IP_LOCAL_PORT_RANGE; seen from
 * Linux 6.8 on, before which the kernel keeps it in another form). */
static __always_inline int klb_has_port_range(struct tcp_sock *tp)
{
	struct inet_sock *inet = &tp->inet_conn.icsk_inet;

	return bpf_core_field_exists(inet->local_port_range) && inet->local_port_range;
}

/* The name before Linux 5.16. */
struct inet_sock___before_5_16 {
	int rx_dst_ifindex;
} __attribute__((preserve_access_index));

/* The device that the last packet came in on, once there was one. */
static __always_inline int klb_received_on(struct tcp_sock *tp)
{
	struct sock *sk = klb_sock_of(tp);

	if (bpf_core_field_exists(sk->sk_rx_dst_ifindex))
		return sk->sk_rx_dst_ifindex;
	return ((struct inet_sock___before_5_16 *)sk)->rx_dst_ifindex;
}

/* Whether any BPF program has stored something with the socket. This saves most sockets a
 * helper call. */
static __always_inline int klb_has_storage(struct tcp_sock *tp)
{
	return klb_sock_of(tp)->sk_bpf_storage != 0;
}

#endif
