/* SPDX-License-Identifier: BSD-2-Clause */
/* Why the kernel says EPERM to root, as far as can be told. */
#ifndef KUBELB_REFUSAL_H
#define KUBELB_REFUSAL_H

/* "not permitted: " and what stands in the way, and what to do: not root, capabilities that
 * are missing, a user namespace, a seccomp filter, lockdown, a security module. Points to
 * memory of its own, good until the next call. */
const char *refusal_text(void);

#endif
