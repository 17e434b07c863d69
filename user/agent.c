/* SPDX-License-Identifier: BSD-2-Clause */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>
#include <event2/util.h>

#include "agent_backend.h"
#include "audit.h"
#include "cli.h"
#include "datapath.h"
#include "endpoint.h"
#include "http.h"
#include "log.h"
#include "metrics.h"
#include "node.h"
#include "verdict.h"

/* A heartbeat this often, or as often as probes are made. */
#define HEARTBEAT_MS 1000
/* The kernel gives up on the agent after so many probe intervals. */
#define HEARTBEAT_INTERVALS 3
#define HEARTBEAT_AGE_MIN_MS 3000
#define HEARTBEAT_AGE_MAX_MS 60000
/* How often the counts are compared with the sockets, and how soon again when they differ. */
#define AUDIT_MS 30000
#define AUDIT_AGAIN_MS 1000
/* How often to try again to listen on the http address. */
#define HTTP_RETRY_NS 10000000000ULL

struct agent {
	const struct agent_options *options;
	struct event_base *base;
	struct config *config;
	struct probe_tls *tls;
	struct agent_backend *backends; /* by index of config->backends */
	struct datapath *dp; /* NULL: nothing is attached */
	struct datapath_state *state; /* as last read from or written to the maps */
	int agent_lock; /* held on the pins' links directory: one agent for each */
	struct http *http;
	__u64 http_retry_ns;
	struct event *tick, *hup, *term, *interrupt;
	struct event *audit_timer;
	struct audit audit;
	bool dirty; /* something to write that can wait for the tick */
	bool detached_logged;
	bool config_pending; /* the configuration has not reached the maps yet */
	__u64 reloads_ok, reloads_failed;
	double start_time;
};

/* --- the maps ---------------------------------------------------------------------- */

static unsigned int tick_ms(const struct agent *a)
{
	unsigned int interval = a->config->probe.interval_ms;

	return interval < HEARTBEAT_MS ? interval : HEARTBEAT_MS;
}

static __u64 heartbeat_max_age_ns(const struct agent *a)
{
	__u64 ms = (__u64)a->config->probe.interval_ms * HEARTBEAT_INTERVALS;

	/* The beat itself is never slower than HEARTBEAT_MS: with a long interval a dead
	 * agent is not believed for hours, with a short one a stall is no death. */
	if (ms < HEARTBEAT_AGE_MIN_MS)
		ms = HEARTBEAT_AGE_MIN_MS;
	if (ms > HEARTBEAT_AGE_MAX_MS)
		ms = HEARTBEAT_AGE_MAX_MS;
	return ms * 1000000ULL;
}

/*
 * One agent for each data path: two would overrule each other. The lock is on the
 * links directory (the pin directory's own is for whoever changes the maps) and goes
 * with the process, however it ends.
 */
static int lock_agent(const char *pin_dir, struct err *e)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/links", pin_dir);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_set(e, errno, "%s: %s", path, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		close(fd);
		return err_set(e, EBUSY, "%s: another kubelb-agent runs on it; end that one first",
			       pin_dir);
	}
	return fd;
}

static void drop_datapath(struct agent *a)
{
	datapath_close(a->dp);
	a->dp = NULL;
	if (a->agent_lock >= 0)
		close(a->agent_lock);
	a->agent_lock = -1;
}

static int open_datapath(struct agent *a, struct err *e)
{
	int r = datapath_open(a->options->pin_dir, &a->dp, e);

	if (r)
		return r;
	a->agent_lock = lock_agent(a->options->pin_dir, e);
	r = a->agent_lock < 0 ? a->agent_lock : datapath_read(a->dp, a->state, e);
	if (r)
		drop_datapath(a);
	return r;
}

static int make_plan(struct agent *a, bool new_config, struct plan *ret, struct err *e)
{
	struct health health[KLB_MAX_BACKENDS];
	__u64 active[KLB_MAX_IDS];
	bool local[KLB_MAX_BACKENDS];
	struct plan_input in = {
		.config = a->config,
		.health = health,
		.local = local,
		.applied = &a->state->applied,
		.active = active,
		.new_config = new_config,
		.node = node_identity(),
		.now_ns = node_now_ns(),
	};

	int r;

	/* Which ids are free is a question of now: connections come and go. */
	if (new_config) {
		r = datapath_read(a->dp, a->state, e);
		if (r)
			return r;
	}
	for (unsigned int i = 0; i < a->config->n_backends; i++)
		health[i] = *agent_backend_health(&a->backends[i]);
	for (int id = 0; id < KLB_MAX_IDS; id++)
		active[id] = a->state->stats[id].active + a->state->stats[id].connecting;
	node_is_local(a->config->backends, a->config->n_backends, local);
	return plan_make(&in, ret, e);
}

