/* SPDX-License-Identifier: BSD-2-Clause */
#include "node.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "plan.h"

__u64 node_identity(void)
{
	char text[256] = "";
	FILE *f = fopen("/etc/machine-id", "re");

	if (f) {
		if (!fgets(text, sizeof(text), f))
			text[0] = '\0';
		fclose(f);
	}
	if (!text[0])
		gethostname(text, sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	return plan_hash(0, text, strlen(text));
}

bool node_has_ipv6(void)
{
	return !access("/proc/net/if_inet6", F_OK);
}

__u64 node_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (__u64)now.tv_sec * 1000000000ULL + (__u64)now.tv_nsec;
}
