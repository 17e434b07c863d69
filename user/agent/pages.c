/* SPDX-License-Identifier: BSD-2-Clause */
/* Serves the agent's own pages, and takes the operator's orders. */
#include "agent/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/metrics.h"
#include "balance/backend_status.h"
#include "base/clock.h"
#include "base/log_queue.h"
#include "host/port_owner.h"
#include "net/endpoint.h"
#include "net/http_server.h"

/* The wait before listening on the http address is tried again. */
#define HTTP_RETRY_NS (10 * NS_PER_S)

/* What is read of the data path. buf: room for it. */
static void fill_datapath(struct agent *a, struct metrics_input *in, struct datapath_state *buf,
			  struct datapath_feature *features)
{
	in->state = agent_read_state(a, buf);
	in->relaying = a->path.relaying;
	in->trials = a->trials.at;
	in->n_trials = a->dp ? a->trials.n : 0;
	in->others = a->trials.others;
	in->n_others = a->dp ? a->trials.n_others : -ENOENT;
	in->features = features;
	if (in->state && a->dp)
		in->n_features = agent_features(a, &in->state->control, features);
}

static char *on_metrics(void *arg, size_t *ret_length)
{
	struct agent *a = arg;
	struct metrics_probe probes[KLB_MAX_BACKENDS];
	struct metrics_input in = {
		.probes = probes,
		.n_probes = a->config->n_backends,
		.now_ns = clock_now_ns(),
		.wall_ns = clock_wall_ns(),
		.reloads_ok = a->reloads_ok,
		.reloads_failed = a->reloads_failed,
		.discovery_results = a->discovery ? a->discovery_results : NULL,
		.log_dropped = log_queue_dropped(),
		.start_time = a->start_time,
		.reload_time = a->reload_time,
		.reload_refused = a->reload_refused,
		.own_expires_s = a->tls ? probe_tls_expires_s(a->tls) : 0,
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
	fill_datapath(a, &in, state, features);
	agent_relay_metrics(a, &in);
	text = metrics_format(&in, ret_length);
	free(state);
	return text;
}

const char *agent_not_ready(const struct agent *a)
{
	if (a->path.relaying)
		return agent_not_listening(a);
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

/* --- pages that are written to a stream --- */

typedef unsigned int (*write_fn)(struct agent *a, const char *path, FILE *to);

static unsigned int make(struct agent *a, const char *path, write_fn write, struct http_text *ret)
{
	FILE *to = open_memstream(&ret->text, &ret->length);
	size_t length = strlen(path);
	unsigned int status;

	if (!to)
		return 503;
	status = write(a, path, to);
	if (status == 200 && length > 5 && !strcmp(path + length - 5, ".json"))
		ret->type = "application/json";
	if (!fclose(to) && status != 404)
		return status;
	free(ret->text);
	ret->text = NULL;
	return status;
}

static unsigned int write_public(struct agent *a, const char *path, FILE *to)
{
	return agent_write_page(a, path, false, to);
}

static unsigned int write_private(struct agent *a, const char *path, FILE *to)
{
	return agent_write_page(a, path, true, to);
}

static unsigned int on_page(void *arg, const char *path, struct http_text *ret)
{
	return strcmp(path, "/") ? make(arg, path, write_public, ret) : agent_show_page(ret);
}

static unsigned int on_private_page(void *arg, const char *path, struct http_text *ret)
{
	return strcmp(path, "/") ? make(arg, path, write_private, ret) : agent_show_page(ret);
}

static unsigned int on_order(void *arg, const char *path, struct http_text *ret)
{
	return make(arg, path, agent_take_order, ret);
}

/* --- where ----------------------------------------------------------------------------- */

/* Returns false when the configuration does not want it there. */
static bool address_of(const struct config *c, int which, struct http_address *ret)
{
	*ret = (struct http_address){ .ip = c->http };
	if (which == AGENT_PAGES_IP)
		return c->http_enabled;
	ret->socket = c->http_socket;
	return c->http_socket;
}

/* While there are no maps, the operator's orders need a socket. */
static bool is_served(const struct agent *a, int which, struct http_address *ret)
{
	if (address_of(a->config, which, ret))
		return true;
	ret->socket = CONFIG_HTTP_SOCKET_DEFAULT;
	return which == AGENT_PAGES_SOCKET && a->path.relaying;
}

static bool is_same(const struct http_address *x, const struct http_address *y)
{
	if (x->socket && y->socket)
		return strcmp(x->socket, y->socket) == 0;
	return !x->socket && !y->socket && endpoint_equal(&x->ip, &y->ip);
}

void agent_close_http(struct agent *a, const struct config *cfg)
{
	struct http_address old, new;

	for (int i = 0; a->config && i < AGENT_PAGES; i++) {
		if (cfg && address_of(a->config, i, &old) && address_of(cfg, i, &new) &&
		    is_same(&old, &new))
			continue;
		http_free(a->pages[i].http);
		a->pages[i] = (struct agent_pages){ .http = NULL };
	}
}

/* Whoever listens there answers the probes in the agent's place. */
static void explain_taken(const struct http_address *at, struct err *e)
{
	char name[PORT_OWNER_MAX], text[ENDPOINT_TEXT_MAX];
	struct port_owner who;

	if (at->socket || !port_owner_find(&at->ip, &who))
		return;
	err_set(e, EADDRINUSE,
		"http: %s listens on %s: /metrics and /healthz there are not this agent's; end "
		"that, or choose another address",
		port_owner_name(&who, name), endpoint_format(&at->ip, text));
}

static void listen_at(struct agent *a, int which, const struct http_address *at)
{
	static const struct http_ops ops[] = {
		[AGENT_PAGES_IP] = { .metrics = on_metrics,
				     .not_ready = not_ready_text,
				     .page = on_page },
		[AGENT_PAGES_SOCKET] = { .metrics = on_metrics,
					 .not_ready = not_ready_text,
					 .page = on_private_page,
					 .order = on_order },
	};
	struct agent_pages *p = &a->pages[which];
	struct err e = { "" };
	int r = http_new(a->base, at, &ops[which], a, &p->http, &e);

	if (r == -EADDRINUSE)
		explain_taken(at, &e);
	if (r)
		p->retry_ns = clock_now_ns() + HTTP_RETRY_NS;
	else if (p->error[0])
		log_event(LOG_LEVEL_INFO, "metrics are served again", "");
	if (at->socket && !a->config->http_socket)
		log_failure(p->error, LOG_LEVEL_WARN, "kubelbctl can give no orders for now", &e);
	else
		log_failure(p->error, LOG_LEVEL_WARN, "no metrics for now", &e);
}

/*
 * Balancing works without http, so a port that is in use is a warning, and listening is tried
 * again.
 */
void agent_listen_http(struct agent *a)
{
	struct http_address at;

	for (int i = 0; i < AGENT_PAGES; i++)
		if (!a->pages[i].http && is_served(a, i, &at) &&
		    clock_now_ns() >= a->pages[i].retry_ns)
			listen_at(a, i, &at);
}

const char *agent_http_missing(const struct agent *a)
{
	for (int i = 0; i < AGENT_PAGES; i++)
		if (a->pages[i].error[0])
			return a->pages[i].error;
	return NULL;
}
