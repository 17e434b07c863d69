/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's own view of the socket behind a context.
 *
 * A helper call costs 20 to 25 ns where returns are protected against speculation
 * (SRSO, retbleed), a good part of what a whole program may take. The two casts are
 * moves once the verifier has been through them (kernel/bpf/verifier.c,
 * special_kfunc_list): they came with Linux 6.2 and are there for every kind of
 * program since. Before, the helper does the same. The version is a constant to the
 * verifier, which drops the other side; a distribution that has brought the casts to
 * an older version loses time and nothing else.
 */
#ifndef KUBELB_KERNEL_BPF_H
#define KUBELB_KERNEL_BPF_H

#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define KLB_VERSION_OF(major, minor) (((major) << 16) + ((minor) << 8))

extern int LINUX_KERNEL_VERSION __kconfig;
extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym __weak;
extern void *bpf_rdonly_cast(const void *pointer, __u32 type) __ksym __weak;

static __always_inline int klb_has_casts(void)
{
	return LINUX_KERNEL_VERSION >= KLB_VERSION_OF(6, 2);
}

static __always_inline struct tcp_sock *klb_tcp_sock_of(const void *sock)
{
	return bpf_rdonly_cast(sock, bpf_core_type_id_kernel(struct tcp_sock));
}

/*
 * The TCP socket that connects or is asked for its peer, or NULL. The caller has seen
 * to it that it is a full TCP socket: without the helper nobody looks.
 */
static __always_inline struct tcp_sock *klb_addr_tcp_sock(struct bpf_sock_addr *ctx)
{
	if (klb_has_casts()) {
		struct bpf_sock_addr_kern *kern = bpf_cast_to_kern_ctx(ctx);

		return klb_tcp_sock_of(kern->sk);
	}
	return bpf_skc_to_tcp_sock(ctx->sk);
}

/* The same for a sock_ops call that comes with a full socket. */
static __always_inline struct tcp_sock *klb_ops_tcp_sock(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk;

	if (klb_has_casts()) {
		struct bpf_sock_ops_kern *kern = bpf_cast_to_kern_ctx(ctx);

		return klb_tcp_sock_of(kern->sk);
	}
	/* Once: what was compared with NULL must be what is passed on. */
	sk = ctx->sk;
	return sk ? bpf_skc_to_tcp_sock(sk) : 0;
}

static __always_inline struct sock *klb_sock_of(struct tcp_sock *tp)
{
	return &tp->inet_conn.icsk_inet.sk;
}

/* The id of its cgroup (version 2), as stat(2) tells the inode number of the directory. */
static __always_inline __u64 klb_cgroup_of(struct tcp_sock *tp)
{
	return klb_sock_of(tp)->sk_cgrp_data.cgroup->kn->id;
}

/* Whether any BPF program has stored something with the socket: a look that spares most
 * sockets a helper call. */
static __always_inline int klb_has_storage(struct tcp_sock *tp)
{
	return klb_sock_of(tp)->sk_bpf_storage != 0;
}

#endif
