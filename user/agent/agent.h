/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The agent's loop: probes in, health, plan, maps out. Wires the rooms together;
 * the rules are theirs.
 */
#ifndef KUBELB_AGENT_H
#define KUBELB_AGENT_H

#include "config/config.h"
#include "base/err.h"
#include "host/privileges.h"

struct agent_options {
	const char *config_path;
	const char *pin_dir;
};

/* What a configuration takes of privileges. */
void agent_needs(const struct config *cfg, struct privileges_need *ret);

/*
 * Runs until SIGTERM or SIGINT. cfg: the configuration read at start, owned by the
 * agent from here on. The data path must be attached. Returns 0, or a negative errno
 * with e when it cannot run at all.
 */
int agent_run(const struct agent_options *o, struct config *cfg, struct err *e);

#endif
