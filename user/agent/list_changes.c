/* SPDX-License-Identifier: BSD-2-Clause */
/* Says by name which backends leave the list, and which come or come back. */
#include "agent/internal.h"

#include <stdio.h>

#include "balance/backend_status.h"
#include "base/clock.h"
#include "base/format.h"
#include "net/endpoint.h"

static void log_left(struct agent *a, const struct klb_endpoint *endpoint, bool cluster)
{
	bool listed = endpoint_is_in(a->listed, a->n_listed, endpoint);
	__u64 n = agent_open_connections(a, endpoint);
	char text[ENDPOINT_TEXT_MAX];
	const char *what = cluster && listed		  ? "backend has left the cluster's list"
			   : cluster			  ? "backend is not in the cluster's list"
			   : a->file->discovery && listed ? "backend is not in the configuration"
							  : "backend has left the configuration";

	log_event(LOG_LEVEL_INFO, what, "backend=%s connections=%llu watched=%s",
		  endpoint_format(endpoint, text), n, n ? "yes" : "no");
}

/* What the operator has set, which still applies. */
static const char *describe_admin(const struct agent *a, const struct klb_endpoint *endpoint,
				  char ret[64])
{
	const struct plan_backend *b = plan_find(&a->state->applied, endpoint);
	const struct klb_admin none = { 0 };
	const struct klb_admin *admin = b ? backend_status_admin(a->state, b) : &none;
	int used = snprintf(ret, 64, "%s", admin->drained ? " drained=yes" : "");

	if (admin->weight_set)
		snprintf(ret + used, 64 - (size_t)used, " weight=%u", admin->weight);
	return ret;
}

static void log_came(const struct agent *a, const struct klb_endpoint *endpoint, bool cluster)
{
	bool found = cluster && endpoint_is_in(a->found, a->n_found, endpoint);
	__u64 left_ns = agent_left_ns(a, endpoint);
	char text[ENDPOINT_TEXT_MAX], away[FORMAT_TIME_MAX], admin[64];

	endpoint_format(endpoint, text);
	if (left_ns)
		log_event(LOG_LEVEL_INFO,
			  found	    ? "backend is back in the cluster's list"
			  : cluster ? "backend of the configuration is used again"
				    : "backend is back in the configuration",
			  "backend=%s after=%s%s", text, format_age(left_ns, clock_now_ns(), away),
			  describe_admin(a, endpoint, admin));
	else
		log_event(LOG_LEVEL_INFO,
			  found	    ? "backend is new in the cluster's list"
			  : cluster ? "backend of the configuration is used"
				    : "backend is new in the configuration",
			  "backend=%s", text);
}

/* A backend of this node stays when the cluster lists it no more; so does one that is a seed. */
static void log_stays(const struct agent *a, const struct klb_endpoint *endpoint)
{
	char text[ENDPOINT_TEXT_MAX];

	if (endpoint_is_in(a->listed, a->n_listed, endpoint) &&
	    !endpoint_is_in(a->found, a->n_found, endpoint))
		log_event(LOG_LEVEL_INFO, "backend has left the cluster's list and stays in use",
			  "backend=%s", endpoint_format(endpoint, text));
}

/* As many of each kind are named in one change; a hostile list has dozens in each. */
#define NAMED_MAX 8

static void log_rest(const char *what, unsigned int n)
{
	if (n > NAMED_MAX)
		log_event(LOG_LEVEL_INFO, what, "backends=%u", n - NAMED_MAX);
}

void agent_log_list_changes(struct agent *a, const struct config *now, bool cluster)
{
	unsigned int left = 0, came = 0;

	/* The operator's settings change without a notification. */
	if (a->dp)
		datapath_read_admin(a->dp, a->state->admin, NULL);
	for (unsigned int i = 0; i < a->config->n_backends; i++)
		if (!config_has_backend(now, &a->config->backends[i].endpoint) &&
		    left++ < NAMED_MAX)
			log_left(a, &a->config->backends[i].endpoint, cluster);
	for (unsigned int i = 0; i < now->n_backends; i++)
		if (config_has_backend(a->config, &now->backends[i].endpoint)) {
			if (cluster)
				log_stays(a, &now->backends[i].endpoint);
		} else if (came++ < NAMED_MAX) {
			log_came(a, &now->backends[i].endpoint, cluster);
		}
	log_rest("further backends have left the list", left);
	log_rest("further backends have come into the list", came);
}
