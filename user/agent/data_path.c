/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who is the data path: the kernel, by its maps, or this agent, by its relay.
 *
 *   dataPath   kernel   the kernel; without an attachment the agent waits for kubelb-load
 *              relay    the agent
 *              auto     the kernel; the agent from when the kernel has refused the connect programs
 *                       until something is attached. It has them tried again, ever more rarely,
 *                       and finds what a kubelb-load attaches with its next tick
 *
 * After a reload from relay to one of the others, the agent relays until the kernel takes connects.
 */
#include "agent/internal.h"

#include <stdio.h>
#include <string.h>

#include <event2/event.h>

#include "base/clock.h"

const char *agent_relaying_reason(const struct agent *a)
{
	if (a->options->relay)
		return "it was started with --relay";
	if (a->file && a->file->data_path == CONFIG_DATA_PATH_RELAY)
		return "dataPath is relay";
	return a->path.refused[0] ? a->path.refused : "the programs are not attached yet";
}

/* cfg: what is, or will be, in force. */
static bool wants_relay(const struct agent *a, const struct config *cfg)
{
	bool refused = a->path.refused[0];

	if (cfg->data_path == CONFIG_DATA_PATH_RELAY)
		return true;
	if (a->dp)
		return false;
	if (cfg->data_path == CONFIG_DATA_PATH_AUTO)
		return refused || a->path.relaying;
	return a->path.relaying && !refused && a->options->attacher;
}

/* The maps are gone, or do not count any more: what they held stays known. */
static void begin_relaying(struct agent *a)
{
	struct klb_control control = { .abi_version = KLB_ABI_VERSION };

	agent_keep_settings(a);
	a->attach_due_ns = a->attach_wait_ns = 0;
	if (a->dp)
		agent_drop_datapath(a);
	a->path.relaying = true;
	a->lost = a->detached_logged = a->other_netns = false;
	a->state->control = control;
	memset(&a->state->counters, 0, sizeof(a->state->counters));
	memset(a->state->stats, 0, sizeof(a->state->stats));
	a->config_pending = a->dirty = true;
	log_event(LOG_LEVEL_WARN, "every connect to the frontends is relayed by this process",
		  "reason=%s", log_quoted(agent_relaying_reason(a)));
	if (datapath_is_pinned(a->options->pin_dir))
		log_event(LOG_LEVEL_WARN,
			  "what is attached goes on sending connects straight, by what was known "
			  "when it was last written: kubelb-load --detach removes it",
			  "pin=%s", log_quoted(a->options->pin_dir));
}

/* The listeners are closed by agent_review_listeners: the kernel takes new connects by now. */
static void end_relaying(struct agent *a)
{
	/* What was listed was relayed. */
	agent_forget_homing(a);
	a->path.relaying = false;
	a->path.refused[0] = '\0';
	a->config_pending = a->dirty = true;
	log_event(LOG_LEVEL_INFO,
		  a->dp ? "the kernel takes connects now, none is relayed any more"
			: "connects are not relayed any more",
		  "pin=%s", log_quoted(a->options->pin_dir));
}

/* Whether something has been attached meanwhile. */
static void look_for_datapath(struct agent *a)
{
	struct err unattached;

	if (a->config->data_path == CONFIG_DATA_PATH_RELAY ||
	    !datapath_is_pinned(a->options->pin_dir))
		return;
	if (!agent_open_datapath(a, &unattached))
		end_relaying(a);
}

int agent_begin_data_path(struct agent *a, const struct config *cfg, struct err *e)
{
	if (a->options->refused)
		snprintf(a->path.refused, sizeof(a->path.refused), "%s", a->options->refused);
	if (!wants_relay(a, cfg))
		return agent_open_datapath(a, e);
	return 0;
}

void agent_review_data_path(struct agent *a)
{
	bool wanted;

	if (a->path.relaying)
		look_for_datapath(a);
	wanted = wants_relay(a, a->config);
	if (wanted && !a->path.relaying)
		begin_relaying(a);
	else if (!wanted && a->path.relaying)
		end_relaying(a);
	if (a->path.relaying && a->config->data_path != CONFIG_DATA_PATH_RELAY)
		agent_try_attaching(a);
}

void agent_sign_of_life(struct agent *a, __u64 max_age_ns)
{
	a->state->control.heartbeat_ns = clock_now_ns();
	a->state->control.heartbeat_max_age_ns = max_age_ns;
	a->heartbeat_written = true;
}
