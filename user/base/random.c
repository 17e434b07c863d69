/* SPDX-License-Identifier: BSD-2-Clause */
/* Random numbers from the kernel. They never block: early at boot the kernel may have none yet. */
#include "base/random.h"

#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"

__u64 random_u64(void)
{
	__u64 random, differs[2];

	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) == sizeof(random))
		return random;
	/* Two nodes that boot at the same time still differ in at least one of these. */
	differs[0] = clock_wall_ns();
	differs[1] = (__u64)getpid();
	return hash_bytes(clock_now_ns(), differs, sizeof(differs));
}

unsigned int random_between(unsigned int low, unsigned int high)
{
	__u64 span = (__u64)high - low + 1;

	return low + (unsigned int)((random_u64() >> 32) * span >> 32);
}

unsigned int random_around(unsigned int value, unsigned int percent)
{
	unsigned int spread = (unsigned int)((__u64)value * percent / 100);

	return random_between(value - spread, value + spread);
}
