/* SPDX-License-Identifier: BSD-2-Clause */
/* A hash that spreads values evenly. No secret depends on it. */
#ifndef KUBELB_HASH_H
#define KUBELB_HASH_H

#include <linux/types.h>

/* FNV-1a of the bytes, then mixed so that every input bit affects every output bit. */
__u64 hash_bytes(__u64 seed, const void *bytes, unsigned long length);

#endif
