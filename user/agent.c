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
#include "agent_moves.h"
#include "audit.h"
#include "believed.h"
#include "cli.h"
#include "datapath.h"
#include "discovery.h"
#include "endpoint.h"
#include "filewatch.h"
#include "http.h"
#include "log.h"
#include "memory.h"
#include "metrics.h"
#include "moves.h"
#include "node.h"
#include "notify.h"
#include "privileges.h"
#include "verdict.h"

/* A heartbeat this often, or as often as probes are made. */
#define HEARTBEAT_MS 1000
/* The kernel gives up on the agent after so many probe intervals. */
#define HEARTBEAT_INTERVALS 3
#define HEARTBEAT_AGE_MIN_MS 3000
#define HEARTBEAT_AGE_MAX_MS 60000
/* How often the counts are compared with the sockets, how soon after the start, and how
 * soon again when they differ. */
#define AUDIT_MS 30000
#define AUDIT_FIRST_MS 5000
#define AUDIT_AGAIN_MS 1000
/* Connections to a dead backend end in batches so far apart; give or take a half. */
#define MOVES_MS 100
/* Rebalancing moves one connection this often; give or take a half. */
#define REBALANCE_MS 10000
/* How often to try again to listen on the http address. */
#define HTTP_RETRY_NS 10000000000ULL

struct agent {
	const struct agent_options *options;
	struct event_base *base;
	struct config *file; /* as it was read */
	struct config *config; /* the same with the backends that discovery has found */
	struct klb_endpoint found[KLB_MAX_BACKENDS]; /* by discovery */
	unsigned int n_found; /* 0: the file's own backends count */
	bool found_in_cache; /* and not heard from the cluster since */
	struct discovery *discovery;
	__u64 discovery_results[DISCOVERY_RESULTS];
	struct filewatch *watch;
	struct probe_tls *tls;
	struct agent_backend *backends; /* by index of config->backends */
	struct datapath *dp; /* NULL: nothing is attached */
	struct datapath_state *state; /* as last read from or written to the maps */
	int agent_lock; /* held on the pins' links directory: one agent for each */
	struct http *http;
	struct notify *notify; /* NULL: nobody asked to be told */
	__u64 http_retry_ns;
	struct event *tick, *hup, *term, *interrupt;
	struct event *audit_timer, *moves_timer;
	struct event *wakeup; /* the kernel has seen something */
	__u64 next_event; /* of the event log */
	__u64 rebalance_ns; /* not before */
	struct audit audit;
	bool audited; /* once */
	bool beaten; /* a heartbeat of this process is in the maps */
	bool reload_refused; /* the file is not the configuration that is in force */
	bool dirty; /* something to write that can wait for the tick */
	bool detached_logged;
	bool discovery_failed; /* logged */
	bool missing_logged[PRIVILEGES_FUNCTIONS]; /* that a privilege is missing */
	char moves_error[ERR_TEXT_MAX]; /* the last one logged */
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
	if (a->wakeup)
		event_free(a->wakeup);
	a->wakeup = NULL;
	datapath_close(a->dp);
	a->dp = NULL;
	if (a->agent_lock >= 0)
		close(a->agent_lock);
	a->agent_lock = -1;
}

static void on_wakeup(evutil_socket_t fd, short what, void *arg);

/* What has happened before now is history. */
static int listen_to_kernel(struct agent *a, struct err *e)
{
	int fd = datapath_wakeup_fd(a->dp, e);

	if (fd < 0)
		return fd;
	a->next_event = a->state->counters.events;
	datapath_wakeup_clear(a->dp);
	a->wakeup = event_new(a->base, fd, EV_READ | EV_PERSIST, on_wakeup, a);
	if (a->wakeup && !event_add(a->wakeup, NULL))
		return 0;
	return err_set(e, ENOMEM, "out of memory");
}

