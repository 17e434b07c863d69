/* SPDX-License-Identifier: BSD-2-Clause */
/* Takes what `status` shows, from the maps or, where there are none, from the agent. */
#include "ctl/take.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "balance/backend_status.h"
#include "base/cli.h"
#include "base/clock.h"
#include "config/config.h"
#include "ctl/ask.h"
#include "host/node.h"

/* For a command that looks each second. */
#define KEEP_NS (3 * NS_PER_S)
#define LINKS_MAX 16

struct taken {
	struct datapath *dp;
	struct datapath_state state;
	struct datapath_feature features[DATAPATH_FEATURES_MAX];
	struct datapath_link links[LINKS_MAX];
	struct err http;
	struct status st;
};

/* What the agent says of its configuration and its version. Without an answer nothing is known. */
static void ask_running(const struct config *cfg, struct running *r)
{
	struct ask_body body = { 0 };
	struct err unasked;
	json_t *document;

	if (ask_body(cfg, ASK_PAGE, "/status.json", &body, &unasked))
		return;
	document = json_loadb(body.text, body.length, 0, NULL);
	if (document)
		running_from_json(r, document);
	json_decref(document);
	free(body.text);
}

/* Reads the configuration, and asks the agent that it leads to. */
static void take_configuration(const struct ctl_options *o, struct taken *t, struct running *r)
{
	const char *file = o->config_path ? o->config_path : CONFIG_PATH_DEFAULT;
	__u64 now_ns = t->st.now_ns;
	struct config *cfg = NULL;
	struct err e = { "" };

	config_load(file, node_has_ipv6(), &cfg, &e);
	if (cfg && ask_finds_impostor(cfg, t->http.text))
		t->st.http = t->http.text;
	if (!r->taken_ns || now_ns >= r->taken_ns + KEEP_NS) {
		*r = (struct running){ .ctl = KLB_VERSION, .taken_ns = now_ns };
		datapath_version(o->pin_dir, r->programs);
		running_look(r, file, e.text, &t->state, now_ns);
		if (cfg && backend_status_agent_alive(&t->state.control, now_ns))
			ask_running(cfg, r);
	}
	config_free(cfg);
}

static int take(const struct ctl_options *o, struct take_memory *memory, unsigned int wait_ms,
		struct taken *t, struct err *e)
{
	struct status *st = &t->st;
	int r = ctl_open_within(o->pin_dir, wait_ms, &t->dp, &t->state, e);

	*st = (struct status){ .state = &t->state,
			       .links = t->links,
			       .features = t->features,
			       .decides = &memory->decides,
			       .running = &memory->running,
			       .pin_dir = o->pin_dir,
			       .wide = o->wide };
	if (!r)
		st->n_links = r = datapath_links(o->pin_dir, t->links, LINKS_MAX, e);
	if (r < 0)
		return r;
	ctl_log_links(t->links, r);
	st->n_features = datapath_features_in_force(t->dp, &t->state.control, t->features,
						    DATAPATH_FEATURES_MAX);
	st->now_ns = clock_now_ns();
	take_configuration(o, t, &memory->running);
	datapath_lock_holder(o->pin_dir, &st->lock);
	decides_take(&memory->decides, t->dp, &t->state, t->links, st->n_links, st->now_ns);
	return 0;
}

static void drop(struct taken *t)
{
	if (t)
		datapath_close(t->dp);
	free(t);
}

/* As take_text, of what the agent relays; 1: it does not. */
static int relayed_text(const struct ctl_options *o, FILE *to, struct err *e)
{
	struct ask_body body = { 0 };
	int r = o->wide ? ctl_relayed_ask(o, ASK_PAGE, "/status/wide", &body, e) : 1;

	/* An older agent has no wide one. */
	if (r > 0)
		r = ctl_relayed_ask(o, ASK_PAGE, "/status", &body, e);
	if (!r)
		fwrite(body.text, 1, body.length, to);
	free(body.text);
	return r;
}

/* As take_json; 1: the agent does not relay. */
static int relayed_json(const struct ctl_options *o, json_t **ret, struct err *e)
{
	struct ask_body body = { 0 };
	int r = ctl_relayed_ask(o, ASK_PAGE, "/status.json", &body, e);

	if (r)
		return r;
	*ret = json_loadb(body.text, body.length, 0, NULL);
	free(body.text);
	return *ret ? 0 : err_set(e, EPROTO, "the agent's answer is no JSON");
}

int take_text(const struct ctl_options *o, struct take_memory *memory, FILE *to, struct err *e)
{
	struct taken *t = calloc(1, sizeof(*t));
	int r = t ? take(o, memory, DATAPATH_WAIT_MS, t, e) : err_no_memory(e);
	struct err refused;
	int relayed;

	if (!r && status_print_text(&t->st, to))
		r = err_no_memory(e);
	drop(t);
	relayed = r ? relayed_text(o, to, &refused) : 1;
	/* Why there are no maps decides about the number, whatever the agent answers. */
	if (relayed < 0)
		*e = refused;
	return relayed ? r : 0;
}

int take_json(const struct ctl_options *o, struct take_memory *memory, unsigned int wait_ms,
	      json_t **ret, struct err *e)
{
	struct taken *t = calloc(1, sizeof(*t));
	int r = t ? take(o, memory, wait_ms, t, e) : err_no_memory(e);
	struct err refused;
	int relayed;

	if (!r) {
		*ret = status_json(&t->st);
		r = *ret ? 0 : err_no_memory(e);
	}
	drop(t);
	relayed = r ? relayed_json(o, ret, &refused) : 1;
	/* Why there are no maps decides about the number, whatever the agent answers. */
	if (relayed < 0)
		*e = refused;
	return relayed ? r : 0;
}
