/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lists the EndpointSlices, watches them, and begins again after a failure.
 *
 *           ┌────────────────── backoff ◄─────────── whatever fails ◄──────────┐
 *           ▼                                                                  │
 *   IDLE ─► LOADING ─► CONNECTING ─► LISTING ─► WATCHING ── its time is up ─► IDLE
 *                            └── the version is known ─▲
 *
 * A connection carries at most one list and one watch, and lasts for minutes. The next one reads
 * the credentials again, and the kernel balances it anew.
 */
#include "base/array.h"
#include "base/clock.h"
#include "base/pace.h"
#include "base/random.h"
#include "discovery/discovery.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>
#include <event2/util.h>

#include "discovery/internal.h"
#include "net/endpoint.h"
#include "base/redact.h"

#define MS_NS 1000000ULL

#define SLICES_PATH                                                   \
	"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices" \
	"?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes"
#define PATH_TEXT_MAX 384

/* After so many failed watches in a row, the version itself may be wrong: list again. */
#define WATCH_FAILURES_MAX 3

const struct discovery_timing discovery_timing_default = {
	.connect = 10000,
	.answer = 30000,
	.line = 30000,
	.silence = 180000,
	.watch = 300000,
	.stable = 10000,
	.relist = 3600000,
	.backoff_min = 500,
	.backoff_max = 30000,
	.forbidden = 45000,
};

/* One event of the largest size, and a quarter; to read that much takes a quarter of a second. */
#define EVENTS_BURST (DISCOVERY_TEXT_MAX + DISCOVERY_TEXT_MAX / 4)

/* A quarter of a MiB of events a second takes some three per cent of a CPU. */
const struct discovery_pace discovery_pace_default = {
	.lists = { .burst = 5, .every_ms = 2000 },
	.events = { .burst = EVENTS_BURST, .per_s = 256 << 10 },
};

enum phase { PHASE_IDLE, PHASE_LOADING, PHASE_CONNECTING, PHASE_LISTING, PHASE_WATCHING };

struct discovery {
	struct event_base *base;
	struct discovery_ops ops;
	void *arg;
	char *kubeconfig, *service_account;
	struct klb_endpoint *frontends;
	unsigned int n_frontends;
	bool has_server;
	bool cache_doubtful; /* whether it holds the current list */
	struct klb_endpoint server;
	struct discovery_timing timing;
	struct discovery_pace pace;
	bool paced;
	struct cache_writer *cache; /* NULL: none */

	/* The attempt under way. */
	enum phase phase;
	bool succeeded; /* the attempt has brought a list or a watch */
	bool timer_is_watch_end; /* the timer is set for the end of the watch */
	struct event *timer; /* the phase's end */
	struct event *take_timer; /* when the slices may be taken, which have changed meanwhile */
	struct ration taken;
	struct pace read;
	struct credentials *credentials;
	struct tls *tls;
	struct api_connection *connection;
	/* Reads the files, which may hang. It may outlive its attempt, and serves the next one
	 * then. */
	struct worker *loading;
	__u64 opened_ns; /* 0: not yet */
	__u64 watch_end_ns; /* when the apiserver should have ended it */
	__u64 line_ns; /* since when there is a part of an event; 0: none */

	/* What is known from the apiserver. */
	struct slices slices;
	char version[DISCOVERY_VERSION_MAX + 1];
	bool need_list;
	__u64 relist_ns; /* when to list again in any case */
	unsigned int failures, watch_failures; /* in a row */

	/* The current list. */
	unsigned int n;
	struct klb_endpoint list[KLB_MAX_BACKENDS];
	__u64 changed_ns, heard_ns, failed_ns;
	char error[ERR_TEXT_MAX];
	bool empty; /* the last list was empty, and was not applied */
	bool failing; /* the last result told was a failure */
	/* Which warnings have been given. */
	bool warned_insecure, warned_many;
	unsigned int warned_unusable;

	/* Ops may call discovery_free: it is done when the last event is over. */
	unsigned int calling;
	bool freed;
};

