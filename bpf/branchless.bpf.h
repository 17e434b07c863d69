/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Arithmetic without branches. The verifier follows both sides of each branch through all
 * 64 rounds of the loop that chooses a backend; without branches every round looks like the
 * one before. Pure functions over numbers, compiled for the host by the tests as well.
 */
#ifndef KUBELB_BRANCHLESS_BPF_H
#define KUBELB_BRANCHLESS_BPF_H

#include <kubelb/abi.h>

/* Hides x from the compiler, which would turn the arithmetic back into a branch. */
#define KLB_OPAQUE(x) __asm__ volatile("" : "+r"(x))

/* 1 if a is negative as a signed number, else 0. */
static inline __attribute__((always_inline)) __u64 klb_negative(__u64 a)
{
	KLB_OPAQUE(a);
	a >>= 63;
	KLB_OPAQUE(a);
	return a;
}

/* All ones if a is negative as a signed number, else 0. */
static inline __attribute__((always_inline)) __u32 klb_negative_mask(__u64 a)
{
	KLB_OPAQUE(a);
	return (__u32)((__s64)a >> 63);
}

/* 1 if a and b are the same, else 0. */
static inline __attribute__((always_inline)) __u64 klb_same(__u32 a, __u32 b)
{
	return klb_negative((__u64)(a ^ b) - 1);
}

/* b where mask is all ones, a where it is 0. */
static inline __attribute__((always_inline)) __u64 klb_blend(__u64 a, __u64 b, __u64 mask)
{
	return a ^ ((a ^ b) & mask);
}

/* 1 if any bit of x is set, else 0. */
static inline __attribute__((always_inline)) __u32 klb_any_bit(__u64 x)
{
	return (__u32)klb_negative(x | (0 - x));
}

/*
 * Returns x, as a number of which the verifier knows nothing.
 *
 *   - For an index that is added to a pointer, the verifier checks again everything it was
 *     computed from; over 64 rounds that exceeds its limit.
 *   - A number of which it knows more on one path than on another makes it take both paths
 *     through the rounds.
 *
 * It forgets a number that is written to the upper half of an 8-byte stack slot, except 0
 * (check_stack_write_fixed_off, kernel/bpf/verifier.c). So this writes ~x, which is not 0 here.
 * Before Linux 6.8 it follows a number to the stack through the frame pointer only; the address
 * here is a copy of that.
 */
static inline __attribute__((always_inline)) __u32 klb_make_unknown_scalar(__u32 x)
{
	__u32 slot[2] __attribute__((aligned(8)));
	volatile __u32 *upper = &slot[1];

	KLB_OPAQUE(upper);
	*upper = ~x;
	return ~*upper;
}

#endif
