/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Converts addresses between a program's context and struct klb_endpoint. IPv4, IPv6
 * and v4-mapped addresses take one form here, so that the code after it needs no second copy
 * for the other family.
 *
 * user_port and the words of user_ip6 are only accepted as whole 32-bit loads at
 * constant offsets; the volatile accessors keep the compiler from narrowing,
 * merging or vectorising them.
 */
#ifndef KUBELB_ADDRESS_BPF_H
#define KUBELB_ADDRESS_BPF_H

#include "vmlinux.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include <kubelb/abi.h>

#include "branchless.bpf.h"
#include "kernel.bpf.h"

#define KLB_CTX_READ(field) (*(volatile __u32 *)&(field))
#define KLB_CTX_WRITE(field, value) (*(volatile __u32 *)&(field) = (value))

/* The bytes before the address in ::ffff:a.b.c.d, as a big-endian word. */
#define KLB_V4MAPPED bpf_htonl(0xffff)

/* addr as words: aligned to four bytes by its type, which memcpy would forget. */
typedef __u32 __attribute__((may_alias)) klb_word;

static __always_inline __u32 klb_word_be(const struct klb_endpoint *ep, int i)
{
	return ((const klb_word *)ep->addr)[i];
}

static __always_inline void klb_set_word_be(struct klb_endpoint *ep, int i, __u32 word)
{
	((klb_word *)ep->addr)[i] = word;
}

/* Word by word: clang turns memcmp of 20 bytes into a call that does not exist. */
static __always_inline int klb_endpoint_equal(const struct klb_endpoint *a,
					      const struct klb_endpoint *b)
{
	return klb_word_be(a, 0) == klb_word_be(b, 0) && klb_word_be(a, 1) == klb_word_be(b, 1) &&
	       klb_word_be(a, 2) == klb_word_be(b, 2) && klb_word_be(a, 3) == klb_word_be(b, 3) &&
	       a->port == b->port;
}

static __always_inline int klb_is_ipv4(const struct klb_endpoint *ep)
{
	return klb_word_be(ep, 0) == 0 && klb_word_be(ep, 1) == 0 &&
	       klb_word_be(ep, 2) == KLB_V4MAPPED;
}