const char *discovery_result_name(enum discovery_result result)
{
	static const char *const names[DISCOVERY_RESULTS] = {
		[DISCOVERY_APPLIED] = "applied",     [DISCOVERY_UNCHANGED] = "unchanged",
		[DISCOVERY_EMPTY] = "empty",	     [DISCOVERY_EXPIRED] = "expired",
		[DISCOVERY_FORBIDDEN] = "forbidden", [DISCOVERY_CREDENTIALS] = "credentials",
		[DISCOVERY_ERROR] = "error",
	};

	return names[result];
}

/* --- telling the owner --------------------------------------------------------------- */

static void tell_result(struct discovery *d, enum discovery_result result, const char *detail)
{
	d->failing = result >= DISCOVERY_FORBIDDEN;
	if (!d->freed)
		d->ops.result(d->arg, result, detail);
}

static void tell_warning(struct discovery *d, const char *text)
{
	if (!d->freed)
		d->ops.warning(d->arg, text);
}

static void on_cache_failed(void *arg, const char *why)
{
	struct discovery *d = arg;
	struct err e;

	d->cache_doubtful = true;
	err_set(&e, EIO, "the list could not be cached, the next boot finds an older one: %s", why);
	tell_warning(d, e.text);
}

/* --- time ---------------------------------------------------------------------------- */

static void arm(struct discovery *d, unsigned int ms)
{
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000 };

	event_add(d->timer, &tv);
}

static void arm_at(struct discovery *d, __u64 ns)
{
	__u64 now = clock_now_ns();

	arm(d, ns > now ? (unsigned int)((ns - now) / MS_NS) + 1 : 0);
}

/* Doubles with each failure. Half of it is random, as thousands of nodes may wait. */
static unsigned int backoff(const struct discovery *d)
{
	unsigned int ms = d->timing.backoff_min, i;

	for (i = 1; i < d->failures && ms < d->timing.backoff_max; i++)
		ms *= 2;
	if (ms > d->timing.backoff_max)
		ms = d->timing.backoff_max;
	return random_between(ms / 2, ms);
}

/* --- the end of an attempt ----------------------------------------------------------- */

static void drop_attempt(struct discovery *d)
{
	api_connection_free(d->connection);
	tls_free(d->tls);
	credentials_free(d->credentials);
	d->connection = NULL;
	d->tls = NULL;
	d->credentials = NULL;
	d->phase = PHASE_IDLE;
}

/*
 * An apiserver that closes each connection at once gets no more attempts than one that is down: a
 * connection counts as a success only when it has lasted.
 */
static void end_attempt(struct discovery *d, unsigned int wait_at_least)
{
	unsigned int wait;

	if (d->succeeded && clock_now_ns() - d->opened_ns >= d->timing.stable * MS_NS)
		d->failures = 0;
	d->failures++;
	wait = backoff(d);
	if (wait < wait_at_least)
		wait = random_between(wait_at_least / 2, wait_at_least);
	drop_attempt(d);
	arm(d, wait);
}

/* An error that quotes the answer may contain the token. */
static bool has_secret(const struct discovery *d, const char *text)
{
	const char *token = d->credentials ? d->credentials->token.data : NULL;

	return token && secret_is_in(text, token);
}

static void fail(struct discovery *d, enum discovery_result result, const char *detail)
{
	struct err e;

	if (d->freed)
		return;
	err_set(&e, EIO, "%s",
		has_secret(d, detail) ? "the answer repeats the token: not shown" : detail);
	snprintf(d->error, sizeof(d->error), "%s", e.text);
	d->failed_ns = clock_now_ns();
	if (d->phase == PHASE_WATCHING && ++d->watch_failures >= WATCH_FAILURES_MAX)
		d->need_list = true;
	end_attempt(d, result == DISCOVERY_FORBIDDEN ? d->timing.forbidden : 0);
	tell_result(d, result, e.text);
}

/* --- the current list ---------------------------------------------------------------- */

static void warn_about(struct discovery *d, const struct slices_merged *m)
{
	struct err e;

	if (m->total > KLB_MAX_BACKENDS && !d->warned_many) {
		err_set(&e, E2BIG,
			"the cluster has %u apiservers, of which the first %d by address "
			"are used",
			m->total, KLB_MAX_BACKENDS);
		tell_warning(d, e.text);
	}
	d->warned_many = m->total > KLB_MAX_BACKENDS;
	if (m->unusable && m->unusable != d->warned_unusable) {
		err_set(&e, EINVAL,
			"%u endpoints are not used: without a port named https, or with "
			"an address that no apiserver has (a frontend, loopback, "
			"link-local, a name)",
			m->unusable);
		tell_warning(d, e.text);
	}
	d->warned_unusable = m->unusable;
}

