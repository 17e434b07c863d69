/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The agent's loop: probes, health, plan, maps. It connects the other folders; they contain the
 * rules.
 */
#ifndef KUBELB_AGENT_H
#define KUBELB_AGENT_H

#include <stdbool.h>

#include "agent/attacher.h"
#include "config/config.h"
#include "base/err.h"
#include "host/privileges.h"

struct agent_options {
	const char *config_path;
	const char *pin_dir;
	struct attacher *attacher; /* NULL: what is lost stays lost */
	bool relay; /* the agent is the data path, whatever the configuration says */
	const char *refused; /* why the kernel is not the data path; NULL: it may be */
};

/* The privileges that a configuration needs. */
void agent_needs(const struct config *cfg, struct privileges_need *ret);

/*
 * Runs until SIGTERM or SIGINT. The data path must be attached, unless the agent is it. cfg: the
 * configuration read at start; the agent takes ownership. Returns 0, or a negative errno with e
 * when it cannot run.
 */
int agent_run(const struct agent_options *o, struct config *cfg, struct err *e);

#endif
