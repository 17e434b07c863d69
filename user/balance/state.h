/* SPDX-License-Identifier: BSD-2-Clause */
/* The content of the maps as a value: datapath/ reads it, balance/ evaluates it. */
#ifndef KUBELB_STATE_H
#define KUBELB_STATE_H

#include <kubelb/abi.h>

#include "balance/plan.h"

/* Whether a balanced socket counts: it is connecting or active, and not closing. */
static inline bool state_is_open(const struct klb_socket *record)
{
	return record->phase == KLB_PHASE_CONNECTING || record->phase == KLB_PHASE_ACTIVE;
}

/* Everything that the maps hold, read at one time. */
struct datapath_state {
	struct klb_control control;
	struct klb_counters counters;
	struct plan applied;
	struct klb_stats stats[KLB_MAX_IDS];
	struct klb_admin admin[KLB_MAX_IDS];
};

#endif