static void reopen(struct agent *a);

/* Writes what has changed. Whatever fails is tried again with the next tick. */
static void apply(struct agent *a)
{
	struct plan *p = malloc(sizeof(*p));
	__u64 based_on;
	struct err e = { "" };
	char quoted[ERR_TEXT_MAX + 64];
	int r;

	a->dirty = true;
	if (!p || !a->dp)
		goto out;
	r = make_plan(a, a->config_pending, p, &e);
	based_on = a->state->applied.serial;
	if (!r)
		r = datapath_apply(a->dp, based_on, p, &e);
	if (!r) {
		a->state->applied = *p;
		a->dirty = a->config_pending = false;
	} else if (r == -ESTALE) {
		reopen(a);
	} else if (r != -EBUSY) {
		log_event(LOG_LEVEL_ERROR, "cannot update the maps", "error=%s",
			  log_quote(quoted, sizeof(quoted), e.text));
	}
out:
	free(p);
}

/* Reads the maps anew after somebody else has changed or replaced them. */
static void reopen(struct agent *a)
{
	struct err e = { "" };
	char quoted[ERR_TEXT_MAX + 64];
	int r;

	drop_datapath(a);
	r = open_datapath(a, &e);
	if (!r) {
		log_event(LOG_LEVEL_INFO,
			  "data path changed by kubelb-load, applying the configuration",
			  "pin=%s serial=%u", a->options->pin_dir, a->state->applied.serial);
		a->detached_logged = false;
		a->config_pending = a->dirty = true;
		return;
	}
	if (!a->detached_logged)
		log_event(LOG_LEVEL_WARN, "no data path to work on, waiting for kubelb-load",
			  "pin=%s error=%s", a->options->pin_dir,
			  log_quote(quoted, sizeof(quoted), e.text));
	a->detached_logged = true;
}

static void reload(struct agent *a);

static void heartbeat(struct agent *a)
{
	__u64 serial = 0, now = node_now_ns();
	struct err e = { "" };
	char quoted[ERR_TEXT_MAX + 64];
	int r = datapath_heartbeat(a->dp, now, heartbeat_max_age_ns(a), &serial, &e);

	if (!r) {
		a->state->control.heartbeat_ns = now;
		a->state->control.heartbeat_max_age_ns = heartbeat_max_age_ns(a);
	}
	/* kubelb-load was run: with a changed file, in all likelihood. */
	if (r == -ESTALE || (!r && serial != a->state->applied.serial)) {
		reopen(a);
		if (a->dp)
			reload(a);
	} else if (r && r != -EBUSY) {
		log_event(LOG_LEVEL_ERROR, "cannot write the heartbeat", "error=%s",
			  log_quote(quoted, sizeof(quoted), e.text));
	}
}

/* --- what backends report ------------------------------------------------------------- */

static void on_backend_changed(void *arg, bool state_changed)
{
	struct agent *a = arg;

	if (state_changed)
		apply(a);
	else
		a->dirty = true;
}

/* --- the counts ------------------------------------------------------------------------ */

static void repair(struct agent *a, const struct klb_adjustment *fix)
{
	const struct plan_backend *b = plan_find_id(&a->state->applied, fix->id);
	char text[ENDPOINT_TEXT_MAX] = "removed", quoted[ERR_TEXT_MAX + 64];
	struct err e = { "" };

	if (b)
		endpoint_format(&b->value.endpoint, text);
	if (datapath_adjust(a->dp, fix, &e))
		log_event(LOG_LEVEL_ERROR, "cannot correct a count", "backend=%s error=%s", text,
			  log_quote(quoted, sizeof(quoted), e.text));
	else
		log_event(LOG_LEVEL_WARN, "count corrected: it did not agree with the sockets",
			  "backend=%s id=%u active=%+lld connecting=%+lld", text, fix->id,
			  fix->active, fix->connecting);
}

/* Returns whether to look again soon. */
static bool audit_counts(struct agent *a)
{
	struct klb_adjustment fixes[KLB_MAX_IDS];
	struct klb_stats after[KLB_MAX_IDS];
	struct klb_connection *list = NULL;
	unsigned int n = 0, n_fixes;
	bool again = false;

	if (datapath_read_stats(a->dp, a->state->stats, NULL) ||
	    datapath_connections(a->dp, &list, &n, NULL) || datapath_read_stats(a->dp, after, NULL))
		goto out;
	n_fixes = audit_look(&a->audit, a->state->stats, after, list, n, fixes, &again);
	for (unsigned int i = 0; i < n_fixes; i++)
		repair(a, &fixes[i]);
out:
	free(list);
	return again;
}

static void on_audit(evutil_socket_t fd, short what, void *arg)
{
	struct agent *a = arg;
	unsigned int ms = a->dp && audit_counts(a) ? AUDIT_AGAIN_MS : AUDIT_MS;
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	(void)fd;
	(void)what;
	event_add(a->audit_timer, &tv);
}

