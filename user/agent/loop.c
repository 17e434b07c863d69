/* SPDX-License-Identifier: BSD-2-Clause */
/* The agent's event loop: start, tick, heartbeat, service manager, end. */
#include "agent/agent.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "agent/internal.h"
#include "base/array.h"
#include "base/clock.h"
#include "base/file.h"
#include "host/file_watch.h"
#include "net/http_server.h"
#include "base/log.h"
#include "agent/metrics.h"
#include "host/sd_notify.h"

/*
 * The kernel ignores the agent's states when the heartbeat is older than this many probe intervals.
 */
#define HEARTBEAT_INTERVALS 3
#define HEARTBEAT_AGE_MIN_MS 3000
#define HEARTBEAT_AGE_MAX_MS 60000

/* --- the heartbeat ------------------------------------------------------------------- */

static __u64 heartbeat_max_age_ns(const struct agent *a)
{
	__u64 ms = (__u64)a->config->probe.interval_ms * HEARTBEAT_INTERVALS;

	/*
	 * The heartbeat itself comes at least every HEARTBEAT_MS. The upper limit is for long
	 * intervals, in which a dead agent's states would count for hours; the lower limit is for
	 * short ones, in which a delay would look like a dead agent.
	 */
	if (ms < HEARTBEAT_AGE_MIN_MS)
		ms = HEARTBEAT_AGE_MIN_MS;
	if (ms > HEARTBEAT_AGE_MAX_MS)
		ms = HEARTBEAT_AGE_MAX_MS;
	return ms * NS_PER_MS;
}

static void describe_discovery(const struct agent *a, struct datapath_heartbeat_values *ret)
{
	struct discovery_state state;

	ret->discovery = KLB_DISCOVERY_OFF;
	if (!a->discovery)
		return;
	discovery_state(a->discovery, &state);
	ret->discovery_heard_ns = state.heard_ns;
	if (!a->n_found || agent_uses_seeds(a))
		ret->discovery = KLB_DISCOVERY_SEEDS;
	else if (!a->heard)
		ret->discovery = KLB_DISCOVERY_CACHE;
	else
		ret->discovery = state.error[0] ? KLB_DISCOVERY_FAILING : KLB_DISCOVERY_CURRENT;
}

static void heartbeat(struct agent *a)
{
	struct datapath_heartbeat_values values = { .now_ns = clock_now_ns(),
						    .max_age_ns = heartbeat_max_age_ns(a) };
	__u64 serial = 0;
	struct err e = { "" };
	int r;

	describe_discovery(a, &values);
	r = datapath_heartbeat(a->dp, &values, &serial, &e);
	if (!r) {
		a->heartbeat_written = true;
		a->state->control.heartbeat_ns = values.now_ns;
		a->state->control.heartbeat_max_age_ns = values.max_age_ns;
	}
	/* Somebody has run kubelb-load, probably with a changed file. */
	if (r == -ESTALE || (!r && serial != a->state->applied.serial)) {
		agent_reopen(a);
		if (a->dp)
			agent_reload(a);
	} else if (r != -EBUSY) {
		log_failure(a->heartbeat_error, LOG_LEVEL_ERROR, "cannot write the heartbeat", &e);
	}
}

/* --- the service manager ------------------------------------------------------------- */

/* The wait before the next try: doubling. */
#define MANAGER_RETRY_MIN_MS 1000
#define MANAGER_RETRY_MAX_MS 60000

/* At each tick until it is clear. A shortage passes; what is wrong in the environment stays. */
static void open_manager(struct agent *a)
{
	__u64 now = clock_now_ns();
	struct err e = { "" };
	int r;

	if (a->manager_asked || now < a->manager_retry_ns)
		return;
	r = notify_new(a->base, &a->notify, &e);
	if (!r && a->notify_error[0])
		log_event(LOG_LEVEL_INFO, "the service manager is told again", "");
	log_failure(a->notify_error, LOG_LEVEL_WARN, "the service manager cannot be told anything",
		    &e);
	a->manager_asked = !err_is_shortage(-r);
	a->manager_wait_ms = a->manager_wait_ms ? 2 * a->manager_wait_ms : MANAGER_RETRY_MIN_MS;
	if (a->manager_wait_ms > MANAGER_RETRY_MAX_MS)
		a->manager_wait_ms = MANAGER_RETRY_MAX_MS;
	a->manager_retry_ns = now + a->manager_wait_ms * NS_PER_MS;
}

