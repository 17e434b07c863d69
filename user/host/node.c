/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads facts about this node: identity, kernel version, addresses. */
#include "host/node.h"

#include <ifaddrs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/hash.h"
#include "net/endpoint.h"

static __u64 read_identity(void)
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
	return hash_bytes(0, text, strlen(text));
}

__u64 node_identity(void)
{
	static bool known;
	static __u64 identity;

	if (!known)
		identity = read_identity();
	known = true;
	return identity;
}

bool node_kernel_is(unsigned int major, unsigned int minor)
{
	unsigned long has_major, has_minor;
	struct utsname u;
	char *end;

	if (uname(&u))
		return false;
	has_major = strtoul(u.release, &end, 10);
	if (*end != '.')
		return false;
	has_minor = strtoul(end + 1, NULL, 10);
	return has_major > major || (has_major == major && has_minor >= minor);
}

/* PROC_PID_INIT_INO, include/linux/proc_ns.h */
#define FIRST_PID_NAMESPACE 0xeffffffcU

bool node_sees_every_process(void)
{
	struct stat st;

	return !stat("/proc/self/ns/pid", &st) && st.st_ino == FIRST_PID_NAMESPACE;
}

bool node_has_ipv6(void)
{
	/*
	 * Through self: /proc/net itself is hidden where proc is mounted with subset=pid, as in the
	 * agent's unit.
	 */
	return !access("/proc/self/net/if_inet6", F_OK);
}

void node_is_local(const struct klb_endpoint *endpoints, unsigned int n, bool *ret)
{
	struct ifaddrs *list = NULL;

	memset(ret, 0, n * sizeof(*ret));
	if (getifaddrs(&list))
		return;
	for (const struct ifaddrs *a = list; a; a = a->ifa_next) {
		struct klb_endpoint local;

		if (!a->ifa_addr || endpoint_from_sockaddr(a->ifa_addr, &local))
			continue;
		for (unsigned int i = 0; i < n; i++)
			ret[i] |= !memcmp(local.addr, endpoints[i].addr, sizeof(local.addr));
	}
	freeifaddrs(list);
}
