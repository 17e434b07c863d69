/* SPDX-License-Identifier: BSD-2-Clause */
/* Puts into force what discovery finds, and decides whether the seeds are used beside it. */
#include "agent/internal.h"

#include <errno.h>
#include <string.h>

#include "balance/plausible.h"
#include "base/clock.h"

/* The number of the file's backends that discovery has not found. */
static unsigned int count_seeds(const struct agent *a)
{
	struct klb_endpoint list[KLB_MAX_BACKENDS];

	return endpoint_source_with_seeds(a->file, a->found, a->n_found, list) - a->n_found;
}

/* Whether a found backend is alive. A suspect one does not count: it may be suspect for ever. */
static bool some_found_alive(const struct agent *a)
{
	for (unsigned int i = 0; i < a->n_found; i++) {
		const struct agent_backend *b =
			agent_backend_find(a->backends, a->config->n_backends, &a->found[i]);
		enum klb_state state = b ? agent_backend_health(b)->state : KLB_STATE_UNKNOWN;

		if (state == KLB_STATE_READY || state == KLB_STATE_DRAINING)
			return true;
	}
	return false;
}

/* The seeds would not help: only this node's own backends are used. */
static bool uses_local_alone(const struct agent *a)
{
	return a->file->local == KLB_LOCAL_ONLY && !a->local_missing_logged;
}

static enum endpoint_source_step review(struct agent *a)
{
	struct endpoint_source_facts facts = { .heard = a->heard,
					       .usable = some_found_alive(a) || uses_local_alone(a),
					       .has_seeds = count_seeds(a) > 0,
					       .interval_ms = a->file->probe.interval_ms,
					       .now_ns = clock_now_ns() };

	return endpoint_source_review(&a->source, &facts);
}

bool agent_uses_seeds(const struct agent *a)
{
	return a->heard && !a->source.list_alone && count_seeds(a) > 0;
}

/* Who comes and goes is said by name: agent_log_list_changes. */
static void note_heard(struct agent *a)
{
	if (!a->heard)
		log_event(LOG_LEVEL_INFO, "discovery has the cluster's list", "backends=%u",
			  a->n_said ? a->n_said : a->n_found);
	a->heard = true;
}

static void warn_rationed(struct agent *a)
{
	bool rationed = a->n_found < a->n_said;

	if (rationed && !a->rationed_logged)
		log_event(LOG_LEVEL_WARN,
			  "the cluster's list brings too many new addresses in a short time, the "
			  "others come one by one",
			  "listed=%u used=%u", a->n_said, a->n_found);
	a->rationed_logged = rationed;
}

/* Fills a->found with what may be used of what the cluster says. Returns whether it has changed. */
static bool admit(struct agent *a)
{
	struct klb_endpoint list[KLB_MAX_BACKENDS];
	bool known[KLB_MAX_BACKENDS];
	unsigned int n;

	for (unsigned int i = 0; i < a->n_said; i++)
		known[i] = plan_find(&a->state->applied, &a->said[i]) ||
			   config_has_backend(a->config, &a->said[i]) ||
			   config_has_backend(a->file, &a->said[i]);
	n = plausible_admit(&a->fresh, a->said, known, a->n_said, clock_now_ns(), list);
	/* As with an empty list: the last one stays. */
	if (!n || (n == a->n_found && !memcmp(list, a->found, n * sizeof(list[0]))))
		return false;
	memcpy(a->found, list, n * sizeof(list[0]));
	a->n_found = n;
	return true;
}

/* Puts what the cluster says into force, as far as that may be. */
static void take_said(struct agent *a)
{
	struct err e = { "" };
	bool changed = admit(a);

	warn_rationed(a);
	if (!changed)
		return;
	/*
	 * If a known backend is in the list, the seeds are dropped at once. If none is, nothing
	 * shows that the list is right, and they count until one of it is usable.
	 */
	if (some_found_alive(a))
		review(a);
	else
		a->source = (struct endpoint_source){ 0 };
	if (agent_take_effective(a, a->file, a->tls, &e)) {
		log_event(LOG_LEVEL_ERROR, "cannot take the discovered backends", "error=%s",
			  log_quoted(e.text));
		return;
	}
	agent_apply(a);
}

