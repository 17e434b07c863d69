/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The record that a socket of ours carries, and the count that hangs on it. Kept
 * in one place, so that every way in and out of `active` goes through the same
 * few functions.
 *
 * The record is made when the SYN leaves (sock_ops), not in the connect hook: its
 * memory is the most expensive part of a connect by far, and a connect that fails for
 * want of a route needs none. In between, the choice waits in `pending`.
 */
#ifndef KUBELB_SOCKET_BPF_H
#define KUBELB_SOCKET_BPF_H

#include "maps.bpf.h"

/* A choice that nobody has fetched for so long belongs to a connect that never sent
 * its SYN. */
#define KLB_PENDING_NS 10000000000ULL

static __always_inline struct klb_stats *klb_stats_of(__u32 id)
{
	return bpf_map_lookup_elem(&klb_stats, &id);
}

/* Takes the socket out of the active count, if it is in. */
static __always_inline void klb_socket_uncount(struct klb_socket *rec)
{
	struct klb_stats *stats;

	if (!rec->counted)
		return;
	rec->counted = 0;
	stats = klb_stats_of(rec->id);
	if (stats)
		__sync_fetch_and_add(&stats->active, -1);
}

/*
 * Makes sk's record from the choice, whose `counted` says whether sock_release will
 * tell us of the end. A socket that is connected again (after a failed connect, or
 * AF_UNSPEC) has its old record replaced. Without memory for one the connect is
 * balanced all the same; it is only not counted as active.
 */
static __always_inline void klb_socket_record(struct bpf_sock *sk, const struct klb_socket *choice)
{
	struct klb_stats *stats = klb_stats_of(choice->id);
	struct klb_socket *rec;

	if (stats)
		__sync_fetch_and_add(&stats->opened, 1);
	rec = bpf_sk_storage_get(&klb_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!rec)
		return;
	klb_socket_uncount(rec);
	*rec = *choice;
	if (stats && rec->counted)
		__sync_fetch_and_add(&stats->active, 1);
}

/*
 * A socket of ours that is connected to something that is not ours has left us: a
 * record that stayed would count it, and lie about its peer.
 */
static __always_inline void klb_socket_forget(struct bpf_sock *sk)
{
	struct klb_socket *rec = bpf_sk_storage_get(&klb_sockets, sk, 0, 0);

	if (!rec)
		return;
	klb_socket_uncount(rec);
	bpf_sk_storage_delete(&klb_sockets, sk);
}

/*
 * What tells sockets apart between the hook and the SYN: the number of the inode that
 * is the socket's file. The socket's cookie would do as well; to make one takes five
 * times as long. 0 for a socket that the kernel made for itself, which has no file.
 */
static __always_inline __u64 klb_socket_number(struct tcp_sock *tp)
{
	return tp->inet_conn.icsk_inet.sk.sk_socket->file->f_inode->i_ino;
}

static __always_inline struct klb_pending *klb_pending_of(__u64 number)
{
	__u32 index = number % KLB_PENDING_SLOTS;

	return bpf_map_lookup_elem(&klb_pending, &index);
}

/* Claims the slot of this socket. Returns NULL when another connect, on its way
 * between hook and SYN at this very moment, has it. */
static __always_inline struct klb_pending *klb_pending_claim(__u64 number, __u64 now)
{
	struct klb_pending *p = klb_pending_of(number);
	__u64 seen;

	if (!p || !number)
		return 0;
	seen = *(volatile __u64 *)&p->number;
	if (seen && seen != number && now - p->choice.connect_ns < KLB_PENDING_NS)
		return 0;
	if (__sync_val_compare_and_swap(&p->number, seen, KLB_PENDING_CLAIMED) != seen)
		return 0;
	return p;
}

#endif
