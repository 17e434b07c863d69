/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The agent's loop: probes, health, plan, maps. It connects the other folders; they contain the
 * rules.
 */
#ifndef KUBELB_AGENT_H
#define KUBELB_AGENT_H

#include "agent/attacher.h"
#include "config/config.h"
#include "base/err.h"
#include "host/privileges.h"

struct agent_options {
	const char *config_path;
	const char *pin_dir;
	struct attacher *attacher; /* NULL: what is lost stays lost */
};

/* The privileges that a configuration needs. */
void agent_needs(const struct config *cfg, struct privileges_need *ret);

/*
 * Runs until SIGTERM or SIGINT. The data path must be attached. cfg: the configuration read at
 * start; the agent takes ownership. Returns 0, or a negative errno with e when it cannot run.
 */
int agent_run(const struct agent_options *o, struct config *cfg, struct err *e);

#endif
