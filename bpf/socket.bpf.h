/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The record of a balanced socket, and the counts that depend on it. Every change of
 * `connecting` and `active` goes through the few functions here. All of them run under the
 * socket's lock, as the connect hook and the sock_ops calls do, so a record has one writer at
 * a time.
 *
 * The record is made when the SYN leaves (sock_ops), not in the connect hook: its memory is
 * the most expensive part of a connect, and a connect that finds no route needs none. In
 * between, the choice is in `pending`.
 */
#ifndef KUBELB_SOCKET_BPF_H
#define KUBELB_SOCKET_BPF_H

#include "outlier.bpf.h"
#include "kernel.bpf.h"
#include "maps.bpf.h"

/* A choice that is still in `pending` after this time belongs to a connect that never sent its
 * SYN. */
#define KLB_PENDING_NS 1000000000ULL
/* An abandoned route that is older says nothing about the backend any more. */
#define KLB_ABANDONED_NS 60000000000ULL

/* --- counts --- */

/* by: 1 or -1. */
static __always_inline void klb_count_other_netns(const struct klb_socket *rec, __u64 by)
{
	struct klb_counters *counters;

	if (!(rec->flags & KLB_SOCKET_OTHER_NETNS))
		return;
	counters = klb_counters_get();
	if (counters)
		__sync_fetch_and_add(&counters->other_netns, by);
}

/* Takes the socket out of whichever count it is in. */
static __always_inline void klb_socket_end(struct klb_socket *rec, struct klb_stats *stats)
{
	if (stats && rec->phase == KLB_PHASE_CONNECTING)
		__sync_fetch_and_add(&stats->connecting, -1);
	if (stats && rec->phase == KLB_PHASE_ACTIVE)
		__sync_fetch_and_add(&stats->active, -1);
	if (rec->phase == KLB_PHASE_CONNECTING || rec->phase == KLB_PHASE_ACTIVE)
		klb_count_other_netns(rec, -1);
	rec->phase = KLB_PHASE_ENDED;
}

static __always_inline void klb_socket_begin(struct klb_socket *rec, struct klb_stats *stats)
{
	if (stats)
		__sync_fetch_and_add(&stats->connecting, 1);
	klb_count_other_netns(rec, 1);
	rec->phase = KLB_PHASE_CONNECTING;
}

static __always_inline void klb_socket_establish(struct klb_socket *rec, struct klb_stats *stats)
{
	if (stats) {
		__sync_fetch_and_add(&stats->connecting, -1);
		__sync_fetch_and_add(&stats->active, 1);
	}
	rec->phase = KLB_PHASE_ACTIVE;
}

/* --- records --- */

static __always_inline void klb_socket_fill(struct klb_socket *rec, const struct klb_route *route)
{
	rec->frontend = route->frontend;
	rec->backend = route->backend;
	rec->id = route->id;
	rec->generation = route->generation;
	/* Options set on the socket stay set when it is connected again. */
	rec->flags = route->flags | (rec->flags & KLB_SOCKET_OPTIONS);
	rec->phase = KLB_PHASE_NEW;
	rec->connect_ns = route->chosen_ns;
	rec->established_ns = 0;
}

/*
 * Makes sk's record from the choice. A socket that is connected again (after a failed
 * connect, or AF_UNSPEC) has its old record replaced. Returns NULL without memory for one:
 * the connect is balanced all the same; it is only not counted.
 */
static __always_inline struct klb_socket *klb_socket_record(struct bpf_sock *sk,
							    const struct klb_route *route)
{
	struct klb_socket *rec;

	rec = bpf_sk_storage_get(&klb_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!rec)
		return 0;
	klb_socket_end(rec, klb_stats_of_record(rec));
	klb_socket_fill(rec, route);
	return rec;
}

/*
 * The socket is now connected to something that is no backend. With the record it would still
 * be counted, and getpeername would show the wrong peer.
 */
static __always_inline void klb_socket_forget(struct bpf_sock *sk, struct klb_socket *rec)
{
	klb_socket_end(rec, klb_stats_of_record(rec));
	bpf_sk_storage_delete(&klb_sockets, sk);
}

/* --- outcome --- */

/* To be called before the socket's outcome is held against its backend: its own filter may be why,
 * or the few ports that it may have. A function of its own, which the verifier checks once. */
static __noinline int klb_distrust_limited(struct klb_socket *rec, struct tcp_sock *tp)
{
	if (rec && tp && (klb_has_filter(tp) || klb_has_port_range(tp)))
		rec->flags &= ~(KLB_SOCKET_TRUSTED | KLB_SOCKET_UNTRUSTED);
	return 0;
}

/* --- of a sock_ops call --- */

/*
 * Returns the record of a balanced socket, or NULL. The callback flags do not tell: most
 * other sock_ops programs overwrite them.
 */
static __always_inline struct klb_socket *klb_record_of(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = klb_ops_sk(ctx);

	if (!sk || (KLB_HAS_CASTS && !klb_has_storage(klb_ops_tcp_sock(ctx))))
		return 0;
	return bpf_sk_storage_get(&klb_sockets, sk, 0, 0);
}

