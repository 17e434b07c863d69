/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Gives up the capabilities that the agent does not need. Uses the system calls directly: libcap
 * would be a whole library for two of them.
 */
#include "host/privileges.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/node.h"
#include "host/seccomp.h"

/* The headers of some distributions are older. */
#ifndef CAP_BPF
#define CAP_BPF 39
#endif

#define BIT(capability) ((uint64_t)1 << (capability))

/* These bypass the owner and the mode of files. */
#define FILE_CAPABILITIES (BIT(CAP_DAC_OVERRIDE) | BIT(CAP_DAC_READ_SEARCH))
/* These enter another network namespace and read the link in /proc that leads there. */
#define POD_CAPABILITIES (BIT(CAP_SYS_ADMIN) | BIT(CAP_SYS_PTRACE))

struct sets {
	uint64_t effective, permitted;
};

static int get_capabilities(struct sets *ret)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };

	if (syscall(SYS_capget, &header, data))
		return err_negative(errno);
	ret->effective = data[0].effective | (uint64_t)data[1].effective << 32;
	ret->permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
	return 0;
}

/* No capability is inheritable: the agent executes no program. */
static int set_capabilities(const struct sets *s)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {
		{ .effective = (__u32)s->effective, .permitted = (__u32)s->permitted },
		{ .effective = (__u32)(s->effective >> 32),
		  .permitted = (__u32)(s->permitted >> 32) },
	};

	return syscall(SYS_capset, &header, data) ? err_negative(errno) : 0;
}

/*
 * Before Linux 5.19, unprivileged_bpf_disabled, which distributions set, also forbids the commands
 * that only use existing objects (kernel/bpf/syscall.c).
 */
static bool needs_bpf(void)
{
	return !node_kernel_is(5, 19);
}

/* The capabilities that are effective only between privileges_raise and privileges_lower. */
static uint64_t only_when_raised(void)
{
	return POD_CAPABILITIES | (needs_bpf() ? 0 : BIT(CAP_BPF));
}

static uint64_t needed(const struct privileges_need *need)
{
	return BIT(CAP_NET_ADMIN) | BIT(CAP_BPF) | (need->pods ? POD_CAPABILITIES : 0) |
	       (need->low_port ? BIT(CAP_NET_BIND_SERVICE) : 0);
}

/*
 * This takes CAP_SETPCAP. A container or a unit may have withheld it; then the set stays as it was
 * given, and no_new_privs makes sure that no program gains from it.
 */
static void narrow_bounding_set(uint64_t keep)
{
	for (unsigned long i = 0; i < 64 && prctl(PR_CAPBSET_READ, i, 0, 0, 0) >= 0; i++)
		if (!(keep & BIT(i)))
			prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
}

static int fail(const char *what, int code, struct err *e)
{
	return err_set(e, code, "cannot give up privileges: %s: %s", what, strerror(code));
}

/*
 * A core file contains keys and tokens. Other processes of root read this one's memory only with
 * CAP_SYS_PTRACE. Where the pattern of core files is a pipe, the limit does not count, and what is
 * not dumpable is not piped either.
 */
int privileges_hide_memory(struct err *e)
{
	static const struct rlimit none = { 0, 0 };

	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		return fail("dumpable", errno, e);
	if (setrlimit(RLIMIT_CORE, &none) && errno != EPERM)
		return fail("setrlimit", errno, e);
	return 0;
}

int privileges_begin(struct err *e)
{
	struct sets s = { 0 };
	int r;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return fail("no_new_privs", errno, e);
	r = privileges_hide_memory(e);
	if (!r)
		r = seccomp_begin(e);
	if (r)
		return r;
	r = get_capabilities(&s);
	if (r)
		return fail("capget", -r, e);
	s.permitted &= ~FILE_CAPABILITIES;
	s.effective &= s.permitted;
	r = set_capabilities(&s);
	return r ? fail("capset", -r, e) : 0;
}

int privileges_reduce(const struct privileges_need *need, struct err *e)
{
	uint64_t keep = needed(need);
	struct sets s = { 0 };
	int r = get_capabilities(&s);

	if (r)
		return fail("capget", -r, e);
	narrow_bounding_set(keep);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	s.permitted &= keep;
	s.effective = s.permitted & ~only_when_raised();
	r = set_capabilities(&s);
	return r ? fail("capset", -r, e) : seccomp_reduce(need->pods, e);
}

/* CAP_SYS_ADMIN includes CAP_BPF (bpf_capable, include/linux/capability.h). */
static bool has(uint64_t capabilities)
{
	struct sets s = { 0 };

	if (get_capabilities(&s))
		return false;
	if (s.permitted & BIT(CAP_SYS_ADMIN))
		s.permitted |= BIT(CAP_BPF);
	return (s.permitted & capabilities) == capabilities;
}

bool privileges_can_enter_pods(void)
{
	return has(POD_CAPABILITIES);
}

bool privileges_can_end_connections(void)
{
	return has(BIT(CAP_NET_ADMIN));
}

static const char *if_missing(uint64_t capabilities, const char *text)
{
	return has(capabilities) ? NULL : text;
}

const char *privileges_missing(const struct privileges_need *need, unsigned int i)
{
	if (need->relay && i < 3)
		return NULL;
	switch (i) {
	case 0:
		return if_missing(BIT(CAP_NET_ADMIN),
				  "CAP_NET_ADMIN is missing: connections to dead backends are not "
				  "ended and rebalance moves none; their clients find out by "
				  "deadPeerTimeout");
	case 1:
		return if_missing(
			BIT(CAP_BPF),
			"CAP_BPF is missing: connections are not listed, so that those to "
			"dead backends are not ended, rebalance moves none, and their counts "
			"are not checked");
	case 2:
		if (!need->pods || !privileges_can_end_connections())
			return NULL;
		return if_missing(POD_CAPABILITIES,
				  "connections of pods are not ended: that takes "
				  "CAP_SYS_ADMIN and CAP_SYS_PTRACE, and a start with scope: "
				  "all in the configuration (restart the agent)");
	case 3:
		if (!need->low_port)
			return NULL;
		return if_missing(BIT(CAP_NET_BIND_SERVICE),
				  "a port below 1024, of http or of a frontend that is relayed, "
				  "may be refused: that takes CAP_NET_BIND_SERVICE, and a start "
				  "with such a port in the configuration (restart the agent)");
	default:
		return NULL;
	}
}

static void set_effective(bool all)
{
	struct sets s = { 0 };

	if (get_capabilities(&s))
		return;
	s.effective = all ? s.permitted : s.permitted & ~only_when_raised();
	set_capabilities(&s);
}

void privileges_raise(void)
{
	set_effective(true);
}

void privileges_lower(void)
{
	set_effective(false);
}
