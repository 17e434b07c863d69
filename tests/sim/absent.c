/* SPDX-License-Identifier: BSD-2-Clause */
/* What the agent's files call, and what has no place in the simulation. */
#include <stdio.h>
#include <stdlib.h>

#include "datapath/datapath.h"
#include "sim.h"

/* --- nothing is to be done ----------------------------------------------------------------- */

void agent_relay_review(struct agent *a)
{
	(void)a;
}

void agent_relay_event(struct agent *a, const struct klb_event *event)
{
	(void)a;
	(void)event;
}

void agent_end_recorded(struct agent *a, const struct klb_endpoint *backend)
{
	(void)a;
	(void)backend;
}

void agent_relay_datapath(struct agent *a, const struct datapath *dp)
{
	(void)a;
	(void)dp;
}

void agent_review_listeners(struct agent *a)
{
	(void)a;
}

void agent_check_relayed(struct agent *a)
{
	(void)a;
}

void agent_read_relayed(struct agent *a)
{
	(void)a;
}

void agent_apply_settings(struct agent *a)
{
	(void)a;
}

void agent_close_http(struct agent *a, const struct config *cfg)
{
	(void)a;
	(void)cfg;
}

bool privileges_can_end_connections(void)
{
	return true;
}

void privileges_raise(void)
{
}

void privileges_lower(void)
{
}

/* --- there are maps ------------------------------------------------------------------------- */

void agent_look(struct agent *a, struct look *l, const struct datapath_list_options *how,
		const struct look_ops *ops)
{
	look_begin(l, a->base, a->dp, how, false, ops, a);
}

bool agent_read_stats(const struct agent *a, const struct plan_backend *b, struct klb_stats *ret)
{
	return !datapath_read_stat(a->dp, b->id, ret, NULL);
}

int agent_end_picked(struct agent *a, const struct agent_batch *b, struct agent_ended *ret,
		     struct err *e)
{
	return agent_end_batch(a->dp, b, ret, e);
}

/* --- only where the maps are lost, which they never are -------------------------------------- */

#define NEVER()                                                         \
	do {                                                            \
		fprintf(stderr, "simulate: %s was called\n", __func__); \
		abort();                                                \
	} while (0)

void agent_forget_homing(struct agent *a)
{
	(void)a;
	NEVER();
}

void agent_note_loss(struct agent *a, bool held, int code)
{
	(void)a;
	(void)held;
	(void)code;
	NEVER();
}

int datapath_open(const char *pin_dir, unsigned int wait_ms, struct datapath **ret, struct err *e)
{
	(void)pin_dir;
	(void)wait_ms;
	(void)ret;
	(void)e;
	NEVER();
}

void datapath_close(struct datapath *dp)
{
	(void)dp;
	NEVER();
}

bool datapath_is_detached(const struct datapath *dp)
{
	(void)dp;
	NEVER();
}

bool datapath_is_host_netns(const struct klb_control *control)
{
	(void)control;
	NEVER();
}

int datapath_describe_netns(const struct klb_control *control, char *text, size_t size)
{
	(void)control;
	(void)text;
	(void)size;
	NEVER();
}

int datapath_write_states(const struct datapath *dp, const struct plan *p, struct err *e)
{
	(void)dp;
	(void)p;
	(void)e;
	NEVER();
}

int datapath_wakeup_fd(struct datapath *dp, struct err *e)
{
	(void)dp;
	(void)e;
	NEVER();
}

void datapath_wakeup_clear(struct datapath *dp)
{
	(void)dp;
	NEVER();
}

unsigned int datapath_features_in_force(const struct datapath *dp,
					const struct klb_control *control,
					struct datapath_feature *ret, unsigned int max)
{
	(void)dp;
	(void)control;
	(void)ret;
	(void)max;
	NEVER();
}