static __always_inline int klb_is_loopback4_be(__u32 ip)
{
	/* The mask is 0xff000000; with 0x7f000000 255/8 would pass as well. */
	return (ip & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
}

static __always_inline int klb_is_loopback(const struct klb_endpoint *ep)
{
	if (klb_is_ipv4(ep))
		return klb_is_loopback4_be(klb_word_be(ep, 3));
	return klb_word_be(ep, 0) == 0 && klb_word_be(ep, 1) == 0 && klb_word_be(ep, 2) == 0 &&
	       klb_word_be(ep, 3) == bpf_htonl(1);
}

static __always_inline int klb_is_unspecified(const struct klb_endpoint *ep)
{
	__u32 third = klb_word_be(ep, 2);

	return klb_word_be(ep, 0) == 0 && klb_word_be(ep, 1) == 0 &&
	       (third == 0 || third == KLB_V4MAPPED) && klb_word_be(ep, 3) == 0;
}

static __always_inline void klb_set_ipv4_be(struct klb_endpoint *ep, __u32 ip)
{
	klb_set_word_be(ep, 0, 0);
	klb_set_word_be(ep, 1, 0);
	klb_set_word_be(ep, 2, KLB_V4MAPPED);
	klb_set_word_be(ep, 3, ip);
}

static __always_inline void klb_ctx_get4(struct bpf_sock_addr *ctx, struct klb_endpoint *ep)
{
	klb_set_ipv4_be(ep, KLB_CTX_READ(ctx->user_ip4));
	ep->port = bpf_ntohs((__u16)KLB_CTX_READ(ctx->user_port));
}

static __always_inline void klb_ctx_get6(struct bpf_sock_addr *ctx, struct klb_endpoint *ep)
{
	klb_set_word_be(ep, 0, KLB_CTX_READ(ctx->user_ip6[0]));
	klb_set_word_be(ep, 1, KLB_CTX_READ(ctx->user_ip6[1]));
	klb_set_word_be(ep, 2, KLB_CTX_READ(ctx->user_ip6[2]));
	klb_set_word_be(ep, 3, KLB_CTX_READ(ctx->user_ip6[3]));
	ep->port = bpf_ntohs((__u16)KLB_CTX_READ(ctx->user_port));
}

/* The two ends of a sock_ops call's socket. */
static __always_inline void klb_ops_remote(struct bpf_sock_ops *ctx, struct klb_endpoint *ret)
{
	if (ctx->family == AF_INET) {
		klb_set_ipv4_be(ret, ctx->remote_ip4);
	} else {
		klb_set_word_be(ret, 0, KLB_CTX_READ(ctx->remote_ip6[0]));
		klb_set_word_be(ret, 1, KLB_CTX_READ(ctx->remote_ip6[1]));
		klb_set_word_be(ret, 2, KLB_CTX_READ(ctx->remote_ip6[2]));
		klb_set_word_be(ret, 3, KLB_CTX_READ(ctx->remote_ip6[3]));
	}
	/* Network byte order, in the upper half on little-endian hosts (uapi/linux/bpf.h). */
	ret->port = bpf_ntohl(KLB_CTX_READ(ctx->remote_port));
}

static __always_inline void klb_ops_local(struct bpf_sock_ops *ctx, struct klb_endpoint *ret)
{
	if (ctx->family == AF_INET) {
		klb_set_ipv4_be(ret, ctx->local_ip4);
	} else {
		klb_set_word_be(ret, 0, KLB_CTX_READ(ctx->local_ip6[0]));
		klb_set_word_be(ret, 1, KLB_CTX_READ(ctx->local_ip6[1]));
		klb_set_word_be(ret, 2, KLB_CTX_READ(ctx->local_ip6[2]));
		klb_set_word_be(ret, 3, KLB_CTX_READ(ctx->local_ip6[3]));
	}
	ret->port = KLB_CTX_READ(ctx->local_port);
}

/*
 * A connect to the unspecified address goes to the loopback address (ip_route_connect,
 * tcp_v6_connect), unless the socket is bound to another one. Without branches, as what
 * follows is the choice.
 */
static __always_inline void klb_name_loopback(struct klb_endpoint *dst,
					      const struct klb_endpoint *source)
{
	__u32 bound = klb_word_be(source, 0) | klb_word_be(source, 1) | klb_word_be(source, 3) |
		      (klb_word_be(source, 2) & ~KLB_V4MAPPED);
	__u32 other = klb_word_be(dst, 0) | klb_word_be(dst, 1) | klb_word_be(dst, 3) | bound;
	__u32 is_v4 = (__u32)(klb_same(other, 0) & klb_same(klb_word_be(dst, 2), KLB_V4MAPPED));
	__u32 is_v6 = (__u32)(klb_same(other, 0) & klb_same(klb_word_be(dst, 2), 0));

	klb_set_word_be(dst, 3,
			klb_word_be(dst, 3) | (bpf_htonl(0x7f000001) & (0 - is_v4)) |
				(bpf_htonl(1) & (0 - is_v6)));
}

/* Where the connect of ctx's socket sk goes, and the source that the client has bound. */
static __always_inline void klb_dialled4(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
					 struct klb_endpoint *dst, struct klb_endpoint *source)
{
	klb_ctx_get4(ctx, dst);
	klb_set_ipv4_be(source, sk->src_ip4);
	klb_name_loopback(dst, source);
	/* Compared before the choice and used after it. */
	klb_set_word_be(dst, 3, klb_make_unknown_scalar(klb_word_be(dst, 3)));
}

static __always_inline void klb_dialled6(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
					 struct klb_endpoint *dst, struct klb_endpoint *source)
{
	klb_ctx_get6(ctx, dst);
	klb_set_word_be(source, 0, sk->src_ip6[0]);
	klb_set_word_be(source, 1, sk->src_ip6[1]);
	klb_set_word_be(source, 2, sk->src_ip6[2]);
	klb_set_word_be(source, 3, sk->src_ip6[3]);
	klb_name_loopback(dst, source);
}

static __always_inline void klb_ctx_set4(struct bpf_sock_addr *ctx, const struct klb_endpoint *ep)
{
	KLB_CTX_WRITE(ctx->user_ip4, klb_word_be(ep, 3));
	KLB_CTX_WRITE(ctx->user_port, bpf_htons((__u16)ep->port));
}

static __always_inline void klb_ctx_set6(struct bpf_sock_addr *ctx, const struct klb_endpoint *ep)
{
	KLB_CTX_WRITE(ctx->user_ip6[0], klb_word_be(ep, 0));
	KLB_CTX_WRITE(ctx->user_ip6[1], klb_word_be(ep, 1));
	KLB_CTX_WRITE(ctx->user_ip6[2], klb_word_be(ep, 2));
	KLB_CTX_WRITE(ctx->user_ip6[3], klb_word_be(ep, 3));
	KLB_CTX_WRITE(ctx->user_port, bpf_htons((__u16)ep->port));
}

#endif
