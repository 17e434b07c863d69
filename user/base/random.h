/* SPDX-License-Identifier: BSD-2-Clause */
/* Random numbers: for jitter, draws and seeds, not for keys. */
#ifndef KUBELB_RANDOM_H
#define KUBELB_RANDOM_H

#include <linux/types.h>

__u64 random_u64(void);

/* low <= result <= high, evenly. */
unsigned int random_between(unsigned int low, unsigned int high);

#endif
