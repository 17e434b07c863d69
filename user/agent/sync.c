/* SPDX-License-Identifier: BSD-2-Clause */
/* Opens the data path, and writes what has changed into the maps. */
#include "agent/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <event2/event.h>

#include "balance/plan_node.h"
#include "base/clock.h"
#include "base/log.h"

/* --- open and close ------------------------------------------------------------------ */

/*
 * Only one agent may work on a data path. The lock is on the links directory (writers of the maps
 * lock the pin directory) and ends with the process.
 */
static int lock_agent(const char *pin_dir, struct err *e)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/links", pin_dir);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_set(e, errno, "%s: %s", path, err_reason(errno));
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		close(fd);
		return err_set(e, EBUSY, "%s: another kubelb-agent runs on it; end that one first",
			       pin_dir);
	}
	return fd;
}

void agent_drop_datapath(struct agent *a)
{
	look_cancel(&a->reconcile_look);
	look_cancel(&a->silence.look);
	agent_forget_evicting(a);
	agent_forget_homing(a);
	agent_forget_moving(a);
	memset(&a->data, 0, sizeof(a->data));
	agent_unsubscribe_events(a);
	agent_relay_datapath(a, NULL);
	datapath_close(a->dp);
	a->dp = NULL;
	if (a->agent_lock >= 0)
		close(a->agent_lock);
	a->agent_lock = -1;
}

unsigned int agent_features(struct agent *a, const struct klb_control *control,
			    struct datapath_feature *ret)
{
	unsigned int n;

	privileges_raise();
	n = datapath_features_in_force(a->dp, control, ret, DATAPATH_FEATURES_MAX);
	privileges_lower();
	return n;
}

/* Logs once for each feature that is off what does not work. */
static void log_features(struct agent *a)
{
	struct datapath_feature features[DATAPATH_FEATURES_MAX];
	unsigned int n = agent_features(a, &a->state->control, features);

	for (unsigned int i = 0; i < n; i++) {
		const struct datapath_feature *f = &features[i];

		if (!f->present && !f->quiet && !a->feature_logged[i])
			log_event(LOG_LEVEL_WARN, "the kernel refuses something, the rest works",
				  "feature=%s error=%s loss=%s", f->name, log_quoted(f->detail),
				  log_quoted(f->loss));
		a->feature_logged[i] = !f->present;
	}
}

/* kubelb-load has run in another network namespace, or this agent does. */
static void log_netns(struct agent *a)
{
	char text[128];

	a->other_netns = !datapath_is_host_netns(&a->state->control);
	datapath_describe_netns(&a->state->control, text, sizeof(text));
	if (a->other_netns && !a->netns_logged)
		log_event(LOG_LEVEL_ERROR,
			  "the data path belongs to another network namespace: connects made here "
			  "are not balanced, and probes from here may see other apiservers; run "
			  "both in one",
			  "pin=%s netns=%s", log_quoted(a->options->pin_dir), log_quoted(text));
	a->netns_logged = a->other_netns;
}

int agent_open_datapath(struct agent *a, struct err *e)
{
	/* The loop does not wait: the next tick looks again. */
	int r = datapath_open(a->options->pin_dir, 0, &a->dp, e);

	if (r)
		return r;
	a->agent_lock = lock_agent(a->options->pin_dir, e);
	r = a->agent_lock < 0 ? a->agent_lock : datapath_read(a->dp, a->state, e);
	if (!r)
		r = agent_subscribe_events(a, e);
	if (r) {
		agent_drop_datapath(a);
		return r;
	}
	log_netns(a);
	log_features(a);
	agent_relay_datapath(a, a->dp);
	return 0;
}

void agent_log_no_datapath(struct agent *a, int r, const struct err *e)
{
	if (!a->detached_logged)
		log_event(LOG_LEVEL_WARN,
			  err_is_shortage(-r)
				  ? "the data path cannot be opened for now, trying again"
				  : "no data path to work on, waiting for kubelb-load",
			  "pin=%s error=%s", log_quoted(a->options->pin_dir), log_quoted(e->text));
	a->detached_logged = true;
	a->short_of = err_is_shortage(-r);
}

