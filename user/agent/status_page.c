/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The status page, and what it shows: /status and /status.json are what kubelbctl status prints.
 * Also /connections.
 */
#include "agent/relay_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "base/clock.h"
#include "ctl/connections.h"
#include "ctl/status.h"

/* --- status -------------------------------------------------------------------------- */

/* What a page shows, read for it. */
struct shown {
	struct datapath_state state;
	struct datapath_link links[METRICS_LINKS];
	struct datapath_feature features[DATAPATH_FEATURES_MAX];
	struct decides decides;
	struct status_relay relay;
	struct running running;
	struct status_certificates certificates;
};

static void show_relay(const struct agent *a, struct status_relay *ret)
{
	snprintf(ret->why, sizeof(ret->why), "%s", agent_relaying_reason(a));
	ret->n = a->path.n_listeners;
	for (unsigned int i = 0; i < ret->n; i++) {
		const struct agent_listener *l = &a->path.listeners[i];

		ret->at[i].frontend = l->frontend.endpoint;
		snprintf(ret->at[i].error, sizeof(ret->at[i].error), "%s",
			 l->listener		  ? ""
			 : a->path.relay_error[0] ? a->path.relay_error
						  : l->error);
	}
}

/* The agent's own test connects; kubelbctl makes others. */
static void show_decides(const struct agent *a, struct decides *ret)
{
	memcpy(ret->trials, a->trials.at, sizeof(ret->trials));
	ret->n_trials = a->trials.n;
	ret->n_others = a->trials.n_others;
	for (int i = 0; i < a->trials.n_others && i < AGENT_OTHERS_MAX; i++)
		ret->others[i] = a->trials.others[i];
}

/* Why a file is refused may name others, and not everybody may know those. */
static void show_running(const struct agent *a, bool private, struct running *ret)
{
	const char *error = !a->reload_refused ? ""
			    : private	       ? a->reload_error
				      : "the agent's log says why (journalctl -u kubelb-agent)";

	*ret = (struct running){ .agent = KLB_VERSION };
	running_set_file(ret, a->options->config_path,
			 a->file && !a->reload_refused ? &a->file->source_seen : NULL, error);
}

static void show_certificates(const struct agent *a, const struct plan *p,
			      struct status_certificates *ret)
{
	ret->own = a->tls ? probe_tls_expires_s(a->tls) : 0;
	ret->wall_ns = clock_wall_ns();
	for (unsigned int i = 0; i < a->config->n_backends; i++) {
		const struct metrics_probe *m = agent_backend_metrics(a->backends[i]);
		const struct plan_backend *b = plan_find_used(p, &m->backend);

		if (b)
			ret->backends[b->id] = m->certificate_expires_s;
	}
}

static int read_shown(struct agent *a, struct shown *ret, struct status *st, struct err *e)
{
	int r = 0;

	st->state = &ret->state;
	st->links = ret->links;
	st->features = ret->features;
	st->decides = &ret->decides;
	st->running = &ret->running;
	st->pin_dir = a->options->pin_dir;
	st->certificates = &ret->certificates;
	st->now_ns = clock_now_ns();
	if (a->path.relaying) {
		agent_read_relayed(a);
		ret->state = *a->state;
		show_relay(a, &ret->relay);
		st->relay = &ret->relay;
		return 0;
	}
	if (!a->dp)
		return err_set(e, ENOENT, "%s: nothing is attached; run kubelb-load",
			       a->options->pin_dir);
	r = datapath_read(a->dp, &ret->state, e);
	if (!r)
		r = st->n_links = datapath_links(a->options->pin_dir, ret->links, METRICS_LINKS, e);
	if (r < 0)
		return r;
	st->n_features = agent_features(a, &ret->state.control, ret->features);
	show_decides(a, &ret->decides);
	return 0;
}

enum format { FORMAT_TEXT, FORMAT_WIDE, FORMAT_JSON };

static unsigned int write_status(struct agent *a, enum format format, bool private, FILE *to)
{
	struct shown *shown = calloc(1, sizeof(*shown));
	struct status st = { .wide = format == FORMAT_WIDE };
	bool json = format == FORMAT_JSON;
	struct err e = { "" };
	int r;

	if (shown)
		show_running(a, private, &shown->running);
	r = shown ? read_shown(a, shown, &st, &e) : err_no_memory(&e);

	if (!r)
		show_certificates(a, &shown->state.applied, &shown->certificates);
	if (!r)
		r = json ? status_print_json(&st, false, to) : status_print_text(&st, to);
	else
		fprintf(to, "%s\n", e.text);
	free(shown);
	return r ? 503 : 200;
}

/* --- connections --------------------------------------------------------------------- */

static unsigned int write_connections(struct agent *a, bool json, FILE *to)
{
	struct klb_connection *list = NULL;
	unsigned int n = 0;
	int r;

	if (!a->path.relaying) {
		fputs("the kernel is the data path: kubelbctl connections lists them\n", to);
		return 503;
	}
	r = agent_list_relayed(a, &list, &n);
	if (!r)
		n = connections_keep(list, n);
	if (!r && json)
		r = connections_print_json(list, n, 0, clock_now_ns(), to);
	else if (!r)
		r = connections_print_text(list, n, 0, clock_now_ns(), to);
	free(list);
	return r ? 503 : 200;
}

/* --- events -------------------------------------------------------------------------- */

/* "", ".json", "/N", "/N.json": with N, those from number N on, after the next one's number. */
static unsigned int write_events(struct agent *a, const char *rest, FILE *to)
{
	bool numbered = *rest == '/', json;
	__u64 first = 0;
	char *end;

	if (numbered) {
		first = strtoull(rest + 1, &end, 10);
		rest = end;
	}
	json = !strcmp(rest, ".json");
	if (*rest && !json)
		return 404;
	if (!a->path.relaying || !a->relay) {
		fputs("the kernel is the data path: kubelbctl events has what it reports\n", to);
		return 503;
	}
	agent_note_events(a);
	return relay_events_write(a->relay->events, numbered, first, json, to) ? 503 : 200;
}

/* --- paths --------------------------------------------------------------------------- */

#define EVENTS "/events"

unsigned int agent_write_page(struct agent *a, const char *path, bool private, FILE *to)
{
	if (!strcmp(path, "/status"))
		return write_status(a, FORMAT_TEXT, private, to);
	if (!strcmp(path, "/status/wide"))
		return write_status(a, FORMAT_WIDE, private, to);
	if (!strcmp(path, "/status.json"))
		return write_status(a, FORMAT_JSON, private, to);
	if (!strcmp(path, "/history.json"))
		return agent_write_history(a, to);
	if (private && !strcmp(path, "/connections"))
		return write_connections(a, false, to);
	if (private && !strcmp(path, "/connections.json"))
		return write_connections(a, true, to);
	if (private && !strncmp(path, EVENTS, strlen(EVENTS)))
		return write_events(a, path + strlen(EVENTS), to);
	return 404;
}
