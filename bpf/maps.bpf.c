/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "maps.bpf.h"

struct klb_map_frontends klb_frontends SEC(".maps");
struct klb_map_lookup klb_lookup SEC(".maps");
struct klb_map_pending klb_pending SEC(".maps");
struct klb_map_candidates klb_candidates SEC(".maps");
struct klb_map_backends klb_backends SEC(".maps");
struct klb_map_stats klb_stats SEC(".maps");
struct klb_map_admin klb_admin SEC(".maps");
struct klb_map_control klb_control SEC(".maps");
struct klb_map_counters klb_counters SEC(".maps");
struct klb_map_events klb_events SEC(".maps");
struct klb_map_wakeup klb_wakeup SEC(".maps");
struct klb_map_sockets klb_sockets SEC(".maps");

const volatile struct klb_options klb_options = { .sockops = 1, .wakeup = 1 };
struct klb_memory klb_memory;

char klb_license[] SEC("license") = "Dual BSD/GPL";