static void describe_list(const struct klb_endpoint *list, unsigned int n, struct err *e)
{
	char text[ENDPOINT_TEXT_MAX];
	unsigned int i;

	err_set(e, EIO, "%u endpoint%s:", n, n == 1 ? "" : "s");
	for (i = 0; i < n; i++)
		err_set(e, EIO, "%s %s", e->text, endpoint_format(&list[i], text));
}

static void keep(struct discovery *d)
{
	d->cache_doubtful = false;
	cache_writer_put(d->cache, d->list, d->n);
}

static void adopt(struct discovery *d, const struct slices_merged *m)
{
	struct err e;

	memcpy(d->list, m->list, sizeof(d->list));
	d->n = m->n;
	d->changed_ns = d->heard_ns;
	describe_list(m->list, m->n, &e);
	keep(d);
	if (!d->freed)
		d->ops.updated(d->arg, m->list, m->n);
	tell_result(d, DISCOVERY_APPLIED, e.text);
}

static void refuse_empty(struct discovery *d, const struct slices_merged *m)
{
	struct err e;

	err_set(&e, EINVAL,
		"the apiserver names no usable endpoint in %u EndpointSlices (%u not ready, %u not "
		"usable), which is not believed: the last list stays",
		d->slices.n, m->not_ready, m->unusable);
	memcpy(d->error, e.text, sizeof(d->error));
	d->failed_ns = clock_now_ns();
	tell_result(d, DISCOVERY_EMPTY, e.text);
}

/* Applies the list that the slices make up. */
static void apply_slices(struct discovery *d)
{
	struct slices_merged m;

	slices_merge(&d->slices, d->frontends, d->n_frontends, &m);
	d->heard_ns = clock_now_ns();
	warn_about(d, &m);
	d->empty = !m.n;
	if (d->empty) {
		refuse_empty(d, &m);
		return;
	}
	d->error[0] = '\0';
	if (m.n != d->n || memcmp(m.list, d->list, m.n * sizeof(*m.list)) != 0) {
		adopt(d, &m);
		return;
	}
	if (d->cache_doubtful)
		keep(d);
	tell_result(d, DISCOVERY_UNCHANGED, "the list is the same");
}

/*
 * Applies them now, or at the end of the period if they change often: of what comes meanwhile, only
 * the newest counts. What follows from a list costs the node more than an event costs its sender.
 */
static void take_slices(struct discovery *d)
{
	__u64 now = clock_now_ns();
	struct timeval wait;

	if (event_pending(d->take_timer, EV_TIMEOUT, NULL))
		return;
	if (!d->paced || ration_take(&d->taken, &d->pace.lists, now)) {
		apply_slices(d);
		return;
	}
	wait = clock_timeval(ration_wait_ms(&d->taken, &d->pace.lists, now));
	event_add(d->take_timer, &wait);
}

/* --- list ---------------------------------------------------------------------------- */

struct refusal {
	unsigned int status;
	enum discovery_result result;
	const char *what, *next;
};

static const struct refusal *find_refusal(unsigned int status)
{
	static const struct refusal refusals[] = {
		{ 401, DISCOVERY_FORBIDDEN, "the apiserver does not accept the credentials",
		  "; renew those of discovery.kubeconfig, or name another one" },
		{ 403, DISCOVERY_FORBIDDEN,
		  "may not list and watch endpointslices in namespace default",
		  "; allow it by RBAC, as kubelb.yaml(5) shows" },
		{ 404, DISCOVERY_ERROR, "no EndpointSlices (discovery.k8s.io/v1) here",
		  "; they need Kubernetes 1.21 or later" },
		{ 410, DISCOVERY_EXPIRED, "the watch fell behind, listing anew", "" },
	};
	static const struct refusal other = { 0, DISCOVERY_ERROR,
					      "not the answer that was asked for", "" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(refusals); i++)
		if (refusals[i].status == status)
			return &refusals[i];
	return &other;
}

