/* SPDX-License-Identifier: BSD-2-Clause */
/* Serves the agent's own pages: /metrics, /healthz, /readyz. */
#include "agent/internal.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/metrics.h"
#include "balance/backend_status.h"
#include "base/clock.h"
#include "net/http_server.h"

/* The wait before listening on the http address is tried again. */
#define HTTP_RETRY_NS (10 * NS_PER_S)

static char *on_metrics(void *arg, size_t *ret_length)
{
	struct agent *a = arg;
	struct metrics_probe probes[KLB_MAX_BACKENDS];
	struct metrics_input in = {
		.probes = probes,
		.n_probes = a->config->n_backends,
		.now_ns = clock_now_ns(),
		.reloads_ok = a->reloads_ok,
		.reloads_failed = a->reloads_failed,
		.discovery_results = a->discovery ? a->discovery_results : NULL,
		.start_time = a->start_time,
	};
	struct datapath_state *state = malloc(sizeof(*state));
	struct datapath_link links[METRICS_LINKS];
	int n_links = datapath_links(a->options->pin_dir, links, METRICS_LINKS, NULL);
	struct datapath_feature features[DATAPATH_FEATURES_MAX];
	char *text;

	/* Without an attachment there are no links. */
	in.links = links;
	in.n_links = n_links > 0 ? (unsigned int)n_links : 0;
	for (unsigned int i = 0; i < a->config->n_backends; i++)
		probes[i] = *agent_backend_metrics(a->backends[i]);
	if (state && a->dp && !datapath_read(a->dp, state, NULL))
		in.state = state;
	in.trials = a->trials.at;
	in.n_trials = a->dp ? a->trials.n : 0;
	in.others = a->trials.others;
	in.n_others = a->dp ? a->trials.n_others : -ENOENT;
	in.features = features;
	if (in.state)
		in.n_features = agent_features(a, &state->control, features);
	text = metrics_format(&in, ret_length);
	free(state);
	return text;
}

const char *agent_not_ready(const struct agent *a)
{
	if (!a->dp && a->short_of)
		return "the data path cannot be opened for now: see the log";
	if (!a->dp)
		return "nothing is attached: run kubelb-load";
	if (!backend_status_agent_alive(&a->state->control, clock_now_ns()))
		return "the heartbeat cannot be written";
	if (a->other_netns)
		return "the data path belongs to another network namespace: run kubelb-load in "
		       "this one";
	if (agent_is_overruled(a))
		return "connects do not end where KubeLB sends them: see kubelbctl status";
	return NULL;
}

static const char *not_ready_text(void *arg)
{
	return agent_not_ready(arg);
}

/*
 * Balancing works without http, so a port that is in use is a warning, and listening is tried
 * again.
 */
void agent_listen_http(struct agent *a)
{
	static const struct http_ops ops = { .metrics = on_metrics, .not_ready = not_ready_text };
	struct err e = { "" };

	if (a->http || !a->config->http_enabled || clock_now_ns() < a->http_retry_ns)
		return;
	if (http_new(a->base, &a->config->http, &ops, a, &a->http, &e))
		a->http_retry_ns = clock_now_ns() + HTTP_RETRY_NS;
	else if (a->http_error[0])
		log_event(LOG_LEVEL_INFO, "metrics are served again", "");
	log_failure(a->http_error, LOG_LEVEL_WARN, "no metrics for now", &e);
}
