/* SPDX-License-Identifier: BSD-2-Clause */
/* Puts configurations into force: from the file, from discovery, and after changes of files. */
#include "agent/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "base/array.h"
#include "base/clock.h"
#include "net/endpoint.h"
#include "host/file_watch.h"
#include "net/http_server.h"
#include "base/log.h"
#include "host/node.h"
#include "balance/backend_status.h"

/* --- warnings ------------------------------------------------------------------------ */

static void warn_insecure(const struct config *cfg)
{
	if (cfg->probe.insecure_skip_verify)
		log_event(LOG_LEVEL_WARN,
			  "the backends' certificates are NOT verified: anybody who answers on a "
			  "backend's address counts as an apiserver",
			  "key=probe.insecureSkipVerify");
}

void agent_needs(const struct config *cfg, struct privileges_need *ret)
{
	*ret = (struct privileges_need){ .low_port = cfg->http_enabled && cfg->http.port < 1024 };
	for (unsigned int i = 0; i < cfg->n_frontends; i++)
		ret->pods |= cfg->frontends[i].scope == KLB_SCOPE_ALL;
}

/* Warns once for each: capabilities do not change while the agent runs. */
static void warn_about_privileges(struct agent *a)
{
	struct privileges_need need;

	agent_needs(a->file, &need);
	for (unsigned int i = 0; i < PRIVILEGES_FUNCTIONS; i++) {
		const char *text = privileges_missing(&need, i);

		if (text && !a->missing_logged[i])
			log_event(LOG_LEVEL_WARN, text, "");
		a->missing_logged[i] |= text != NULL;
	}
}

/* --- the tick ---------------------------------------------------------------------------- */

/* The longest interval of the heartbeat. It is shorter when probes are more frequent. */
#define HEARTBEAT_MS 1000
static unsigned int tick_ms(const struct agent *a)
{
	unsigned int interval = a->config->probe.interval_ms;

	return interval < HEARTBEAT_MS ? interval : HEARTBEAT_MS;
}

void agent_set_tick(struct agent *a)
{
	struct timeval tv = { .tv_sec = tick_ms(a) / 1000, .tv_usec = tick_ms(a) % 1000 * 1000 };

	event_add(a->tick, &tv);
}

/* --- the configuration in force ------------------------------------------------------ */

static bool same_text(const char *x, const char *y)
{
	return x == y || (x && y && !strcmp(x, y));
}

static bool same_frontends(const struct config *x, const struct config *y)
{
	return x->n_frontends == y->n_frontends &&
	       !memcmp(x->frontends, y->frontends, x->n_frontends * sizeof(x->frontends[0]));
}

/* Compares everything that probes depend on but the files, which probe_tls_is_same compares. */
static bool same_probe(const struct config *x, const struct config *y)
{
	const struct config_probe *p = &x->probe, *q = &y->probe;

	return same_frontends(x, y) && same_text(p->path, q->path) &&
	       same_text(p->live_path, q->live_path) && same_text(p->server_name, q->server_name) &&
	       p->interval_ms == q->interval_ms && p->timeout_ms == q->timeout_ms &&
	       p->connect_timeout_ms == q->connect_timeout_ms && p->rise == q->rise &&
	       p->fall == q->fall && p->anonymous_auth == q->anonymous_auth;
}

/*
 * Backends that stay keep their health over a reload. At start the health comes from the maps, if
 * the agent that wrote it was alive until now.
 */
static void inherit_health(const struct agent *a, const struct config_backend *cfg,
			   struct agent_backend *b, const struct agent_backend *before)
{
	const struct plan_backend *seen = plan_find(&a->state->applied, &cfg->endpoint);

	if (before)
		agent_backend_inherit(b, before);
	else if (seen && !a->config &&
		 backend_status_agent_alive(&a->state->control, clock_now_ns()))
		agent_backend_adopt(b, &seen->value, cfg->weight);
}

static void free_backends(struct agent_backend **list, unsigned int n)
{
	for (unsigned int i = 0; list && i < n; i++)
		agent_backend_free(list[i]);
	free(list);
}