/*
 * Whether the status is about the version that the watch began with. Any other status, such as that
 * of an overloaded apiserver, must not make thousands of nodes ask for the list as well. If the
 * version is wrong nevertheless, WATCH_FAILURES_MAX finds that out.
 */
static bool version_may_be_wrong(unsigned int status)
{
	return status == 400 || status == 404 || status == 410;
}

/* Whoever has no credentials is system:anonymous, or gets 401. */
static const char *next_step(const struct discovery *d, const struct refusal *refusal)
{
	bool anonymous = !d->credentials->token.data && !d->credentials->cert.file &&
			 !d->credentials->cert.data;

	if (refusal->result == DISCOVERY_FORBIDDEN && anonymous)
		return "; discovery.kubeconfig has no credentials for the current user, give it a "
		       "client-certificate and client-key, or a token";
	return refusal->next;
}

static void refuse_status(struct discovery *d, unsigned int status)
{
	const struct refusal *refusal = find_refusal(status);
	size_t length;
	const char *text = text_all(api_connection_text(d->connection), &length);
	char message[256];
	struct err e;

	slices_status_message(text, length, d->credentials->token.data, message, sizeof(message));
	d->need_list |= version_may_be_wrong(status);
	err_set(&e, EIO, "%u: %s%s%s%s", status, refusal->what, *message ? ": " : "", message,
		next_step(d, refusal));
	fail(d, refusal->result, e.text);
}

static void start_get(struct discovery *d, enum phase phase, const char *path, size_t content_max)
{
	d->phase = phase;
	if (api_connection_get(d->connection, path, content_max) < 0)
		fail(d, DISCOVERY_ERROR, "out of memory");
	else
		arm(d, d->timing.answer);
}

/*
 * The first list may come from any apiserver's cache, which costs etcd nothing, and the watch soon
 * corrects it. A list that replaces a state in doubt must be the newest.
 */
static void start_list(struct discovery *d)
{
	start_get(d, PHASE_LISTING, d->version[0] ? SLICES_PATH : SLICES_PATH "&resourceVersion=0",
		  DISCOVERY_TEXT_MAX);
}

static void start_watch(struct discovery *d)
{
	unsigned int ms = random_between(d->timing.watch, 2 * d->timing.watch);
	char path[PATH_TEXT_MAX];

	snprintf(path, sizeof(path),
		 "%s&watch=true&allowWatchBookmarks=true&timeoutSeconds=%u&resourceVersion=%s",
		 SLICES_PATH, ms / 1000 ? ms / 1000 : 1, d->version);
	d->watch_end_ns = clock_now_ns() + (ms + d->timing.answer) * MS_NS;
	d->line_ns = 0;
	start_get(d, PHASE_WATCHING, path, SIZE_MAX);
}

static void take_list(struct discovery *d)
{
	size_t length;
	const char *text = text_all(api_connection_text(d->connection), &length);
	unsigned int relist = d->timing.relist;
	struct err e;

	if (slices_list(&d->slices, text, length, d->version, &e) < 0) {
		fail(d, DISCOVERY_ERROR, e.text);
		return;
	}
	text_free(api_connection_text(d->connection));
	d->succeeded = true;
	d->need_list = false;
	d->watch_failures = 0;
	/* The file may have been replaced or removed while the list stayed the same. */
	d->cache_doubtful = true;
	d->relist_ns = clock_now_ns() + random_around(relist, 25) * MS_NS;
	take_slices(d);
	if (d->freed)
		return;
	if (api_connection_is_kept(d->connection))
		start_watch(d);
	else
		end_attempt(d, 0);
}

/* --- watch --------------------------------------------------------------------------- */

/* What is read costs time, whether it says something or not. */
static int pay_for(struct discovery *d, size_t length, struct err *e)
{
	if (!d->paced || pace_take(&d->read, &d->pace.events, (unsigned int)length, clock_now_ns()))
		return 0;
	return err_set(e, EBUSY, "the watch says more than an apiserver has to say, listing anew");
}

