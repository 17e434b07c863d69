/* SPDX-License-Identifier: BSD-2-Clause */
/* Shows what the agent's relay does: struct klb_relay, as the kernel programs go by it. */
#ifndef KUBELB_CTL_RELAY_STATUS_H
#define KUBELB_CTL_RELAY_STATUS_H

#include <stdio.h>

#include <jansson.h>

#include "balance/state.h"

/* Why a part of the relay is off (klb_relay.rescue_off, detour_off), in words; "" for KLB_RELAY_ON.
 */
const char *relay_status_off_text(__u16 off);
/* Prints the line of `status`. alive: the agent's heartbeat counts, otherwise there is no relay. */
void relay_status_print(const struct datapath_state *s, bool alive, FILE *to);
/* The same as an object; null without a relay. */
json_t *relay_status_json(const struct datapath_state *s, bool alive);

#endif