void agent_stop_backends(struct agent *a)
{
	if (a->config)
		free_backends(a->backends, a->config->n_backends);
	a->backends = NULL;
}

/*
 * Makes the backends that are new or whose probe has changed. Leaves gaps in list for the others.
 */
static int make_backends(struct agent *a, const struct config *cfg, struct probe_tls *tls,
			 bool keep, struct agent_backend **list, struct err *e)
{
	static const struct agent_backend_ops ops = { .changed = agent_on_backend_changed,
						      .last_answer_ns = agent_on_last_answer };
	unsigned int n = a->config ? a->config->n_backends : 0;

	for (unsigned int i = 0; i < cfg->n_backends; i++) {
		const struct config_backend *one = &cfg->backends[i];
		const struct agent_backend *before =
			agent_backend_find(a->backends, n, &one->endpoint);
		int r;

		if (before && keep)
			continue;
		r = agent_backend_new(a->base, cfg, i, tls, &ops, a, &list[i], e);
		if (r)
			return r;
		inherit_health(a, one, list[i], before);
	}
	return 0;
}

/* Fills the gaps of list with the existing backends, and frees the rest. */
static void replace_backends(struct agent *a, const struct config *cfg, struct agent_backend **list)
{
	unsigned int n = a->config ? a->config->n_backends : 0;
	/*
	 * At start the state is unknown, so probe at once. Later all nodes may get the same change,
	 * so spread the probes.
	 */
	unsigned int within_ms = a->config ? cfg->probe.interval_ms : 0;

	for (unsigned int i = 0; i < cfg->n_backends; i++) {
		if (list[i]) {
			agent_backend_start(list[i], within_ms);
			continue;
		}
		for (unsigned int k = 0; k < n && !list[i]; k++) {
			if (!a->backends[k] ||
			    !endpoint_equal(&a->backends[k]->endpoint, &cfg->backends[i].endpoint))
				continue;
			list[i] = a->backends[k];
			a->backends[k] = NULL;
		}
	}
	agent_stop_backends(a);
	a->backends = list;
}

/*
 * Makes everything of the new configuration before it frees anything of the old one. Takes
 * ownership of cfg and tls on success. tls: a->tls, when the content of the files is the same.
 */
static int take_config(struct agent *a, struct config *cfg, struct probe_tls *tls, struct err *e)
{
	struct config *old = a->config;
	bool keep = old && tls == a->tls && same_probe(old, cfg);
	struct agent_backend **backends =
		calloc(cfg->n_backends + 1, sizeof(struct agent_backend *));
	int r;

	if (!backends)
		return err_no_memory(e);
	r = make_backends(a, cfg, tls, keep, backends, e);
	if (r) {
		free_backends(backends, cfg->n_backends);
		return r;
	}
	replace_backends(a, cfg, backends);
	if (tls != a->tls)
		probe_tls_free(a->tls);
	a->tls = tls;
	a->config = cfg;
	if (old &&
	    (old->http_enabled != cfg->http_enabled || !endpoint_equal(&old->http, &cfg->http))) {
		http_free(a->http);
		a->http = NULL;
		a->http_retry_ns = 0;
	}
	config_free(old);
	a->config_pending = true;
	warn_insecure(cfg);
	return 0;
}

static int take_effective(struct agent *a, const struct config *file, struct probe_tls *tls,
			  struct err *e)
{
	struct klb_endpoint list[KLB_MAX_BACKENDS];
	const struct klb_endpoint *counts = a->found;
	struct config *effective = NULL;
	unsigned int n = file->discovery ? a->n_found : 0;
	int r;

	if (n && !a->source.list_alone) {
		n = endpoint_source_with_seeds(file, a->found, n, list);
		counts = list;
	}
	r = config_with_backends(file, counts, n, &effective, e);

	if (!r)
		r = take_config(a, effective, tls, e);
	if (r)
		config_free(effective);
	return r;
}

/* --- the seeds ----------------------------------------------------------------------- */

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