/* --- owner --- */

/* Records the running process as the owner, with helpers alone. Before Linux 5.11 sock_ops cannot
 * call them. */
static __always_inline void klb_set_owner_by_task(struct klb_socket *rec)
{
	rec->pid = (__u32)(bpf_get_current_pid_tgid() >> 32);
	rec->cgroup_id = bpf_get_current_cgroup_id();
	bpf_get_current_comm(rec->comm, sizeof(rec->comm));
}

/* The same of the socket tp, in less time. */
static __always_inline void klb_set_owner(struct klb_socket *rec, struct tcp_sock *tp)
{
#ifdef KLB_BUILD_OLD
	(void)tp;
	klb_set_owner_by_task(rec);
#else
	struct task_struct *task = bpf_get_current_task_btf();

	rec->pid = task->tgid;
	__builtin_memcpy(rec->comm, task->comm, sizeof(rec->comm));
	rec->cgroup_id = klb_cgroup_of(tp);
#endif
}

static __always_inline void klb_clear_owner(struct klb_socket *rec)
{
	rec->pid = 0;
	rec->cgroup_id = 0;
	__builtin_memset(rec->comm, 0, sizeof(rec->comm));
}

static __always_inline void klb_copy_owner(struct klb_socket *rec, const struct klb_socket *other)
{
	rec->pid = other->pid;
	rec->cgroup_id = other->cgroup_id;
	__builtin_memcpy(rec->comm, other->comm, sizeof(rec->comm));
}

/* --- between hook and SYN --- */

/*
 * A choice older than this belongs to an earlier connect of the same socket, which found no route:
 * between hook and SYN there are microseconds. In jiffies, of which chosen_ns has whole ones.
 */
#define KLB_SAME_CONNECT_NS 20000000ULL

/* Whether a choice of that time can be of the connect that is under way. */
static __always_inline int klb_may_be_of_now(__u64 chosen_ns)
{
	struct klb_control *control = klb_control_get();

	return control && klb_age(klb_now_ns(control), chosen_ns) < (__s64)KLB_SAME_CONNECT_NS;
}

/*
 * Identifies a socket between the hook and the SYN: the inode number of the socket's file. The
 * socket's cookie would do as well but takes five times as long to make. 0 for a socket that
 * the kernel made for itself, which has no file.
 */
static __always_inline __u64 klb_socket_number(struct tcp_sock *tp)
{
	return klb_sock_of(tp)->sk_socket->file->f_inode->i_ino;
}

static __always_inline struct klb_pending *klb_pending_of(__u64 number)
{
	__u32 index = number % KLB_PENDING_SLOTS;

	return bpf_map_lookup_elem(&klb_pending, &index);
}

/*
 * The choice in p is abandoned: its connect failed before a SYN could leave, without a route
 * or without a free local port to that address. Either way another backend is better for the
 * next connect. It is noticed only when the entry is needed again; if another connect has
 * succeeded since, it does not count. The caller has claimed p. own: the socket that connects is
 * the one whose choice it is; otherwise nobody knows whose it is.
 */
static __noinline int klb_abandoned_route(struct klb_pending *p, int own, __u64 now)
{
	struct klb_socket *rec;
	struct klb_stats *stats;

	if (!p || p->route.flags & (KLB_SOCKET_REPAIR | KLB_SOCKET_DETOURED))
		return 0;
	rec = &p->left;
	klb_socket_fill(rec, &p->route);
	if (!KLB_IS_OLD && own)
		klb_set_owner_by_task(rec);
	else if (!KLB_IS_OLD)
		klb_clear_owner(rec);
	stats = klb_stats_of_record(rec);
	if (!stats)
		return 0;
	if (klb_age(now, rec->connect_ns) > (__s64)KLB_ABANDONED_NS ||
	    stats->last_success_ns > rec->connect_ns)
		rec->flags = 0;
	klb_failed(stats, rec, KLB_FAILURE_UNREACHABLE, now);
	return 0;
}

/*
 * Claims the entry for this socket, and tells in ret_seen whose choice it still holds; 0: nobody's.
 * Returns NULL while another connect, between hook and SYN, uses it.
 */
static __always_inline struct klb_pending *klb_pending_take(struct klb_pending *p, __u64 number,
							    __u64 now, __u64 *ret_seen)
{
	__u64 seen;

	if (!number)
		return 0;
	seen = *(volatile __u64 *)&p->number;
	*ret_seen = seen;
	if (seen == KLB_PENDING_CLAIMED ||
	    (seen && seen != number && klb_age(now, p->route.chosen_ns) < (__s64)KLB_PENDING_NS))
		return 0;
	return klb_take_over(&p->number, seen, KLB_PENDING_CLAIMED) ? p : 0;
}

/* The same, and an abandoned choice says something about its backend. */
static __always_inline struct klb_pending *klb_pending_claim(struct klb_pending *p, __u64 number,
							     __u64 now)
{
	__u64 seen = 0;

	p = klb_pending_take(p, number, now, &seen);
	if (p && seen)
		klb_abandoned_route(p, seen == number, now);
	return p;
}

#endif
