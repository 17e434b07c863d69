/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps, declared once. What each value means, who writes it and in which
 * units is in include/kubelb/abi.h; maps.bpf.c defines them.
 *
 * Pinned under the name after `klb_`.
 */
#ifndef KUBELB_MAPS_BPF_H
#define KUBELB_MAPS_BPF_H

#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include <kubelb/abi.h>

/* Endpoint dialled -> what is wanted for it, for people. */
struct klb_map_frontends {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KLB_FRONTEND_SLOTS);
	__type(key, struct klb_endpoint);
	__type(value, struct klb_frontend);
};

/* The frontends as the kernel compares them. */
struct klb_map_lookup {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct klb_lookup);
};

/* Choices between connect and SYN. */
struct klb_map_pending {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KLB_PENDING_SLOTS);
	__type(key, __u32);
	__type(value, struct klb_pending);
};

/* Table -> candidates. An array: its lookup is inlined by the verifier. */
struct klb_map_candidates {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KLB_MAX_TABLES);
	__type(key, __u32);
	__type(value, struct klb_candidates);
};

/* Id -> what user space knows. A hash, so that a dump shows what exists only. */
struct klb_map_backends {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KLB_MAX_IDS);
	__type(key, __u32);
	__type(value, struct klb_backend);
};

/* Id -> counters. Read for every candidate of every connect: an array. */
struct klb_map_stats {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KLB_MAX_IDS);
	__type(key, __u32);
	__type(value, struct klb_stats);
};

/* Id -> the operator's wish. Read as often as `stats`. */
struct klb_map_admin {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KLB_MAX_IDS);
	__type(key, __u32);
	__type(value, struct klb_admin);
};

struct klb_map_control {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct klb_control);
};

struct klb_map_counters {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct klb_counters);
};

/* The last KLB_EVENTS things that went wrong or right again. */
struct klb_map_events {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KLB_EVENTS);
	__type(key, __u32);
	__type(value, struct klb_event);
};

/* Rings when there is a new event; the agent alone listens. Full without one, which does no
 * harm. */
struct klb_map_wakeup {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
};

/* Socket -> its record. */
struct klb_map_sockets {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct klb_socket);
};

extern struct klb_map_frontends klb_frontends SEC(".maps");
extern struct klb_map_lookup klb_lookup SEC(".maps");
extern struct klb_map_pending klb_pending SEC(".maps");
extern struct klb_map_candidates klb_candidates SEC(".maps");
extern struct klb_map_backends klb_backends SEC(".maps");
extern struct klb_map_stats klb_stats SEC(".maps");
extern struct klb_map_admin klb_admin SEC(".maps");
extern struct klb_map_control klb_control SEC(".maps");
extern struct klb_map_counters klb_counters SEC(".maps");
extern struct klb_map_events klb_events SEC(".maps");
extern struct klb_map_wakeup klb_wakeup SEC(".maps");
extern struct klb_map_sockets klb_sockets SEC(".maps");

/* --- not maps to whoever writes the programs: .rodata and .bss --- */

extern const volatile struct klb_options klb_options;
extern struct klb_memory klb_memory;

#endif
