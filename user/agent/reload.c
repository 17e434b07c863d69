/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the configuration: at the start, after changes of files, and on SIGHUP. */
#include "agent/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "base/array.h"
#include "base/clock.h"
#include "host/file_watch.h"
#include "host/node.h"
#include "host/worker.h"

void agent_needs(const struct config *cfg, struct privileges_need *ret)
{
	bool relays = cfg->data_path != CONFIG_DATA_PATH_KERNEL;

	*ret = (struct privileges_need){ .low_port = cfg->http_enabled && cfg->http.port < 1024,
					 .relay = cfg->data_path == CONFIG_DATA_PATH_RELAY };
	for (unsigned int i = 0; i < cfg->n_frontends; i++) {
		bool network = cfg->frontends[i].scope == KLB_SCOPE_NETWORK;

		ret->pods |= cfg->frontends[i].scope == KLB_SCOPE_ALL;
		ret->low_port |= (relays || network) && cfg->frontends[i].endpoint.port < 1024;
	}
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

/*
 * The longest interval of the heartbeat, which is never older than a second then, even if a tick
 * comes late. It is shorter when probes are more frequent.
 */
#define HEARTBEAT_MS 800

static unsigned int tick_ms(const struct agent *a)
{
	unsigned int interval = a->config->probe.interval_ms;

	return interval < HEARTBEAT_MS ? interval : HEARTBEAT_MS;
}

void agent_set_tick(struct agent *a)
{
	const struct timeval tv = clock_timeval(tick_ms(a));

	/* It would begin anew, and come late after each of many reloads. */
	if (a->tick_ms == tick_ms(a))
		return;
	a->tick_ms = tick_ms(a);
	event_add(a->tick, &tv);
}

static void on_file_changed(void *arg)
{
	struct agent *a = arg;

	log_event(LOG_LEVEL_INFO, "a file of the configuration has changed", "file=%s",
		  log_quoted(a->options->config_path));
	agent_reload(a);
}

/* A reload makes a new watch, which may meet the same limit: that is told already. */
static void on_watch_slow(void *arg, const char *why)
{
	struct agent *a = arg;
	struct err e = { "" };

	if (why)
		err_set(&e, EMFILE, "%s", why);
	else if (a->watch_error[0])
		log_event(LOG_LEVEL_INFO, "changes of files are noticed at once again", "");
	log_failure(a->watch_error, LOG_LEVEL_WARN,
		    "changes of files are noticed late: up to a minute later, or with SIGHUP", &e);
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
	static const struct filewatch_ops ops = { .changed = on_file_changed,
						  .slow = on_watch_slow };
	struct filewatch *watch = NULL;
	struct err e = { "" };

	if (filewatch_new(a->base, files, ARRAY_SIZE(files), &ops, a, &watch, &e))
		log_event(LOG_LEVEL_WARN, "changes of files are not noticed, send SIGHUP after one",
			  "error=%s", log_quoted(e.text));
	/* The old watch still watches the configuration itself. */
	if (!watch)
		return;
	filewatch_free(a->watch);
	a->watch = watch;
}

/* Takes ownership of file on success, and of tls in any case. */
static int take_read(struct agent *a, struct config *file, struct probe_tls *tls, struct err *e)
{
	struct config *old = a->file;
	int r;

	if (a->tls && probe_tls_is_same(a->tls, tls)) {
		probe_tls_free(tls);
		tls = a->tls;
	}
	if (a->options->relay)
		file->data_path = CONFIG_DATA_PATH_RELAY;
	r = agent_take_effective(a, file, tls, e);
	if (r) {
		if (tls != a->tls)
			probe_tls_free(tls);
		return r;
	}
	a->file = file;
	warn_about_privileges(a);
	watch_files(a, file);
	if (!old || !config_same_discovery(old, file))
		r = agent_start_discovery(a, e);
	config_free(old);
	return r;
}

int agent_take_file(struct agent *a, struct config *file, struct err *e)
{
	struct probe_tls *tls = NULL;
	int r = probe_tls_new(&file->probe, &tls, e);

	return r ? r : take_read(a, file, tls, e);
}

/* --- again --------------------------------------------------------------------------- */

/* What the thread reads: a disk may hang. */
struct reading {
	char *path;
	struct config *config;
	struct probe_tls *tls;
	int r;
	struct err e;
};

static void reading_drop(void *data)
{
	struct reading *reading = data;

	config_free(reading->config);
	probe_tls_free(reading->tls);
	free(reading->path);
	free(reading);
}

static void reading_work(void *data)
{
	struct reading *reading = data;

	reading->r = config_load(reading->path, node_has_ipv6(), &reading->config, &reading->e);
	if (!reading->r)
		reading->r = probe_tls_new(&reading->config->probe, &reading->tls, &reading->e);
}

static void reload_failed(struct agent *a, const struct err *e)
{
	a->reloads_failed++;
	a->reload_refused = true;
	snprintf(a->reload_error, sizeof(a->reload_error), "%s", e->text);
	log_event(LOG_LEVEL_ERROR, "configuration not reloaded, the old one stays", "error=%s",
		  log_quoted(e->text));
}

/* Takes what was read. Reports an invalid configuration and keeps the old one. */
static void take_reading(struct agent *a, struct reading *reading)
{
	struct config *file = reading->config;
	struct probe_tls *tls = reading->tls;
	int r = reading->r;

	reading->tls = NULL;
	if (!r)
		r = take_read(a, file, tls, &reading->e);
	if (a->file == file)
		reading->config = NULL;
	else if (file)
		/* What it lacks may be a file that comes a moment later. */
		watch_files(a, file);
	if (r) {
		reload_failed(a, &reading->e);
		return;
	}
	a->reloads_ok++;
	a->reload_time = (double)clock_wall_ns() / NS_PER_S;
	a->reload_refused = false;
	log_event(LOG_LEVEL_INFO, "configuration reloaded", "file=%s frontends=%u backends=%u",
		  log_quoted(a->options->config_path), a->config->n_frontends,
		  a->config->n_backends);
	agent_set_tick(a);
	agent_review_data_path(a);
	agent_listen_http(a);
}

static void reading_done(void *arg, void *data)
{
	struct agent *a = arg;

	a->reading = NULL;
	if (a->reading_logged)
		log_event(LOG_LEVEL_INFO, "the files of the configuration were read after all", "");
	a->reading_logged = false;
	take_reading(a, data);
	/* A file may have changed after it was read. */
	if (a->read_again)
		agent_reload(a);
	else
		a->apply_after_ns = 0;
	agent_apply(a);
	if (!a->reading && !a->ending)
		agent_notify(a);
}

/* Returns NULL when memory is short. */
static struct reading *make_reading(const struct agent *a)
{
	struct reading *reading = calloc(1, sizeof(*reading));

	if (reading)
		reading->path = strdup(a->options->config_path);
	if (reading && reading->path)
		return reading;
	free(reading);
	return NULL;
}

void agent_reload(struct agent *a)
{
	static const struct worker_ops ops = { .work = reading_work,
					       .done = reading_done,
					       .drop = reading_drop };
	struct reading *reading;
	struct err e = { "" };

	/* One that hangs is enough. */
	a->read_again = a->reading != NULL;
	if (a->reading)
		return;
	reading = make_reading(a);
	a->reading_since_ns = clock_now_ns();
	if (!reading)
		err_no_memory(&e);
	if (!reading || worker_start(a->base, &ops, a, reading, &a->reading, &e))
		reload_failed(a, &e);
}

/* A disk that answers does so much faster. */
#define READING_PATIENCE_NS (3 * NS_PER_S)

void agent_review_reading(struct agent *a)
{
	if (!a->reading || a->reading_logged ||
	    clock_now_ns() - a->reading_since_ns < READING_PATIENCE_NS)
		return;
	a->reading_logged = true;
	log_event(LOG_LEVEL_WARN,
		  "the files of the configuration cannot be read for now, the old one stays: the "
		  "disk that they are on does not answer",
		  "file=%s", log_quoted(a->options->config_path));
}
