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
#include "base/log.h"
#include "agent/metrics.h"
#include "host/sd_notify.h"
#include "host/worker.h"

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

/* Longer than a kubelb-load holds the lock that runs undisturbed. */
#define LOCK_PATIENCE_NS (3 * NS_PER_S)

/* Says once that somebody holds the lock and does not go on, and once that it is free again. */
static void note_lock(struct agent *a, bool held)
{
	struct datapath_lock_holder holder = { 0 };
	__u64 now = clock_now_ns();

	if (!held) {
		if (a->lock_logged)
			log_event(LOG_LEVEL_INFO, "the lock is free, all changes are written again",
				  "pin=%s", log_quoted(a->options->pin_dir));
		a->lock_logged = false;
		a->locked_since_ns = 0;
		return;
	}
	if (!a->locked_since_ns)
		a->locked_since_ns = now;
	if (a->lock_logged || now - a->locked_since_ns < LOCK_PATIENCE_NS)
		return;
	a->lock_logged = true;
	datapath_lock_holder(a->options->pin_dir, &holder);
	log_event(LOG_LEVEL_WARN,
		  "another process holds the lock and does not go on: states are written all the "
		  "same, all other changes wait; continue or end that process",
		  "pin=%s pid=%u name=%s seconds=%.0f", log_quoted(a->options->pin_dir), holder.pid,
		  log_quoted(holder.name), clock_seconds(a->locked_since_ns, now));
}

/* As long as a disk may take. */
#define RELOAD_FIRST_NS (2 * NS_PER_S)

static void heartbeat(struct agent *a)
{
	struct datapath_heartbeat_values values = { .now_ns = clock_now_ns(),
						    .max_age_ns = heartbeat_max_age_ns(a),
						    .ends_ejections = agent_can_end_ejections(a) };
	__u64 serial = 0;
	struct err e = { "" };
	int r;

	describe_discovery(a, &values);
	agent_relay_told(a, &values.relay);
	r = datapath_heartbeat(a->dp, &values, &serial, &e);
	a->heartbeat_written = true;
	a->state->control.heartbeat_ns = values.now_ns;
	a->state->control.heartbeat_max_age_ns = values.max_age_ns;
	note_lock(a, r == -EBUSY);
	/* Somebody has run kubelb-load, probably with a changed file. */
	if (r == -ESTALE || (!r && serial != a->state->applied.serial)) {
		agent_reopen(a);
		if (!a->dp)
			return;
		/* Before the old configuration is written over what kubelb-load has just written.
		 */
		a->apply_after_ns = values.now_ns + RELOAD_FIRST_NS;
		agent_reload(a);
	} else if (r != -EBUSY) {
		log_failure(a->heartbeat_error, LOG_LEVEL_ERROR,
			    "cannot look whether the maps are the current ones", &e);
	}
}

/* The same where there are no maps. */
static void sign_of_life(struct agent *a)
{
	struct datapath_heartbeat_values values = { .now_ns = 0 };

	describe_discovery(a, &values);
	a->state->control.discovery = values.discovery;
	a->state->control.discovery_heard_ns = values.discovery_heard_ns;
	agent_sign_of_life(a, heartbeat_max_age_ns(a));
}

/* --- events -------------------------------------------------------------------------- */

/* What the agent does about connects by the maps. */
static void look_at_maps(struct agent *a)
{
	agent_review_removed(a);
	agent_review_resting(a);
	if (!a->wakeup)
		agent_handle_events(a);
	agent_check_dead_backends(a);
	agent_look_for_silence(a);
	agent_review_ejections(a);
	agent_rebalance(a);
	agent_failback(a);
}