/* Applies every complete event. Returns 0, or a negative errno with e. */
static int take_events(struct discovery *d, bool *changed, struct err *e)
{
	struct text *text = api_connection_text(d->connection);
	enum slices_event event;
	size_t length;
	const char *line;
	int r = 0;

	while (!r && (line = text_line(text, &length))) {
		if (length) {
			r = pay_for(d, length, e);
			if (!r)
				r = slices_watch(&d->slices, line, length, d->version, &event, e);
			if (!r && event == SLICES_EVENT_EXPIRED)
				r = err_set(e, ESTALE, "410: the watch fell behind, listing anew");
			else if (!r && event == SLICES_EVENT_CHANGE)
				*changed = true;
			d->line_ns = 0;
		}
		text_drop(text, length + 1);
	}
	return r;
}

/* Returns false when the watch is over. */
static bool take_news(struct discovery *d)
{
	size_t before = text_length(api_connection_text(d->connection));
	bool changed = false;
	struct err e;
	int r = take_events(d, &changed, &e);

	d->succeeded = true;
	if (!d->empty)
		d->error[0] = '\0';
	if (changed || before != text_length(api_connection_text(d->connection))) {
		d->watch_failures = 0;
		d->heard_ns = clock_now_ns();
	}
	/* Events before the failure are valid. */
	if (changed)
		take_slices(d);
	if (d->freed)
		return false;
	if (r) {
		d->need_list = true;
		fail(d, r == -ESTALE ? DISCOVERY_EXPIRED : DISCOVERY_ERROR, e.text);
		return false;
	}
	return true;
}

/*
 * Reports that a watch has begun after a failure, and that the current list is still valid. Without
 * this there may be no report for an hour: most clusters' apiservers never change.
 */
static void tell_recovery(struct discovery *d)
{
	if (d->failing && !d->empty)
		tell_result(d, DISCOVERY_UNCHANGED, "the watch has begun again");
}

static void await_news(struct discovery *d)
{
	__u64 now = clock_now_ns(), until = now + d->timing.silence * MS_NS;

	/* An event that has begun must be complete within a time limit. */
	if (text_length(api_connection_text(d->connection))) {
		if (!d->line_ns)
			d->line_ns = now;
		until = d->line_ns + d->timing.line * MS_NS;
	}
	d->timer_is_watch_end = d->watch_end_ns < until;
	arm_at(d, d->timer_is_watch_end ? d->watch_end_ns : until);
}

static void end_watch(struct discovery *d)
{
	if (!take_news(d))
		return;
	if (text_length(api_connection_text(d->connection)))
		fail(d, DISCOVERY_ERROR, "the watch ended in the middle of an event");
	else
		end_attempt(d, 0);
}

/* --- events -------------------------------------------------------------------------- */

static void release(struct discovery *d)
{
	if (d->timer)
		event_free(d->timer);
	if (d->take_timer)
		event_free(d->take_timer);
	cache_writer_free(d->cache);
	slices_clear(&d->slices);
	free(d->kubeconfig);
	free(d->service_account);
	free(d->frontends);
	free(d);
}

static void enter_event(struct discovery *d)
{
	d->calling++;
}

/* d may be gone afterwards. */
static void leave_event(struct discovery *d)
{
	if (--d->calling == 0 && d->freed)
		release(d);
}

static void on_opened(void *arg)
{
	struct discovery *d = arg;

	enter_event(d);
	d->opened_ns = clock_now_ns();
	if (d->need_list || clock_now_ns() >= d->relist_ns)
		start_list(d);
	else
		start_watch(d);
	leave_event(d);
}

static void on_content(void *arg)
{
	struct discovery *d = arg;

	enter_event(d);
	/* A list is used only when it is complete. */
	if (d->phase == PHASE_WATCHING && take_news(d)) {
		await_news(d);
		tell_recovery(d);
	}
	leave_event(d);
}

static void on_answered(void *arg, unsigned int status)
{
	struct discovery *d = arg;

	enter_event(d);
	if (status != 200)
		refuse_status(d, status);
	else if (d->phase == PHASE_LISTING)
		take_list(d);
	else
		end_watch(d);
	leave_event(d);
}

static void on_failed(void *arg, const char *why)
{
	struct discovery *d = arg;

	enter_event(d);
	fail(d, DISCOVERY_ERROR, why);
	leave_event(d);
}