void agent_review_list(struct agent *a)
{
	struct endpoint_source before = a->source;
	enum endpoint_source_step step;
	struct err e = { "" };

	if (!a->file->discovery || !a->n_found)
		return;
	if (a->rationed_logged)
		take_said(a);
	step = review(a);
	if (step == ENDPOINT_SOURCE_UNCHANGED)
		return;
	if (agent_take_effective(a, a->file, a->tls, &e)) {
		a->source = before; /* Tried again with the next tick. */
		log_event(LOG_LEVEL_ERROR, "cannot take the discovered backends", "error=%s",
			  log_quoted(e.text));
		return;
	}
	if (step == ENDPOINT_SOURCE_ADD_SEEDS)
		log_event(LOG_LEVEL_WARN,
			  "none of the cluster's apiservers takes connections, the "
			  "configuration's own backends count beside them",
			  "listed=%u seeds=%u", a->n_found, count_seeds(a));
	else
		log_event(LOG_LEVEL_INFO, "the cluster's apiservers alone count", "backends=%u",
			  a->n_found);
	agent_apply(a);
}

static void on_discovered(void *arg, const struct klb_endpoint *list, unsigned int n)
{
	struct agent *a = arg;

	memcpy(a->said, list, n * sizeof(*list));
	a->n_said = n;
	note_heard(a);
	take_said(a);
}

/* Logs the start and the end of a failure, each once. */
static void on_discovery_result(void *arg, enum discovery_result result, const char *detail)
{
	struct agent *a = arg;
	bool failed = result >= DISCOVERY_FORBIDDEN;

	a->discovery_results[result]++;
	if (result == DISCOVERY_APPLIED || result == DISCOVERY_UNCHANGED)
		note_heard(a);
	if (failed != a->discovery_failed)
		log_event(failed ? LOG_LEVEL_WARN : LOG_LEVEL_INFO,
			  failed ? "discovery does not work, the last list stays"
				 : "discovery works",
			  "result=%s detail=%s", discovery_result_name(result), log_quoted(detail));
	else
		log_event(LOG_LEVEL_DEBUG, "discovery", "result=%s detail=%s",
			  discovery_result_name(result), log_quoted(detail));
	a->discovery_failed = failed;
}

static void on_discovery_warning(void *arg, const char *text)
{

	(void)arg;
	log_event(LOG_LEVEL_WARN, "discovery", "warning=%s", log_quoted(text));
}

int agent_start_discovery(struct agent *a, struct err *e)
{
	static const struct discovery_ops ops = { .updated = on_discovered,
						  .result = on_discovery_result,
						  .warning = on_discovery_warning };
	struct klb_endpoint frontends[KLB_MAX_FRONTENDS];
	struct discovery_options o = {
		.kubeconfig = a->file->discovery_kubeconfig,
		.cache = a->file->discovery_cache,
		.server = &frontends[0],
		.frontends = frontends,
		.n_frontends = a->file->n_frontends,
		.initial = a->found,
		.n_initial = a->n_found,
		.pace = &discovery_pace_default,
	};
	int r;

	discovery_free(a->discovery);
	a->discovery = NULL;
	if (!a->file->discovery)
		return 0;
	for (unsigned int i = 0; i < a->file->n_frontends; i++)
		frontends[i] = a->file->frontends[i].endpoint;
	r = discovery_new(a->base, &o, &ops, a, &a->discovery, e);
	if (!r)
		discovery_start(a->discovery);
	return r;
}

/* The states of the agent before are void soon after, so the cache is not worth more. */
#define CACHE_WAIT_MS 1000

/*
 * A list from an earlier time is better than none, or than only the seeds, which may be years old.
 * If an agent was alive until now, it had the list from the cluster, so the list alone is used.
 */
void agent_read_cache(struct agent *a, const struct config *file)
{
	struct err e = { "" };
	int r = discovery_cached_list_within(CACHE_WAIT_MS, file, a->found, &a->n_found, &e);

	a->source.list_alone =
		a->n_found && endpoint_source_is_cluster(&a->state->control, clock_now_ns());
	if (r && r != -ENOENT)
		log_event(LOG_LEVEL_WARN, "the cache of discovery is not used", "error=%s",
			  log_quoted(e.text));
}
