/* SPDX-License-Identifier: BSD-2-Clause */
/* Explains why the kernel returns EPERM to root. */
#ifndef KUBELB_REFUSAL_H
#define KUBELB_REFUSAL_H

/*
 * Returns "not permitted: " with the probable cause and what to do: the user is not root,
 * capabilities are missing, a user namespace, a seccomp filter, lockdown, a security module. The
 * text is static and valid until the next call.
 */
const char *refusal_text(void);

#endif
