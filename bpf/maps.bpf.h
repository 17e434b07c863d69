/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps. What each value means, who writes it and in which units is in
 * include/kubelb/abi.h.
 *
 * Pinned under the name after `klb_`.
 */
#ifndef KUBELB_MAPS_BPF_H
#define KUBELB_MAPS_BPF_H

#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include <kubelb/abi.h>

/* Endpoint dialled -> what is wanted for it, for people. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KLB_FRONTEND_SLOTS);
	__type(key, struct klb_endpoint);
	__type(value, struct klb_frontend);
} klb_frontends SEC(".maps");

/* The frontends as the kernel compares them. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct klb_lookup);
} klb_lookup SEC(".maps");

/* Choices of connects whose SYN has not left yet. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KLB_PENDING_SLOTS);
	__type(key, __u32);
	__type(value, struct klb_pending);
} klb_pending SEC(".maps");

/*
 * Table -> candidates. An array: its lookup is inlined by the verifier. Mapped, for states that are
 * written without the lock.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, KLB_MAX_TABLES);
	__type(key, __u32);
	__type(value, struct klb_candidates);
} klb_candidates SEC(".maps");

/* Id -> what user space knows. A hash, so that a dump shows what exists only. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KLB_MAX_IDS);
	__type(key, __u32);
	__type(value, struct klb_backend);
} klb_backends SEC(".maps");

/* Id -> counters. Read for every candidate of every connect: an array. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KLB_MAX_IDS);
	__type(key, __u32);
	__type(value, struct klb_stats);
} klb_stats SEC(".maps");

/* Id -> admin state: what the operator wants. Read as often as `stats`. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KLB_MAX_IDS);
	__type(key, __u32);
	__type(value, struct klb_admin);
} klb_admin SEC(".maps");

/* Mapped into the memory of user space, where each writer stores its own fields. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct klb_control);
} klb_control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct klb_counters);
} klb_counters SEC(".maps");

/* The last KLB_EVENTS events. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KLB_EVENTS);
	__type(key, __u32);
	__type(value, struct klb_event);
} klb_events SEC(".maps");

/* The sockets that user space is about to reset. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KLB_ENDING_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} klb_ending SEC(".maps");

/*
 * The two ends of a connection to the relay -> whose it is. Each CPU has its share, so that none
 * loses its newest entries while others have room (BPF_F_NO_COMMON_LRU).
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(map_flags, BPF_F_NO_COMMON_LRU);
	__uint(max_entries, KLB_RELAYED_SLOTS);
	__type(key, struct klb_relayed_key);
	__type(value, struct klb_relayed);
} klb_relayed SEC(".maps");

/* Wakes the agent when there is a new event. Without an agent it fills up, which does no
 * harm. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} klb_wakeup SEC(".maps");

/* Socket -> its record. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct klb_socket);
} klb_sockets SEC(".maps");

/* --- .rodata and .bss --- */

const volatile struct klb_options klb_options = { .sockops = 1, .wakeup = 1 };
struct klb_memory klb_memory;

/* --- entries --- */

/* The counters of the backend that has the id now. */
static __always_inline struct klb_stats *klb_stats_at(__u32 id)
{
	return bpf_map_lookup_elem(&klb_stats, &id);
}

/* The counters of a backend; NULL when another one has its id by now. */
static __always_inline struct klb_stats *klb_stats_of(__u32 id, __u32 generation)
{
	struct klb_stats *stats = klb_stats_at(id);

	return stats && stats->generation == generation ? stats : 0;
}

static __always_inline struct klb_stats *klb_stats_of_record(const struct klb_socket *rec)
{
	return klb_stats_of(rec->id, rec->generation);
}

static __always_inline struct klb_control *klb_control_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&klb_control, &zero);
}

static __always_inline struct klb_counters *klb_counters_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&klb_counters, &zero);
}

#endif
