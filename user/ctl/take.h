/* SPDX-License-Identifier: BSD-2-Clause */
/* Takes what `status` shows, from the maps or, where there are none, from the agent. */
#ifndef KUBELB_CTL_TAKE_H
#define KUBELB_CTL_TAKE_H

#include <stdio.h>

#include <jansson.h>

#include "ctl/ctl.h"
#include "ctl/status.h"

/* What stays from one look to the next: it costs more than the rest and changes seldom. */
struct take_memory {
	struct decides decides;
	struct running running;
};

/*
 * Prints the state as text. Both return 0, or a negative errno with e: -ENOENT when nothing is
 * attached and no agent relays.
 */
int take_text(const struct ctl_options *o, struct take_memory *memory, FILE *to, struct err *e);

/* Takes the document, to be freed with json_decref. wait_ms: for an upgrade that is half-way. */
int take_json(const struct ctl_options *o, struct take_memory *memory, unsigned int wait_ms,
	      json_t **ret, struct err *e);

#endif