static void warn_insecure(struct discovery *d)
{
	if (!d->credentials->insecure || d->warned_insecure)
		return;
	d->warned_insecure = true;
	tell_warning(d, "insecure-skip-tls-verify: the apiserver's certificate is NOT verified: "
			"whoever answers decides where this node's connects go");
}

static struct tls_pem pem_of(const struct credential *c)
{
	return (struct tls_pem){
		.key = c->key, .data = c->data, .length = c->length, .file = c->file
	};
}

static bool copy_text(char **ret, const char *text)
{
	if (text)
		*ret = strdup(text);
	return !text || *ret;
}

/* What the thread reads, and what has come of it. */
struct load_job {
	char *kubeconfig, *service_account;
	struct credentials *credentials;
	struct tls *tls;
	int r;
	struct err e;
};

static void load_drop(void *data)
{
	struct load_job *job = data;

	tls_free(job->tls);
	credentials_free(job->credentials);
	free(job->kubeconfig);
	free(job->service_account);
	free(job);
}

static void load_work(void *data)
{
	static const struct tls_words words = {
		.peer = "apiserver",
		.give_certificate = "add client-certificate and client-key to the kubeconfig",
	};
	struct tls_options options = { .words = &words };
	struct load_job *job = data;
	struct credentials *c;

	job->r =
		credentials_load(job->kubeconfig, job->service_account, &job->credentials, &job->e);
	if (job->r)
		return;
	c = job->credentials;
	options.ca = pem_of(&c->ca);
	options.cert = pem_of(&c->cert);
	options.key = pem_of(&c->key);
	options.insecure = c->insecure;
	job->r = tls_new(&options, &job->tls, &job->e);
}

static void connect_to_server(struct discovery *d)
{
	static const struct api_connection_ops ops = {
		.opened = on_opened,
		.content = on_content,
		.answered = on_answered,
		.failed = on_failed,
	};
	struct err e;

	warn_insecure(d);
	if (d->freed)
		return;
	d->phase = PHASE_CONNECTING;
	if (api_connection_open(d->base, d->has_server ? &d->server : NULL, d->failures,
				d->credentials, d->tls, &ops, d, &d->connection, &e) < 0)
		fail(d, DISCOVERY_ERROR, e.text);
	else
		arm(d, d->timing.connect);
}

static void on_loaded(void *arg, void *data)
{
	struct load_job *job = data;
	struct discovery *d = arg;

	d->loading = NULL;
	/* Too late for its attempt, and too old for the next. */
	if (d->phase != PHASE_LOADING)
		return;
	enter_event(d);
	if (job->r) {
		fail(d, DISCOVERY_CREDENTIALS, job->e.text);
	} else {
		d->credentials = job->credentials;
		d->tls = job->tls;
		job->credentials = NULL;
		job->tls = NULL;
		connect_to_server(d);
	}
	leave_event(d);
}

static int start_loading(struct discovery *d, struct err *e)
{
	static const struct worker_ops ops = { .work = load_work,
					       .done = on_loaded,
					       .drop = load_drop };
	struct load_job *job = calloc(1, sizeof(*job));

	if (!job || !copy_text(&job->kubeconfig, d->kubeconfig) ||
	    !copy_text(&job->service_account, d->service_account)) {
		if (job)
			load_drop(job);
		return err_no_memory_for(e, "discovery");
	}
	return worker_start(d->base, &ops, d, job, &d->loading, e);
}

static void attempt(struct discovery *d)
{
	struct err e;

	d->opened_ns = 0;
	d->succeeded = false;
	d->phase = PHASE_LOADING;
	/* A thread that hangs is enough. */
	if (!d->loading && start_loading(d, &e) < 0)
		fail(d, DISCOVERY_ERROR, e.text);
	else
		arm(d, d->timing.connect);
}

