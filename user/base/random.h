/* SPDX-License-Identifier: BSD-2-Clause */
/* Random numbers for jitter, choices and seeds. Not for keys. */
#ifndef KUBELB_RANDOM_H
#define KUBELB_RANDOM_H

#include <linux/types.h>

__u64 random_u64(void);

/* An evenly distributed number, low <= result <= high. */
unsigned int random_between(unsigned int low, unsigned int high);

/* Jitter: value, plus or minus up to so many percent of it. */
unsigned int random_around(unsigned int value, unsigned int percent);

#endif