/* Ready means that connects are balanced and that the kernel uses this agent's states. */
static void notify_manager(struct agent *a)
{
	const char *why = agent_not_ready(a);
	const char *refused =
		a->reload_refused ? "; the configuration was NOT reloaded, see the log" : "";
	unsigned int ready = 0;

	for (unsigned int i = 0; i < a->config->n_backends; i++)
		ready += agent_backend_health(a->backends[i])->state == KLB_STATE_READY;
	if (why || !a->heartbeat_written)
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
		agent_reopen(a);
	agent_review_list(a);
	agent_review_local(a);
	if (a->dp)
		heartbeat(a);
	if (a->dirty)
		agent_apply(a);
	if (a->dp) {
		agent_review_removed(a);
		agent_review_resting(a);
		if (!a->wakeup)
			agent_handle_events(a);
		agent_check_dead_backends(a);
		agent_rebalance(a);
		agent_failback(a);
	}
	if (a->dp)
		agent_check_trials(a);
	agent_listen_http(a);
	open_manager(a);
	notify_manager(a);
}

static void on_hup(evutil_socket_t fd, short what, void *arg)
{
	struct agent *a = arg;

	(void)fd;
	(void)what;
	notify_reloading(a->notify);
	agent_reload(a);
	notify_manager(a);
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
	a->reconcile_timer = evtimer_new(a->base, agent_on_reconcile, a);
	a->evict_timer = evtimer_new(a->base, agent_on_evict, a);
	if (!a->reconcile_timer || !a->evict_timer || !a->tick || !a->hup || !a->term ||
	    !a->interrupt || event_add(a->hup, NULL) || event_add(a->term, NULL) ||
	    event_add(a->interrupt, NULL) || agent_listen_attacher(a))
		return err_set(e, ENOMEM, "cannot set up events");
	return 0;
}

/* --- start and end ------------------------------------------------------------------- */

static void agent_free(struct agent *a)
{
	struct event *events[] = {
		a->tick,	a->hup,		 a->term, a->interrupt, a->reconcile_timer,
		a->evict_timer, a->attach_result
	};

	http_free(a->http);
	discovery_free(a->discovery);
	filewatch_free(a->watch);
	notify_free(a->notify);
	agent_stop_backends(a);
	agent_free_removed(a);
	agent_free_resting(a);
	probe_tls_free(a->tls);
	for (size_t i = 0; i < ARRAY_SIZE(events); i++)
		if (events[i])
			event_free(events[i]);
	agent_drop_datapath(a);
	if (a->base)
		event_base_free(a->base);
	config_free(a->config);
	config_free(a->file);
	free(a->state);
}

/* What libevent and its signals take at first; it would end the process without them. */
#define LOOP_DESCRIPTORS 8

static int make_loop(struct agent *a, struct err *e)
{
	int r = file_spare(LOOP_DESCRIPTORS);

	if (r)
		return err_set(e, -r, "cannot start: %s", err_reason(-r));
	a->state = calloc(1, sizeof(*a->state));
	a->base = event_base_new();
	return a->state && a->base ? 0 : err_no_memory(e);
}

static int agent_start(struct agent *a, struct config *cfg, struct err *e)
{
	int r = make_loop(a, e);

	a->start_time = (double)clock_wall_ns() / NS_PER_S;
	if (r) {
		config_free(cfg);
		return r;
	}
	r = agent_open_datapath(a, e);
	if (err_is_shortage(-r)) {
		agent_log_no_datapath(a, r, e);
		r = 0;
	}
	if (!r)
		r = make_events(a, e);
	if (!r) {
		agent_read_cache(a, cfg);
		r = agent_take_file(a, cfg, e);
	}
	if (r && a->file != cfg)
		config_free(cfg);
	return r;
}

int agent_run(const struct agent_options *o, struct config *cfg, struct err *e)
{
	struct agent a = { .options = o, .agent_lock = -1, .trials.n_others = -EPERM };
	int r = agent_start(&a, cfg, e);

	if (!r) {
		log_event(LOG_LEVEL_INFO, "running", "version=%s pin=%s frontends=%u backends=%u",
			  KLB_VERSION, log_quoted(o->pin_dir), a.config->n_frontends,
			  a.config->n_backends);
		agent_set_tick(&a);
		on_tick(-1, 0, &a);
		agent_on_reconcile(-1, 0, &a);
		event_base_dispatch(a.base);
		if (a.fatal.text[0])
			r = err_set(e, EIO, "%s", a.fatal.text);
	}
	agent_free(&a);
	return r;
}