/* The same while this process is the data path. */
static void look_at_relay(struct agent *a)
{
	agent_read_relayed(a);
	agent_note_events(a);
	agent_review_removed(a);
	agent_review_resting(a);
	agent_rebalance(a);
	agent_failback(a);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct agent *a = arg;

	(void)fd;
	(void)what;
	agent_review_data_path(a);
	if (!a->dp && !a->path.relaying)
		agent_reopen(a);
	agent_review_list(a);
	agent_review_local(a);
	if (a->dp)
		heartbeat(a);
	else if (a->path.relaying)
		sign_of_life(a);
	if (a->dirty)
		agent_apply(a);
	agent_relay_review(a);
	if (a->dp)
		look_at_maps(a);
	else if (a->path.relaying)
		look_at_relay(a);
	if (a->dp)
		agent_check_trials(a);
	if (a->dp)
		agent_hand_over_settings(a);
	agent_review_listeners(a);
	agent_check_relayed(a);
	agent_listen_http(a);
	agent_open_manager(a);
	agent_review_reading(a);
	/* What it is told ends the reload for it, and the end. */
	if (!a->reading && !a->ending)
		agent_notify(a);
}

static void on_hup(evutil_socket_t fd, short what, void *arg)
{
	struct agent *a = arg;

	(void)fd;
	(void)what;
	notify_reloading(a->notify);
	agent_reload(a);
}

/* How exactly the end of what is relayed is noticed. */
#define DRAIN_LOOK_MS 50

static void on_drain(evutil_socket_t fd, short what, void *arg)
{
	const struct timeval tv = clock_timeval(DRAIN_LOOK_MS);
	struct agent *a = arg;

	(void)fd;
	(void)what;
	if (agent_relay_drain(a) || event_add(a->drain_timer, &tv))
		event_base_loopbreak(a->base);
}

static void on_term(evutil_socket_t signal_number, short what, void *arg)
{
	struct agent *a = arg;

	(void)what;
	/* Whoever asks twice does not want to wait. */
	if (a->ending) {
		event_base_loopbreak(a->base);
		return;
	}
	log_event(LOG_LEVEL_INFO,
		  a->path.relaying ? "ending, no new connects are relayed, those that are may "
				     "end within relay.drain"
				   : "ending, the data path stays attached",
		  "signal=%d", (int)signal_number);
	notify_stopping(a->notify);
	a->ending = true;
	agent_review_listeners(a);
	on_drain(-1, 0, a);
}

static int make_events(struct agent *a, struct err *e)
{
	a->tick = event_new(a->base, -1, EV_PERSIST, on_tick, a);
	a->hup = evsignal_new(a->base, SIGHUP, on_hup, a);
	a->term = evsignal_new(a->base, SIGTERM, on_term, a);
	a->interrupt = evsignal_new(a->base, SIGINT, on_term, a);
	a->reconcile_timer = evtimer_new(a->base, agent_on_reconcile, a);
	a->evict_timer = evtimer_new(a->base, agent_on_evict, a);
	a->drain_timer = evtimer_new(a->base, on_drain, a);
	if (!a->reconcile_timer || !a->evict_timer || !a->drain_timer || !a->tick || !a->hup ||
	    !a->term || !a->interrupt || event_add(a->hup, NULL) || event_add(a->term, NULL) ||
	    event_add(a->interrupt, NULL) || agent_listen_attacher(a))
		return err_set(e, ENOMEM, "cannot set up events");
	return 0;
}

/* --- start and end ------------------------------------------------------------------- */

static void agent_free(struct agent *a)
{
	struct event *events[] = {
		a->tick,	a->hup,		a->term,	 a->interrupt, a->reconcile_timer,
		a->evict_timer, a->drain_timer, a->attach_result
	};

	agent_close_http(a, NULL);
	agent_relay_free(a);
	discovery_free(a->discovery);
	worker_cancel(a->reading);
	agent_end_saving(a);
	filewatch_free(a->watch);
	notify_free(a->notify);
	agent_stop_backends(a);
	agent_free_removed(a);
	agent_free_resting(a);
	agent_free_history(a);
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

	a->start_time = a->reload_time = (double)clock_wall_ns() / NS_PER_S;
	if (r) {
		config_free(cfg);
		return r;
	}
	r = agent_begin_data_path(a, cfg, e);
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
		agent_begin_history(&a);
		event_base_dispatch(a.base);
		if (a.fatal.text[0])
			r = err_set(e, EIO, "%s", a.fatal.text);
	}
	agent_free(&a);
	return r;
}