/* Reads the maps again after somebody else has changed or replaced them. */
void agent_reopen(struct agent *a)
{
	bool held = a->dp != NULL;
	struct err e = { "" };
	int r;

	if (held)
		a->on_purpose = datapath_is_detached(a->dp);
	agent_drop_datapath(a);
	r = agent_open_datapath(a, &e);
	if (!r) {
		log_event(LOG_LEVEL_INFO,
			  a->short_of ? "the data path is open again, applying the configuration"
				      : "data path changed by kubelb-load, applying the "
					"configuration",
			  "pin=%s serial=%u", log_quoted(a->options->pin_dir),
			  a->state->applied.serial);
		a->detached_logged = a->short_of = a->lost = false;
		a->hidden_for = 0;
		a->config_pending = a->dirty = true;
		return;
	}
	agent_log_no_datapath(a, r, &e);
	agent_note_loss(a, held, r);
}

/* --- write --------------------------------------------------------------------------- */

static int make_plan(struct agent *a, bool new_config, struct plan *ret, struct err *e)
{
	struct health health[KLB_MAX_BACKENDS];
	struct plan_watched watched[KLB_MAX_IDS];
	int r = 0;

	/* The free ids depend on the connections that are open now, */
	if (!a->dp)
		agent_read_relayed(a);
	else if (new_config)
		r = datapath_read(a->dp, a->state, e);
	/* and what is kept on what the operator has set. */
	else if (plan_count_used(&a->state->applied) < a->state->applied.n_backends)
		r = datapath_read_admin(a->dp, a->state->admin, e);
	if (r)
		return r;
	for (unsigned int i = 0; i < a->config->n_backends; i++)
		health[i] = *agent_backend_health(a->backends[i]);
	for (unsigned int i = 0; i < a->n_removed; i++)
		watched[i] = (struct plan_watched){ a->removed[i]->endpoint,
						    *agent_backend_health(a->removed[i]) };
	return plan_for_node(a->config, a->state, health, watched, a->n_removed, new_config, ret,
			     e);
}

/* Whether the slow start of a backend is going on. */
static bool is_ramping(const struct agent *a)
{
	__u64 now = clock_now_ns();

	for (unsigned int i = 0; i < a->config->n_backends; i++)
		if (health_share(agent_backend_health(a->backends[i]), a->config->slow_start_ms,
				 now) != 1000)
			return true;
	return false;
}

/* To the maps; there are none while this process is the data path. */
static int write_plan(struct agent *a, const struct plan *p, struct err *e)
{
	return a->dp ? datapath_apply(a->dp, a->state->applied.serial, p, e) : 0;
}

/* Writes what has changed. What fails is tried again with the next tick. */
void agent_apply(struct agent *a)
{
	struct plan *p = malloc(sizeof(*p));
	struct err e = { "" };
	bool ramping = is_ramping(a);
	int r;

	a->dirty = true;
	if (!p || (!a->dp && !a->path.relaying) || clock_now_ns() < a->apply_after_ns)
		goto out;
	r = make_plan(a, a->config_pending, p, &e);
	if (!r)
		r = write_plan(a, p, &e);
	if (!r) {
		a->state->applied = *p;
		a->config_pending = false;
		/* Again with the next tick, the last time when the slow start has ended. */
		a->dirty = ramping;
	} else if (r == -ESTALE) {
		agent_reopen(a);
	} else if (r == -EBUSY && !datapath_write_states(a->dp, p, &e) && !a->config_pending) {
		/* All of it comes with the next tick that finds the lock free. */
		a->state->applied = *p;
	}
	if (r != -ESTALE && r != -EBUSY)
		log_failure(a->maps_error, LOG_LEVEL_ERROR, "cannot update the maps", &e);
	agent_relay_review(a);
	if (a->path.relaying)
		agent_apply_settings(a);
	agent_review_listeners(a);
out:
	free(p);
}
