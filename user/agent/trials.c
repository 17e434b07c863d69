/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tries whether connects to the frontends end at a backend, and looks whose programs run beside
 * KubeLB's. That a program is attached proves little when another one decides.
 */
#include "agent/internal.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "net/endpoint.h"

/* A round costs some ten microseconds for each frontend, and no packet. */
#define TRIAL_NS (10 * NS_PER_S)

static bool is_bad(const struct datapath_trial *t)
{
	return t->result == DATAPATH_TRIAL_UNTOUCHED || t->result == DATAPATH_TRIAL_ELSEWHERE;
}

static bool any_bad(const struct datapath_trial *trials, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		if (is_bad(&trials[i]))
			return true;
	return false;
}

/* What was last found about the frontend; NULL: nothing. */
static const struct datapath_trial *find_trial(const struct agent_trials *t,
					       const struct klb_endpoint *frontend)
{
	for (unsigned int i = 0; i < t->n; i++)
		if (endpoint_equal(&t->at[i].frontend, frontend))
			return &t->at[i];
	return NULL;
}

static void log_trial(const struct datapath_trial *t, const struct datapath_trial *before)
{
	char text[DATAPATH_TRIAL_TEXT], frontend[ENDPOINT_TEXT_MAX];
	bool was_bad = before && is_bad(before);

	endpoint_format(&t->frontend, frontend);
	if (is_bad(t) &&
	    (!before || before->result != t->result || !endpoint_equal(&before->found, &t->found)))
		log_event(LOG_LEVEL_ERROR,
			  "connects to a frontend do not end where KubeLB sends them",
			  "frontend=%s found=%s", frontend,
			  log_quoted(datapath_trial_text(t, text)));
	else if (t->result == DATAPATH_TRIAL_BALANCED && was_bad)
		log_event(LOG_LEVEL_INFO, "connects to the frontend end at a backend again",
			  "frontend=%s", frontend);
	else if (t->result == DATAPATH_TRIAL_NOT_MADE &&
		 (!before || before->result != t->result || strcmp(before->why, t->why) != 0))
		log_event(LOG_LEVEL_INFO, "where connects to the frontend end is not checked",
			  "frontend=%s why=%s", frontend, log_quoted(t->why));
}

static bool is_listed(const struct agent_trials *t, const struct datapath_other *o)
{
	for (int i = 0; i < t->n_others; i++)
		if (t->others[i].prog_id == o->prog_id && t->others[i].hook == o->hook)
			return true;
	return false;
}

static void log_other(const struct datapath_other *o)
{
	log_event(LOG_LEVEL_INFO, "another program sees the same connects",
		  "hook=%s program_id=%u name=%s runs=%s", datapath_hook_name(o->hook), o->prog_id,
		  log_quoted(o->name), o->before ? "before" : "after");
}

/* Takes the new results, and logs what differs from the old ones. */
static void take(struct agent *a, const struct agent_trials *found)
{
	for (unsigned int i = 0; i < found->n; i++)
		log_trial(&found->at[i], find_trial(&a->trials, &found->at[i].frontend));
	for (int i = 0; i < found->n_others; i++)
		if (!is_listed(&a->trials, &found->others[i]))
			log_other(&found->others[i]);
	a->trials = *found;
}

/* Returns false if there is nothing to try, or links run nothing. */
static bool make_trials(struct agent *a, struct agent_trials *ret)
{
	struct datapath_link links[METRICS_LINKS];
	int n = datapath_links(a->options->pin_dir, links, METRICS_LINKS, NULL);

	memset(ret, 0, sizeof(*ret));
	if (n < 0 || !agent_check_links(a, links, n))
		return false;
	ret->n = datapath_try_frontends(a->dp, a->state, links, n, false, ret->at,
					KLB_MAX_FRONTENDS);
	ret->n_others = datapath_others(links, n, false, ret->others, AGENT_OTHERS_MAX);
	return true;
}

void agent_check_trials(struct agent *a)
{
	__u64 now = clock_now_ns();
	struct agent_trials found;
	bool bad;

	if (now < a->trials_due_ns && a->trials_serial == a->state->applied.serial)
		return;
	if (!make_trials(a, &found)) {
		a->trials_due_ns = now + NS_PER_S;
		return;
	}
	bad = any_bad(found.at, found.n);
	a->trials_serial = a->state->applied.serial;
	a->trials_due_ns = now + TRIAL_NS;
	/* A kubelb-load may be at work: two in a row count. */
	if (bad && !a->trials_doubtful && !any_bad(a->trials.at, a->trials.n)) {
		a->trials_doubtful = true;
		a->trials_due_ns = now;
		return;
	}
	a->trials_doubtful = false;
	take(a, &found);
}

bool agent_is_overruled(const struct agent *a)
{
	return any_bad(a->trials.at, a->trials.n);
}
