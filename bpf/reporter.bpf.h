/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which failures say something about a backend, and which only about the reporter.
 *
 * Somebody's connect program, IPAddressDeny=, a firewall rule for a cgroup or a user: such a
 * policy makes a reporter's connects fail at whatever backend. A backend's fault makes
 * everybody's connects fail at this one. So while an agent runs, a failure counts only if the
 * reporter's connects work otherwise: its last one succeeded; or all since were at this backend,
 * and there were several. One reporter accuses one backend in KLB_BLAME_NS: a policy may let it
 * reach one backend and no other. The agent probes the backends itself, and needs no reporter for
 * the rest.
 *
 * A reporter is a cgroup, because a policy is one's of a cgroup as a rule. In the root cgroup,
 * where all processes of a host without cgroup v2 are, it is a process.
 */
#ifndef KUBELB_REPORTER_BPF_H
#define KUBELB_REPORTER_BPF_H

#include "clock.bpf.h"
#include "kernel.bpf.h"
#include "maps.bpf.h"

/* A reporter that has ejected one backend ejects no other for this time. */
#define KLB_BLAME_NS 60000000000ULL

/* Of a record without an owner. Such are many processes', so it is never believed. */
#define KLB_REPORTER_UNKNOWN KLB_REPORTER_PROCESS

static __always_inline __u64 klb_reporter_key(__u64 cgroup_id, __u32 pid)
{
	return cgroup_id > KLB_ROOT_CGROUP ? cgroup_id : KLB_REPORTER_PROCESS + pid;
}

/* The key of who connects now, as it will be in the record (klb_set_owner). */
static __always_inline __u64 klb_reporter_key_of(struct tcp_sock *tp)
{
#ifdef KLB_BUILD_OLD
	(void)tp;
	return klb_reporter_key(bpf_get_current_cgroup_id(),
				(__u32)(bpf_get_current_pid_tgid() >> 32));
#else
	return klb_reporter_key(klb_cgroup_of(tp), bpf_get_current_task_btf()->tgid);
#endif
}

static __always_inline struct klb_reporter *klb_reporter_at(__u64 key)
{
	return &klb_memory.reporters[key % KLB_REPORTERS];
}

static __always_inline void klb_reporter_succeeded(const struct klb_socket *rec)
{
	__u64 key = klb_reporter_key(rec->cgroup_id, rec->pid);
	struct klb_reporter *r = klb_reporter_at(key);

	if (r->key != key) {
		r->blamed_ns = 0;
		r->key = key;
	} else if (!r->failures) {
		return;
	}
	r->failures = 0;
}

static __always_inline __u32 klb_which(const struct klb_socket *rec)
{
	return KLB_WHICH(rec->id, rec->generation);
}

/*
 * Whether a failure of this reporter at this backend (KLB_WHICH) says something about it. Its last
 * connect succeeded, and it has accused nobody lately; or it has failed often, here alone, and has
 * accused no other lately. Without branches, each of which costs the verifier's budget.
 */
static __always_inline int klb_reporter_may_blame(__u64 key, __u32 which, __u64 now)
{
	const struct klb_reporter *r = klb_reporter_at(key);
	__u64 lately = klb_negative(now - r->blamed_ns - KLB_BLAME_NS) & klb_any_bit(r->blamed);
	__u64 sure = klb_same(r->failed, which) & klb_same(r->failures, KLB_REPORTER_SURE) &
		     ((lately ^ 1) | klb_same(r->blamed, which));

	if (key == KLB_REPORTER_UNKNOWN || r->key != key)
		return 0;
	return (int)klb_blend(lately ^ 1, sure, 0 - (__u64)klb_any_bit(r->failures));
}

/* The same for a failure of this socket. Without an agent nobody else reports. */
static __noinline int klb_reporter_counts(const struct klb_socket *rec, __u64 now)
{
	struct klb_control *control = klb_control_get();

	if (!rec)
		return 0;
	return (control && !klb_agent_alive(control, now)) ||
	       klb_reporter_may_blame(klb_reporter_key(rec->cgroup_id, rec->pid), klb_which(rec),
				      now);
}

/* The socket's connect has failed. counts: and the backend was ejected for it. */
static __always_inline void klb_reporter_failed(const struct klb_socket *rec, int counts, __u64 now)
{
	__u64 key = klb_reporter_key(rec->cgroup_id, rec->pid);
	struct klb_reporter *r = klb_reporter_at(key);

	if (key == KLB_REPORTER_UNKNOWN)
		return;
	if (r->key != key) {
		r->key = key;
		r->blamed_ns = 0;
		r->failures = 0;
	}
	if (counts) {
		r->blamed_ns = now;
		r->blamed = klb_which(rec);
		r->failures = KLB_REPORTER_SURE;
		r->failed = r->blamed;
		return;
	}
	if (r->failures && r->failed != klb_which(rec))
		r->failed = KLB_REPORTER_SEVERAL;
	else
		r->failed = klb_which(rec);
	if (r->failures < KLB_REPORTER_SURE)
		r->failures++;
}

#endif