/* --- configuration ----------------------------------------------------------------------- */

static void warn_about(const struct config *cfg)
{
	if (cfg->probe.insecure_skip_verify)
		log_event(LOG_LEVEL_WARN,
			  "the backends' certificates are NOT verified: anybody who answers on a "
			  "backend's address counts as an apiserver",
			  "key=probe.insecureSkipVerify");
}

/*
 * The health of backends that stay is kept: a reload is no reason to doubt them. At
 * start it comes from the maps, if the agent that wrote them was alive until now.
 */
static void inherit_health(struct agent *a, const struct agent_backend *old, unsigned int n_old)
{
	bool believe = verdict_agent_alive(&a->state->control, node_now_ns());

	for (unsigned int i = 0; i < a->config->n_backends; i++) {
		const struct klb_endpoint *endpoint = &a->config->backends[i].endpoint;
		const struct agent_backend *before = agent_backend_find(old, n_old, endpoint);
		const struct plan_backend *seen = plan_find(&a->state->applied, endpoint);

		if (before)
			agent_backend_inherit(&a->backends[i], before);
		else if (seen && believe && !old)
			agent_backend_adopt(&a->backends[i], &seen->value);
	}
}

static int start_backends(struct agent *a, const struct agent_backend *old, unsigned int n_old,
			  struct err *e)
{
	static const struct agent_backend_ops ops = { .changed = on_backend_changed };
	int r = 0;

	a->backends = calloc(a->config->n_backends + 1, sizeof(*a->backends));
	if (!a->backends)
		return err_set(e, ENOMEM, "out of memory");
	for (unsigned int i = 0; !r && i < a->config->n_backends; i++)
		r = agent_backend_init(&a->backends[i], a->base, a->config, i, a->tls, &ops, a, e);
	if (r)
		return r;
	inherit_health(a, old, n_old);
	for (unsigned int i = 0; i < a->config->n_backends; i++)
		agent_backend_start(&a->backends[i]);
	return 0;
}

static void stop_backends(struct agent_backend *backends, const struct config *cfg)
{
	if (!backends || !cfg)
		return;
	for (unsigned int i = 0; i < cfg->n_backends; i++)
		agent_backend_fini(&backends[i]);
	free(backends);
}

static char *on_metrics(void *arg, size_t *ret_length)
{
	struct agent *a = arg;
	struct metrics_probe probes[KLB_MAX_BACKENDS];
	struct metrics_input in = {
		.probes = probes,
		.n_probes = a->config->n_backends,
		.now_ns = node_now_ns(),
		.reloads_ok = a->reloads_ok,
		.reloads_failed = a->reloads_failed,
		.start_time = a->start_time,
	};
	struct datapath_state *state = malloc(sizeof(*state));
	char *text;

	for (unsigned int i = 0; i < a->config->n_backends; i++)
		probes[i] = *agent_backend_metrics(&a->backends[i]);
	if (state && a->dp && !datapath_read(a->dp, state, NULL))
		in.state = state;
	text = metrics_format(&in, ret_length);
	free(state);
	return text;
}

static const char *on_not_ready(void *arg)
{
	const struct agent *a = arg;

	if (!a->dp)
		return "nothing is attached: run kubelb-load";
	if (!verdict_agent_alive(&a->state->control, node_now_ns()))
		return "the heartbeat cannot be written";
	return NULL;
}

/* The balancer works without it, so a taken port is a warning and tried again. */
static void listen_http(struct agent *a)
{
	static const struct http_ops ops = { .metrics = on_metrics, .not_ready = on_not_ready };
	struct err e = { "" };
	char quoted[ERR_TEXT_MAX + 64];

	if (a->http || !a->config->http_enabled || node_now_ns() < a->http_retry_ns)
		return;
	if (http_new(a->base, &a->config->http, &ops, a, &a->http, &e)) {
		log_event(LOG_LEVEL_WARN, "no metrics for now", "error=%s",
			  log_quote(quoted, sizeof(quoted), e.text));
		a->http_retry_ns = node_now_ns() + HTTP_RETRY_NS;
	}
}

/* Everything of the new configuration is made before anything of the old one goes. */
static int take_config(struct agent *a, struct config *cfg, struct err *e)
{
	struct agent_backend *old_backends = a->backends;
	struct probe_tls *old_tls = a->tls, *tls = NULL;
	struct config *old = a->config;
	int r = probe_tls_new(&cfg->probe, &tls, e);

	if (r)
		return r;
	a->config = cfg;
	a->tls = tls;
	r = start_backends(a, old_backends, old ? old->n_backends : 0, e);
	if (r) {
		stop_backends(a->backends, cfg);
		probe_tls_free(tls);
		a->config = old;
		a->tls = old_tls;
		a->backends = old_backends;
		return r;
	}
	stop_backends(old_backends, old);
	probe_tls_free(old_tls);
	if (old &&
	    (old->http_enabled != cfg->http_enabled || !endpoint_equal(&old->http, &cfg->http))) {
		http_free(a->http);
		a->http = NULL;
		a->http_retry_ns = 0;
	}
	config_free(old);
	a->config_pending = true;
	warn_about(cfg);
	return 0;
}