static void time_out(struct discovery *d)
{
	struct err e;

	switch (d->phase) {
	case PHASE_LOADING:
		err_set(&e, ETIMEDOUT,
			"the files of the credentials are not read within %u ms: the disk hangs",
			d->timing.connect);
		break;
	case PHASE_CONNECTING:
		err_set(&e, ETIMEDOUT, "no connection within %u ms", d->timing.connect);
		break;
	case PHASE_LISTING:
		err_set(&e, ETIMEDOUT, "no whole answer to the list within %u ms",
			d->timing.answer);
		break;
	default:
		if (api_connection_status(d->connection) != 200)
			err_set(&e, ETIMEDOUT, "no whole answer to the watch within %u ms",
				d->timing.answer);
		else if (d->timer_is_watch_end)
			err_set(&e, ETIMEDOUT, "the watch goes on beyond its time");
		else if (d->line_ns)
			err_set(&e, ETIMEDOUT, "an event is not complete within %u ms",
				d->timing.line);
		else
			err_set(&e, ETIMEDOUT, "the watch is silent for %u ms", d->timing.silence);
	}
	fail(d, DISCOVERY_ERROR, e.text);
}

static void on_timer(evutil_socket_t fd __attribute__((unused)), short what __attribute__((unused)),
		     void *arg)
{
	struct discovery *d = arg;

	enter_event(d);
	if (d->phase == PHASE_IDLE)
		attempt(d);
	else
		time_out(d);
	leave_event(d);
}

static void on_take(evutil_socket_t fd __attribute__((unused)), short what __attribute__((unused)),
		    void *arg)
{
	struct discovery *d = arg;

	enter_event(d);
	ration_take(&d->taken, &d->pace.lists, clock_now_ns());
	apply_slices(d);
	leave_event(d);
}

/* --- life ---------------------------------------------------------------------------- */

static bool copy_options(struct discovery *d, const struct discovery_options *o)
{
	unsigned int i;

	if (!copy_text(&d->kubeconfig, o->kubeconfig) ||
	    !copy_text(&d->service_account, o->service_account))
		return false;
	d->timing = o->timing ? *o->timing : discovery_timing_default;
	d->paced = o->pace;
	if (o->pace)
		d->pace = *o->pace;
	d->has_server = o->server;
	if (o->server)
		d->server = *o->server;
	for (i = 0; i < o->n_initial && i < KLB_MAX_BACKENDS; i++)
		d->list[d->n++] = o->initial[i];
	qsort(d->list, d->n, sizeof(*d->list), discovery_compare);
	d->frontends = calloc(o->n_frontends + 1, sizeof(*d->frontends));
	if (!d->frontends)
		return false;
	for (i = 0; i < o->n_frontends; i++)
		d->frontends[d->n_frontends++] = o->frontends[i];
	return !o->cache || cache_writer_new(d->base, o->cache, on_cache_failed, d, &d->cache) == 0;
}

int discovery_new(struct event_base *base, const struct discovery_options *o,
		  const struct discovery_ops *ops, void *arg, struct discovery **ret, struct err *e)
{
	struct discovery *d = calloc(1, sizeof(*d));

	if (!d)
		return err_no_memory_for(e, "discovery");
	d->base = base;
	d->ops = *ops;
	d->arg = arg;
	d->need_list = true;
	d->timer = evtimer_new(base, on_timer, d);
	d->take_timer = evtimer_new(base, on_take, d);
	if (!d->timer || !d->take_timer || !copy_options(d, o)) {
		release(d);
		return err_no_memory_for(e, "discovery");
	}
	*ret = d;
	return 0;
}

void discovery_start(struct discovery *d)
{
	arm(d, 0);
}

void discovery_free(struct discovery *d)
{
	if (!d || d->freed)
		return;
	d->freed = true;
	event_del(d->timer);
	worker_cancel(d->loading);
	d->loading = NULL;
	event_del(d->take_timer);
	drop_attempt(d);
	if (!d->calling)
		release(d);
}

void discovery_state(const struct discovery *d, struct discovery_state *ret)
{
	*ret = (struct discovery_state){
		.watching =
			d->phase == PHASE_WATCHING && api_connection_status(d->connection) == 200,
		.n_endpoints = d->n,
		.changed_ns = d->changed_ns,
		.heard_ns = d->heard_ns,
		.failed_ns = d->failed_ns,
	};
	memcpy(ret->version, d->version, sizeof(ret->version));
	memcpy(ret->error, d->error, sizeof(ret->error));
}
