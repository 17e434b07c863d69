/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the configuration: at the start, after changes of files, and on SIGHUP. */
#include "agent/internal.h"

#include <stdlib.h>

#include <event2/event.h>

#include "base/array.h"
#include "base/clock.h"
#include "host/file_watch.h"
#include "host/node.h"

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

/* The longest interval of the heartbeat. It is shorter when probes are more frequent. */
#define HEARTBEAT_MS 1000

static unsigned int tick_ms(const struct agent *a)
{
	unsigned int interval = a->config->probe.interval_ms;

	return interval < HEARTBEAT_MS ? interval : HEARTBEAT_MS;
}

void agent_set_tick(struct agent *a)
{
	const struct timeval tv = clock_timeval(tick_ms(a));

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
		r = agent_take_effective(a, file, tls, e);
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
	if (!old || !config_same_discovery(old, file))
		r = agent_start_discovery(a, e);
	config_free(old);
	return r;
}

/* Reports an invalid configuration and keeps the old one. */
void agent_reload(struct agent *a)
{
	struct config *cfg = NULL;
	struct err e = { "" };
	int r = config_load(a->options->config_path, node_has_ipv6(), &cfg, &e);

	if (!r)
		r = agent_take_file(a, cfg, &e);
	if (r) {
		if (cfg != a->file)
			config_free(cfg);
		a->reloads_failed++;
		a->reload_refused = true;
		log_event(LOG_LEVEL_ERROR, "configuration not reloaded, the old one stays",
			  "error=%s", log_quoted(e.text));
		return;
	}
	a->reloads_ok++;
	a->reload_refused = false;
	log_event(LOG_LEVEL_INFO, "configuration reloaded", "file=%s frontends=%u backends=%u",
		  log_quoted(a->options->config_path), a->config->n_frontends,
		  a->config->n_backends);
	agent_set_tick(a);
	agent_apply(a);
	agent_listen_http(a);
}