static enum endpoint_source_step review(struct agent *a)
{
	struct endpoint_source_facts facts = { .heard = a->heard,
					       .usable = some_found_alive(a),
					       .has_seeds = count_seeds(a) > 0,
					       .interval_ms = a->file->probe.interval_ms,
					       .now_ns = clock_now_ns() };

	return endpoint_source_review(&a->source, &facts);
}

bool agent_uses_seeds(const struct agent *a)
{
	return a->heard && !a->source.list_alone && count_seeds(a) > 0;
}

void agent_review_list(struct agent *a)
{
	struct endpoint_source before = a->source;
	enum endpoint_source_step step;
	char quoted[ERR_TEXT_MAX + 64];
	struct err e = { "" };

	if (!a->file->discovery || !a->n_found)
		return;
	step = review(a);
	if (step == ENDPOINT_SOURCE_UNCHANGED)
		return;
	if (take_effective(a, a->file, a->tls, &e)) {
		a->source = before; /* Tried again with the next tick. */
		log_event(LOG_LEVEL_ERROR, "cannot take the discovered backends", "error=%s",
			  log_quote(quoted, sizeof(quoted), e.text));
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

/* --- discovery ----------------------------------------------------------------------- */

static void on_discovered(void *arg, const struct klb_endpoint *list, unsigned int n)
{
	struct agent *a = arg;
	char quoted[ERR_TEXT_MAX + 64];
	struct err e = { "" };

	memcpy(a->found, list, n * sizeof(*list));
	a->n_found = n;
	a->heard = true;
	log_event(LOG_LEVEL_INFO, "the cluster's apiservers are others now", "backends=%u", n);
	/* If a known backend is in the list, the seeds are dropped at once. */
	if (some_found_alive(a))
		review(a);
	if (take_effective(a, a->file, a->tls, &e)) {
		log_event(LOG_LEVEL_ERROR, "cannot take the discovered backends", "error=%s",
			  log_quote(quoted, sizeof(quoted), e.text));
		return;
	}
	agent_apply(a);
}

/* Logs the start and the end of a failure, each once. */
static void on_discovery_result(void *arg, enum discovery_result result, const char *detail)
{
	struct agent *a = arg;
	char quoted[ERR_TEXT_MAX + 64];
	bool failed = result >= DISCOVERY_FORBIDDEN;

	a->discovery_results[result]++;
	if (result == DISCOVERY_APPLIED || result == DISCOVERY_UNCHANGED)
		a->heard = true;
	if (failed != a->discovery_failed)
		log_event(failed ? LOG_LEVEL_WARN : LOG_LEVEL_INFO,
			  failed ? "discovery does not work, the last list stays"
				 : "discovery works",
			  "result=%s detail=%s", discovery_result_name(result),
			  log_quote(quoted, sizeof(quoted), detail));
	else
		log_event(LOG_LEVEL_DEBUG, "discovery", "result=%s detail=%s",
			  discovery_result_name(result), log_quote(quoted, sizeof(quoted), detail));
	a->discovery_failed = failed;
}

static void on_discovery_warning(void *arg, const char *text)
{
	char quoted[ERR_TEXT_MAX + 64];

	(void)arg;
	log_event(LOG_LEVEL_WARN, "discovery", "warning=%s",
		  log_quote(quoted, sizeof(quoted), text));
}

static int start_discovery(struct agent *a, struct err *e)
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

/*
 * A list from an earlier time is better than none, or than only the seeds, which may be years old.
 * If an agent was alive until now, it had the list from the cluster, so the list alone is used.
 */
void agent_read_cache(struct agent *a, const struct config *file)
{
	struct err e = { "" };
	char quoted[ERR_TEXT_MAX + 64];
	int r = discovery_cached_list(file, a->found, &a->n_found, &e);

	a->source.list_alone =
		a->n_found && endpoint_source_is_cluster(&a->state->control, clock_now_ns());
	if (r && r != -ENOENT)
		log_event(LOG_LEVEL_WARN, "the cache of discovery is not used", "error=%s",
			  log_quote(quoted, sizeof(quoted), e.text));
}

/* --- the file ------------------------------------------------------------------------ */

static void on_file_changed(void *arg)
{
	struct agent *a = arg;
	char file[512];

	log_event(LOG_LEVEL_INFO, "a file of the configuration has changed", "file=%s",
		  log_quote(file, sizeof(file), a->options->config_path));
	agent_reload(a);
}

/*
 * Watches the file and those that it names. c: the file as it was read, whether it is in force or
 * refused; what it lacks may be a file that comes a moment later. Without the watch SIGHUP still
 * works.
 */
static void watch_files(struct agent *a, const struct config *c)
{
	const struct filewatch_file files[] = {
		{ a->options->config_path, c->source_seen },
		{ c->probe.ca, c->probe.ca_seen },
		{ c->probe.client_cert, c->probe.client_cert_seen },
		{ c->probe.client_key, c->probe.client_key_seen },
	};
	struct filewatch *watch = NULL;
	char quoted[ERR_TEXT_MAX + 64];
	struct err e = { "" };

	if (filewatch_new(a->base, files, ARRAY_SIZE(files), on_file_changed, a, &watch, &e))
		log_event(LOG_LEVEL_WARN, "changes of files are not noticed, send SIGHUP after one",
			  "error=%s", log_quote(quoted, sizeof(quoted), e.text));
	/* The old watch still watches the configuration itself. */
	if (!watch)
		return;
	filewatch_free(a->watch);
	a->watch = watch;
}

static bool same_discovery(const struct config *x, const struct config *y)
{
	return x->discovery == y->discovery &&
	       same_text(x->discovery_kubeconfig, y->discovery_kubeconfig) &&
	       same_text(x->discovery_cache, y->discovery_cache) && same_frontends(x, y);
}

/* Loads what the file's probes need. Returns a->tls when it is the same. */
static int load_tls(const struct agent *a, const struct config *file, struct probe_tls **ret,
		    struct err *e)
{
	int r = probe_tls_new(&file->probe, ret, e);

	if (r || !a->tls || !probe_tls_is_same(a->tls, *ret))
		return r;
	probe_tls_free(*ret);
	*ret = a->tls;
	return 0;
}

/* Takes ownership of file on success. */
int agent_take_file(struct agent *a, struct config *file, struct err *e)
{
	struct config *old = a->file;
	struct probe_tls *tls = NULL;
	int r = load_tls(a, file, &tls, e);

	if (!r)
		r = take_effective(a, file, tls, e);
	if (r) {
		if (tls != a->tls)
			probe_tls_free(tls);
		if (old)
			watch_files(a, file);
		return r;
	}
	a->file = file;
	warn_about_privileges(a);
	watch_files(a, file);
	if (!old || !same_discovery(old, file))
		r = start_discovery(a, e);
	config_free(old);
	return r;
}

/* Reports an invalid configuration and keeps the old one. */
void agent_reload(struct agent *a)
{
	struct config *cfg = NULL;
	struct err e = { "" };
	char quoted[ERR_TEXT_MAX + 64];
	int r = config_load(a->options->config_path, node_has_ipv6(), &cfg, &e);

	if (!r)
		r = agent_take_file(a, cfg, &e);
	if (r) {
		if (cfg != a->file)
			config_free(cfg);
		a->reloads_failed++;
		a->reload_refused = true;
		log_event(LOG_LEVEL_ERROR, "configuration not reloaded, the old one stays",
			  "error=%s", log_quote(quoted, sizeof(quoted), e.text));
		return;
	}
	a->reloads_ok++;
	a->reload_refused = false;
	log_event(LOG_LEVEL_INFO, "configuration reloaded", "file=%s frontends=%u backends=%u",
		  log_quote(quoted, sizeof(quoted), a->options->config_path),
		  a->config->n_frontends, a->config->n_backends);
	agent_set_tick(a);
	agent_apply(a);
	agent_listen_http(a);
}
