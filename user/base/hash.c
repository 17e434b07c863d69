/* SPDX-License-Identifier: BSD-2-Clause */
/* A hash that spreads values evenly. */
#include "base/hash.h"

__u64 hash_bytes(__u64 seed, const void *bytes, unsigned long length)
{
	const unsigned char *p = bytes;
	__u64 h = 0xcbf29ce484222325ULL ^ seed;

	while (length--)
		h = (h ^ *p++) * 0x100000001b3ULL;
	/*
	 * FNV hardly changes the high bits for short inputs. The last step of MurmurHash3 mixes
	 * them.
	 */
	h = (h ^ h >> 33) * 0xff51afd7ed558ccdULL;
	h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53ULL;
	return h ^ h >> 33;
}