static int open_datapath(struct agent *a, struct err *e)
{
	int r = datapath_open(a->options->pin_dir, &a->dp, e);

	if (r)
		return r;
	a->agent_lock = lock_agent(a->options->pin_dir, e);
	r = a->agent_lock < 0 ? a->agent_lock : datapath_read(a->dp, a->state, e);
	if (!r)
		r = listen_to_kernel(a, e);
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

/* Whether a backend that has come back still has less than its weight. */
static bool is_ramping(const struct agent *a)
{
	__u64 now = node_now_ns();

	for (unsigned int i = 0; i < a->config->n_backends; i++)
		if (health_share(agent_backend_health(&a->backends[i]), a->config->slow_start_ms,
				 now) != 1000)
			return true;
	return false;
}

/* Writes what has changed. Whatever fails is tried again with the next tick. */
static void apply(struct agent *a)
{
	struct plan *p = malloc(sizeof(*p));
	__u64 based_on;
	struct err e = { "" };
	char quoted[ERR_TEXT_MAX + 64];
	bool ramping = is_ramping(a);
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
		a->config_pending = false;
		/* Again with the next tick, and once more when the ramp is over. */
		a->dirty = ramping;
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

static void describe_discovery(const struct agent *a, struct datapath_beat *ret)
{
	struct discovery_state state;

	ret->discovery = KLB_DISCOVERY_OFF;
	if (!a->discovery)
		return;
	discovery_state(a->discovery, &state);
	ret->discovery_heard_ns = state.heard_ns;
	if (state.error[0] && a->n_found && !a->found_in_cache)
		ret->discovery = KLB_DISCOVERY_FAILING;
	else if (!a->n_found)
		ret->discovery = KLB_DISCOVERY_SEEDS;
	else
		ret->discovery = a->found_in_cache && !state.heard_ns ? KLB_DISCOVERY_CACHE
								      : KLB_DISCOVERY_CURRENT;
}

static void heartbeat(struct agent *a)
{
	struct datapath_beat beat = { .now_ns = node_now_ns(),
				      .max_age_ns = heartbeat_max_age_ns(a) };
	__u64 serial = 0;
	struct err e = { "" };
	char quoted[ERR_TEXT_MAX + 64];
	int r;

	describe_discovery(a, &beat);
	r = datapath_heartbeat(a->dp, &beat, &serial, &e);
	if (!r) {
		a->beaten = true;
		a->state->control.heartbeat_ns = beat.now_ns;
		a->state->control.heartbeat_max_age_ns = beat.max_age_ns;
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

/* --- connections to dead backends -------------------------------------------------------- */

static void count_ended(struct agent *a, const struct agent_moves_result *ended,
			enum metrics_ended why)
{
	char text[ENDPOINT_TEXT_MAX];

	for (unsigned int i = 0; i < a->config->n_backends; i++) {
		const struct klb_endpoint *endpoint = &a->config->backends[i].endpoint;
		const struct plan_backend *b = plan_find(&a->state->applied, endpoint);

		if (!b || !ended->ended[b->id])
			continue;
		a->backends[i].metrics.ended[why] += ended->ended[b->id];
		log_event(LOG_LEVEL_INFO, "connections ended, their clients connect elsewhere",
			  "backend=%s connections=%u reason=%s", endpoint_format(endpoint, text),
			  ended->ended[b->id], metrics_ended_name(why));
	}
}

static const struct plan_backend *planned(const struct agent *a, unsigned int index)
{
	return plan_find(&a->state->applied, &a->config->backends[index].endpoint);
}

/* What counts: the operator's, else the planned one; 0 for one that is drained. */
static unsigned int weight_of(const struct agent *a, const struct plan_backend *b)
{
	const struct klb_admin *wish = verdict_wish(a->state, b);

	if (wish->drained)
		return 0;
	return wish->weight_set ? wish->weight : b->value.weight;
}

/* Whether the kernel may send a new connection there without reserve. */
static bool takes_connections(const struct agent *a, const struct plan_backend *b)
{
	return b->value.state == KLB_STATE_READY && weight_of(a, b);
}

static bool some_takes_connections(struct agent *a)
{
	/* The operator's wishes change without a word to the agent. */
	if (datapath_read_admin(a->dp, a->state->admin, NULL))
		return false;
	for (unsigned int i = 0; i < a->config->n_backends; i++) {
		const struct plan_backend *b = planned(a, i);

		if (b && takes_connections(a, b))
			return true;
	}
	return false;
}

/*
 * Fills dead by id; whether there is one, and another that is ready to take its clients.
 * Both as the maps have it: what the kernel does not know yet would lead the clients back.
 */
static bool find_dead(struct agent *a, bool *dead)
{
	bool some = false;

	memset(dead, 0, KLB_MAX_IDS * sizeof(*dead));
	for (unsigned int i = 0; i < a->config->n_backends; i++) {
		const struct health *h = agent_backend_health(&a->backends[i]);
		const struct plan_backend *b = planned(a, i);

		if (!b)
			continue;
		dead[b->id] = b->value.state == KLB_STATE_DEAD && health_is_gone(h, node_now_ns());
		some |= dead[b->id];
	}
	return some && some_takes_connections(a);
}

static unsigned int around(unsigned int ms)
{
	unsigned short random = 0;

	evutil_secure_rng_get_bytes(&random, sizeof(random));
	return ms / 2 + ms * random / 65535;
}

static void plan_moves(struct agent *a)
{
	unsigned int ms = around(MOVES_MS);
	struct timeval tv = { .tv_usec = ms * 1000 };

	if (!event_pending(a->moves_timer, EV_TIMEOUT, NULL))
		event_add(a->moves_timer, &tv);
}

/* The same failure comes with every batch until somebody mends it. */
static void log_moves_error(struct agent *a, const struct err *e)
{
	char quoted[ERR_TEXT_MAX + 64];

	if (!strcmp(a->moves_error, e->text))
		return;
	memcpy(a->moves_error, e->text, sizeof(a->moves_error));
	if (e->text[0])
		log_event(LOG_LEVEL_ERROR, "cannot end connections to a dead backend", "error=%s",
			  log_quote(quoted, sizeof(quoted), e->text));
}

static void on_moves(evutil_socket_t fd, short what, void *arg)
{
	struct agent_moves_result result;
	struct agent *a = arg;
	bool dead[KLB_MAX_IDS];
	struct err e = { "" };

	(void)fd;
	(void)what;
	/* Whoever wished for something did not tell us. */
	if (!a->dp || !privileges_end_connections() ||
	    datapath_read_admin(a->dp, a->state->admin, NULL) || !find_dead(a, dead))
		return;
	agent_moves_dead(a->dp, dead, &result, &e);
	log_moves_error(a, &e);
	count_ended(a, &result, METRICS_ENDED_DEAD);
	if (result.left)
		plan_moves(a);
}

/* Connections that have come to a dead backend since, or could not be ended before. */
static void look_for_stuck(struct agent *a)
{
	bool dead[KLB_MAX_IDS];
	struct klb_stats stats;

	if (!find_dead(a, dead))
		return;
	for (__u32 id = 1; id < KLB_MAX_IDS; id++)
		if (dead[id] && !datapath_read_stat(a->dp, id, &stats, NULL) && stats.active)
			plan_moves(a);
}

/* --- what backends report ------------------------------------------------------------ */

static void on_backend_changed(void *arg, bool state_changed)
{
	struct agent *a = arg;

	if (state_changed) {
		apply(a);
		plan_moves(a);
	} else
		a->dirty = true;
}

/* --- rebalancing ---------------------------------------------------------------------------- */

/*
 * What one backend has and should have. Where one is preferred (the one on this node), it
 * should have all: what is ended elsewhere goes there, and what is ended there comes back.
 */
static bool read_load(const struct agent *a, unsigned int index, bool some_preferred,
		      struct moves_load *ret)
{
	const struct health *h = agent_backend_health(&a->backends[index]);
	const struct plan_backend *b = planned(a, index);
	struct klb_stats stats;

	if (!b || !takes_connections(a, b) ||
	    health_share(h, a->config->slow_start_ms, node_now_ns()) != 1000 ||
	    datapath_read_stat(a->dp, b->id, &stats, NULL))
		return false;
	*ret = (struct moves_load){ .id = b->id,
				    .active = stats.active,
				    .weight =
					    some_preferred && !b->preferred ? 0 : weight_of(a, b) };
	return true;
}

/* The loads, if every backend takes connections and has all of its weight; else 0. */
static unsigned int read_loads(const struct agent *a, struct moves_load *ret)
{
	bool some_preferred = false;

	/* By the other policies a client may come back to where it was, to be ended again. */
	if (a->config->policy != KLB_POLICY_LEAST_CONN ||
	    datapath_read_admin(a->dp, a->state->admin, NULL))
		return 0;
	for (unsigned int i = 0; i < a->config->n_backends; i++) {
		const struct plan_backend *b = planned(a, i);

		some_preferred |= b && b->preferred;
	}
	for (unsigned int i = 0; i < a->config->n_backends; i++)
		if (!read_load(a, i, some_preferred, &ret[i]))
			return 0;
	return a->config->n_backends;
}

static void rebalance(struct agent *a)
{
	struct moves_load loads[KLB_MAX_BACKENDS];
	struct agent_moves_result result;
	__u64 now = node_now_ns();
	__u32 id;

	if (!a->config->rebalance || now < a->rebalance_ns)
		return;
	a->rebalance_ns = now + around(REBALANCE_MS) * 1000000ULL;
	id = moves_overloaded(loads, read_loads(a, loads));
	if (id && !agent_moves_one(a->dp, id, &result, NULL))
		count_ended(a, &result, METRICS_ENDED_REBALANCE);
}

/* --- what the kernel reports --------------------------------------------------------------- */

/* Clients have met trouble: what is it? */
static void take_event(struct agent *a, const struct klb_event *event)
{
	if (event->kind == KLB_EVENT_RESTORED)
		return;
	for (unsigned int i = 0; i < a->config->n_backends; i++)
		if (endpoint_equal(&a->config->backends[i].endpoint, &event->backend))
			agent_backend_hurry(&a->backends[i]);
}

static void on_wakeup(evutil_socket_t fd, short what, void *arg)
{
	struct klb_event events[16];
	struct agent *a = arg;
	int n;

	(void)fd;
	(void)what;
	datapath_wakeup_clear(a->dp);
	do {
		n = datapath_events(a->dp, &a->next_event, events, 16, NULL);
		for (int i = 0; i < n; i++)
			take_event(a, &events[i]);
	} while (n == 16);
}

static __u64 on_last_success(void *arg, const struct klb_endpoint *backend)
{
	struct agent *a = arg;
	const struct plan_backend *b = plan_find(&a->state->applied, backend);
	struct klb_stats stats;

	if (!a->dp || !b || datapath_read_stat(a->dp, b->id, &stats, NULL))
		return 0;
	return stats.last_success_ns;
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
	unsigned int ms = a->dp && audit_counts(a) ? AUDIT_AGAIN_MS
			  : a->audited		   ? AUDIT_MS
						   : AUDIT_FIRST_MS;
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	(void)fd;
	(void)what;
	event_add(a->audit_timer, &tv);
	a->audited = true;
	/* Also a good moment to forget what start, handshakes and reloads have needed. */
	memory_trim();
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

void agent_needs(const struct config *cfg, struct privileges_need *ret)
{
	*ret = (struct privileges_need){ .low_port = cfg->http_enabled && cfg->http.port < 1024 };
	for (unsigned int i = 0; i < cfg->n_frontends; i++)
		ret->pods |= cfg->frontends[i].scope == KLB_SCOPE_ALL;
}

/* Once for each: it does not change while the agent runs. */
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
	static const struct agent_backend_ops ops = { .changed = on_backend_changed,
						      .last_success_ns = on_last_success };
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
		.discovery_results = a->discovery ? a->discovery_results : NULL,
		.start_time = a->start_time,
	};
	struct datapath_state *state = malloc(sizeof(*state));
	struct datapath_link links[METRICS_LINKS];
	int n_links = datapath_links(a->options->pin_dir, links, METRICS_LINKS, NULL);
	char *text;

	/* Nothing attached is none. */
	in.links = links;
	in.n_links = n_links > 0 ? (unsigned int)n_links : 0;
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

/* --- the file, and what discovery makes of it ---------------------------------------- */

static int take_effective(struct agent *a, const struct config *file, struct err *e)
{
	struct config *effective = NULL;
	int r = config_with_backends(file, a->found, file->discovery ? a->n_found : 0, &effective,
				     e);

	if (!r)
		r = take_config(a, effective, e);
	if (r)
		config_free(effective);
	return r;
}

static void on_discovered(void *arg, const struct klb_endpoint *list, unsigned int n)
{
	struct agent *a = arg;
	char quoted[ERR_TEXT_MAX + 64];
	struct err e = { "" };

	memcpy(a->found, list, n * sizeof(*list));
	a->n_found = n;
	a->found_in_cache = false;
	log_event(LOG_LEVEL_INFO, "the cluster's apiservers are others now", "backends=%u", n);
	if (take_effective(a, a->file, &e)) {
		log_event(LOG_LEVEL_ERROR, "cannot take the discovered backends", "error=%s",
			  log_quote(quoted, sizeof(quoted), e.text));
		return;
	}
	apply(a);
}

/* A failure that goes on is one line, and so is its end. */
static void on_discovery_result(void *arg, enum discovery_result result, const char *detail)
{
	struct agent *a = arg;
	char quoted[ERR_TEXT_MAX + 64];
	bool failed = result >= DISCOVERY_FORBIDDEN;

	a->discovery_results[result]++;
	if (!failed)
		a->found_in_cache = false;
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
		.believed = a->found,
		.n_believed = a->n_found,
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

/* The list of an earlier time is better than none at all, or than seeds of years ago. */
static void read_cache(struct agent *a, const struct config *file)
{
	struct err e = { "" };
	char quoted[ERR_TEXT_MAX + 64];
	int r = believed_from_cache(file, a->found, &a->n_found, &e);

	a->found_in_cache = a->n_found > 0;
	if (r && r != -ENOENT)
		log_event(LOG_LEVEL_WARN, "the cache of discovery is not used", "error=%s",
			  log_quote(quoted, sizeof(quoted), e.text));
}

static void on_file_changed(void *arg)
{
	struct agent *a = arg;

	log_event(LOG_LEVEL_INFO, "a file of the configuration has changed", "file=%s",
		  a->options->config_path);
	reload(a);
}

/* Without it SIGHUP still works. */
static void watch_files(struct agent *a)
{
	const char *paths[] = { a->options->config_path, a->file->probe.ca,
				a->file->probe.client_cert, a->file->probe.client_key };
	struct filewatch *watch = NULL;
	char quoted[ERR_TEXT_MAX + 64];
	struct err e = { "" };

	if (filewatch_new(a->base, paths, sizeof(paths) / sizeof(paths[0]), on_file_changed, a,
			  &watch, &e))
		log_event(LOG_LEVEL_WARN, "changes of files are not noticed, send SIGHUP after one",
			  "error=%s", log_quote(quoted, sizeof(quoted), e.text));
	filewatch_free(a->watch);
	a->watch = watch;
}

static bool same_text(const char *x, const char *y)
{
	return x == y || (x && y && !strcmp(x, y));
}

static bool same_discovery(const struct config *x, const struct config *y)
{
	return x->discovery == y->discovery &&
	       same_text(x->discovery_kubeconfig, y->discovery_kubeconfig) &&
	       same_text(x->discovery_cache, y->discovery_cache) &&
	       x->n_frontends == y->n_frontends &&
	       !memcmp(x->frontends, y->frontends, x->n_frontends * sizeof(x->frontends[0]));
}

/* Takes over file, on success. */
static int take_file(struct agent *a, struct config *file, struct err *e)
{
	struct config *old = a->file;
	int r = take_effective(a, file, e);

	if (r)
		return r;
	a->file = file;
	warn_about_privileges(a);
	watch_files(a);
	if (!old || !same_discovery(old, file))
		r = start_discovery(a, e);
	config_free(old);
	return r;
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
		r = take_file(a, cfg, &e);
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
	set_tick(a);
	apply(a);
	listen_http(a);
}

/* --- the service manager ------------------------------------------------------------- */

static void listen_to_manager(struct agent *a)
{
	struct err e = { "" };
	char quoted[ERR_TEXT_MAX + 64];

	if (notify_new(a->base, &a->notify, &e))
		log_event(LOG_LEVEL_WARN, "the service manager cannot be told anything", "error=%s",
			  log_quote(quoted, sizeof(quoted), e.text));
}

/* Ready means: connects are balanced, and the kernel believes this agent. */
static void tell_manager(struct agent *a)
{
	const char *why = on_not_ready(a);
	const char *refused =
		a->reload_refused ? "; the configuration was NOT reloaded, see the log" : "";
	unsigned int ready = 0;

	for (unsigned int i = 0; i < a->config->n_backends; i++)
		ready += agent_backend_health(&a->backends[i])->state == KLB_STATE_READY;
	if (why || !a->beaten)
		notify_status(a->notify, "%s%s", why ? why : "waiting for the maps", refused);
	else if (!a->config->n_backends)
		notify_ready(a->notify, "no backends: connects go through untouched%s", refused);
	else
		notify_ready(a->notify, "%u of %u backends ready%s", ready, a->config->n_backends,
			     refused);
}

/* --- events -------------------------------------------------------------------------- */

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
	if (a->dp) {
		look_for_stuck(a);
		rebalance(a);
	}
	listen_http(a);
	tell_manager(a);
}

static void on_hup(evutil_socket_t fd, short what, void *arg)
{
	struct agent *a = arg;

	(void)fd;
	(void)what;
	notify_reloading(a->notify);
	reload(a);
	tell_manager(a);
}

static void on_term(evutil_socket_t signal_number, short what, void *arg)
{
	struct agent *a = arg;

	(void)what;
	log_event(LOG_LEVEL_INFO, "ending, the data path stays attached", "signal=%d",
		  (int)signal_number);
	notify_stopping(a->notify);
	event_base_loopbreak(a->base);
}

static int make_events(struct agent *a, struct err *e)
{
	a->tick = event_new(a->base, -1, EV_PERSIST, on_tick, a);
	a->hup = evsignal_new(a->base, SIGHUP, on_hup, a);
	a->term = evsignal_new(a->base, SIGTERM, on_term, a);
	a->interrupt = evsignal_new(a->base, SIGINT, on_term, a);
	a->audit_timer = evtimer_new(a->base, on_audit, a);
	a->moves_timer = evtimer_new(a->base, on_moves, a);
	if (!a->audit_timer || !a->moves_timer || !a->tick || !a->hup || !a->term ||
	    !a->interrupt || event_add(a->hup, NULL) || event_add(a->term, NULL) ||
	    event_add(a->interrupt, NULL))
		return err_set(e, ENOMEM, "cannot set up events");
	return 0;
}

static void agent_free(struct agent *a)
{
	struct event *events[] = { a->tick,	 a->hup,	 a->term,
				   a->interrupt, a->audit_timer, a->moves_timer };

	http_free(a->http);
	discovery_free(a->discovery);
	filewatch_free(a->watch);
	notify_free(a->notify);
	if (a->config)
		stop_backends(a->backends, a->config);
	probe_tls_free(a->tls);
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
		if (events[i])
			event_free(events[i]);
	drop_datapath(a);
	if (a->base)
		event_base_free(a->base);
	config_free(a->config);
	config_free(a->file);
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
	if (!r) {
		read_cache(a, cfg);
		r = take_file(a, cfg, e);
	}
	if (r && a->file != cfg)
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
		listen_to_manager(&a);
		set_tick(&a);
		on_tick(-1, 0, &a);
		on_audit(-1, 0, &a);
		event_base_dispatch(a.base);
	}
	agent_free(&a);
	return r;
}