static void set_tick(struct agent *a)
{
	struct timeval tv = { .tv_sec = tick_ms(a) / 1000, .tv_usec = tick_ms(a) % 1000 * 1000 };

	event_add(a->tick, &tv);
}

/* An invalid configuration is reported, and the old one stays. */
static void reload(struct agent *a)
{
	struct config *cfg = NULL;
	struct err e = { "" };
	char quoted[ERR_TEXT_MAX + 64];
	int r = config_load(a->options->config_path, node_has_ipv6(), &cfg, &e);

	if (!r)
		r = take_config(a, cfg, &e);
	if (r) {
		config_free(cfg);
		a->reloads_failed++;
		log_event(LOG_LEVEL_ERROR, "configuration not reloaded, the old one stays",
			  "error=%s", log_quote(quoted, sizeof(quoted), e.text));
		return;
	}
	a->reloads_ok++;
	log_event(LOG_LEVEL_INFO, "configuration reloaded", "file=%s frontends=%u backends=%u",
		  log_quote(quoted, sizeof(quoted), a->options->config_path),
		  a->config->n_frontends, a->config->n_backends);
	set_tick(a);
	apply(a);
	listen_http(a);
}

/* --- events ------------------------------------------------------------------------------- */

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct agent *a = arg;

	(void)fd;
	(void)what;
	if (!a->dp)
		reopen(a);
	if (a->dp)
		heartbeat(a);
	if (a->dirty)
		apply(a);
	listen_http(a);
}

static void on_hup(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	reload(arg);
}

static void on_term(evutil_socket_t signal_number, short what, void *arg)
{
	struct agent *a = arg;

	(void)what;
	log_event(LOG_LEVEL_INFO, "ending, the data path stays attached", "signal=%d",
		  (int)signal_number);
	event_base_loopbreak(a->base);
}

static int make_events(struct agent *a, struct err *e)
{
	a->tick = event_new(a->base, -1, EV_PERSIST, on_tick, a);
	a->hup = evsignal_new(a->base, SIGHUP, on_hup, a);
	a->term = evsignal_new(a->base, SIGTERM, on_term, a);
	a->interrupt = evsignal_new(a->base, SIGINT, on_term, a);
	a->audit_timer = evtimer_new(a->base, on_audit, a);
	if (!a->audit_timer || !a->tick || !a->hup || !a->term || !a->interrupt ||
	    event_add(a->hup, NULL) || event_add(a->term, NULL) || event_add(a->interrupt, NULL))
		return err_set(e, ENOMEM, "cannot set up events");
	return 0;
}

static void agent_free(struct agent *a)
{
	struct event *events[] = { a->tick, a->hup, a->term, a->interrupt, a->audit_timer };

	http_free(a->http);
	if (a->config)
		stop_backends(a->backends, a->config);
	probe_tls_free(a->tls);
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
		if (events[i])
			event_free(events[i]);
	if (a->base)
		event_base_free(a->base);
	drop_datapath(a);
	config_free(a->config);
	free(a->state);
}

static int agent_start(struct agent *a, struct config *cfg, struct err *e)
{
	struct timespec now;
	int r;

	clock_gettime(CLOCK_REALTIME, &now);
	a->start_time = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
	a->state = calloc(1, sizeof(*a->state));
	a->base = event_base_new();
	if (!a->state || !a->base) {
		config_free(cfg);
		return err_set(e, ENOMEM, "out of memory");
	}
	r = open_datapath(a, e);
	if (!r)
		r = make_events(a, e);
	if (!r)
		r = take_config(a, cfg, e);
	if (r && a->config != cfg)
		config_free(cfg);
	return r;
}

int agent_run(const struct agent_options *o, struct config *cfg, struct err *e)
{
	struct agent a = { .options = o, .agent_lock = -1 };
	int r = agent_start(&a, cfg, e);

	if (!r) {
		log_event(LOG_LEVEL_INFO, "running", "version=%s pin=%s frontends=%u backends=%u",
			  KLB_VERSION, o->pin_dir, a.config->n_frontends, a.config->n_backends);
		set_tick(&a);
		on_tick(-1, 0, &a);
		on_audit(-1, 0, &a);
		event_base_dispatch(a.base);
	}
	agent_free(&a);
	return r;
}
