/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finds out why the kernel returns EPERM: reads capabilities, namespaces, seccomp, lockdown and
 * security modules of this process.
 */
#include "host/refusal.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/capability.h>

#include "base/file.h"
#include "host/seccomp.h"

#define TEXT_MAX 400

struct message {
	char at[TEXT_MAX];
	size_t n;
};

static void add(struct message *t, const char *before, const char *what, const char *after)
{
	int n = snprintf(t->at + t->n, sizeof(t->at) - t->n, "%s%s%s%s", t->n ? "; " : "", before,
			 what, after);

	t->n += n < 0 ? 0 : (size_t)n;
	if (t->n >= sizeof(t->at))
		t->n = sizeof(t->at) - 1;
}

static bool has(unsigned long long set, int capability)
{
	return set >> capability & 1;
}

static void check_capabilities(struct message *t)
{
	char line[128];
	unsigned long long set;
	bool admin;

	if (!file_read_line("/proc/self/status", "CapEff:", line, sizeof(line)))
		return;
	set = strtoull(line, NULL, 16);
	admin = has(set, CAP_SYS_ADMIN);
	/*
	 * Its parts (CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON) are enough to attach once, but not to
	 * update.
	 */
	if (!admin)
		add(t, "CAP_SYS_ADMIN is missing (a container needs to be privileged)", "", "");
	if (!admin && !has(set, CAP_NET_ADMIN))
		add(t, "CAP_NET_ADMIN is missing", "", "");
}

/* The initial user namespace maps every user to the same user (user_namespaces(7)). */
static void check_user_namespace(struct message *t)
{
	unsigned long inside, outside, count;
	char line[128], *at;

	if (!file_read_line("/proc/self/uid_map", "", line, sizeof(line)))
		return;
	inside = strtoul(line, &at, 10);
	outside = strtoul(at, &at, 10);
	count = strtoul(at, NULL, 10);
	if (inside || outside || count != 4294967295UL)
		add(t,
		    "this is the root of a user namespace and not the machine's; run it outside "
		    "of that",
		    "", "");
}

static void check_seccomp(struct message *t)
{
	if (seccomp_is_foreign())
		add(t, "a seccomp filter is on this process: allow bpf(2) in its profile", "", "");
}

/* "none [integrity] confidentiality" */
static void check_lockdown(struct message *t)
{
	char line[128], *mode, *end;

	if (!file_read_line("/sys/kernel/security/lockdown", "", line, sizeof(line)))
		return;
	mode = strchr(line, '[');
	end = mode ? strchr(mode, ']') : NULL;
	if (!end)
		return;
	*end = '\0';
	if (strcmp(mode + 1, "none") != 0)
		add(t, "the kernel is locked down (", mode + 1, ")");
}

static void check_modules(struct message *t)
{
	char line[128];

	if (file_read_line("/sys/kernel/security/lsm", "", line, sizeof(line)))
		add(t, "or one of its security modules refuses it (", line, "): see `dmesg`");
	else
		add(t, "or a security module refuses it: see `dmesg`", "", "");
}

const char *refusal_text(void)
{
	static char result[TEXT_MAX + 64];
	struct message t = { "", 0 };

	if (geteuid()) {
		snprintf(result, sizeof(result),
			 "not permitted: run as root (CAP_SYS_ADMIN and CAP_NET_ADMIN)");
		return result;
	}
	check_capabilities(&t);
	check_user_namespace(&t);
	check_seccomp(&t);
	check_lockdown(&t);
	if (!t.n)
		add(&t, "this kernel does not allow it", "", "");
	check_modules(&t);
	snprintf(result, sizeof(result), "not permitted, though root: %s", t.at);
	return result;
}
