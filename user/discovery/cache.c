/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Keeps the last list from the apiserver on disk, for a boot at which no apiserver answers yet:
 *
 *   { "kind": "kubelb-backends", "version": 1, "written": "2026-01-31T23:59:59Z",
 *     "backends": ["192.168.17.11:6443", "[fd00::11]:6443"] }
 *
 * The file decides which addresses the node takes for its apiservers. So one fault in it makes
 * all of it invalid.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "discovery/internal.h"
#include "net/endpoint.h"
#include "base/file_replace.h"
#include "base/file.h"

#define KIND "kubelb-backends"
#define VERSION 1
#define TIME_FORMAT "%Y-%m-%dT%H:%M:%SZ"
/* KLB_MAX_BACKENDS addresses take some 4 KiB. */
#define BYTES_MAX ((size_t)64 * 1024)

/* --- reading ------------------------------------------------------------------------- */

#define fail(e, path, format, ...)                                             \
	err_set((e), EINVAL,                                                   \
		"%s: " format "; ignored, and replaced by the next list that " \
		"the apiserver gives",                                         \
		(path), ##__VA_ARGS__)

static int read_time(const char *path, const json_t *root, time_t *ret, struct err *e)
{
	const char *text = json_string_value(json_object_get(root, "written"));
	struct tm tm = { 0 };
	const char *end = text ? strptime(text, TIME_FORMAT, &tm) : NULL;

	if (!end || *end)
		return fail(e, path, "written: not a time");
	*ret = timegm(&tm);
	return 0;
}

static int read_entry(const char *path, const json_t *entry, const struct klb_endpoint *frontends,
		      unsigned int n_frontends, struct discovery_cached *c, struct err *e)
{
	const char *text = json_string_value(entry);
	struct klb_endpoint ep;
	struct err why;

	if (!text)
		return fail(e, path, "backends[%u]: not a string", c->n);
	if (endpoint_parse(text, 0, &ep, &why) < 0)
		return fail(e, path, "backends[%u]: %s", c->n, why.text);
	if (!discovery_usable(&ep, frontends, n_frontends))
		return fail(e, path,
			    "backends[%u]: '%s' is a frontend, or an address that no "
			    "apiserver has",
			    c->n, text);
	c->list[c->n++] = ep;
	return 0;
}

static int read_backends(const char *path, const json_t *root, const struct klb_endpoint *frontends,
			 unsigned int n_frontends, struct discovery_cached *c, struct err *e)
{
	const json_t *list = json_object_get(root, "backends");
	size_t n = json_array_size(list), i;
	int r = 0;

	if (!n || n > KLB_MAX_BACKENDS)
		return fail(e, path, "backends: not a list of 1 to %d addresses", KLB_MAX_BACKENDS);
	for (i = 0; !r && i < n; i++)
		r = read_entry(path, json_array_get(list, i), frontends, n_frontends, c, e);
	if (r)
		return r;
	qsort(c->list, c->n, sizeof(*c->list), discovery_compare);
	for (i = 1; i < n; i++)
		if (endpoint_equal(&c->list[i], &c->list[i - 1]))
			return fail(e, path, "backends: an address twice");
	return 0;
}

static int read_root(const char *path, const json_t *root, const struct klb_endpoint *frontends,
		     unsigned int n_frontends, struct discovery_cached *c, struct err *e)
{
	const char *kind = json_string_value(json_object_get(root, "kind"));
	json_int_t version = json_integer_value(json_object_get(root, "version"));
	int r;

	if (!kind || strcmp(kind, KIND) != 0)
		return fail(e, path, "not a cache of kubelb's (no kind '" KIND "')");
	if (version != VERSION)
		return fail(e, path, "its version is not %d", VERSION);
	r = read_time(path, root, &c->written, e);
	return r ? r : read_backends(path, root, frontends, n_frontends, c, e);
}

int cache_parse(const char *path, const char *text, size_t length,
		const struct klb_endpoint *frontends, unsigned int n_frontends,
		struct discovery_cached *ret, struct err *e)
{
	struct discovery_cached cached = { 0 };
	json_error_t why;
	json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &why);
	int r;

	if (!root)
		return fail(e, path, "not JSON: line %d: %s", why.line, why.text);
	r = read_root(path, root, frontends, n_frontends, &cached, e);
	json_decref(root);
	if (!r)
		*ret = cached;
	return r;
}

int discovery_cache_load(const char *path, const struct klb_endpoint *frontends,
			 unsigned int n_frontends, struct discovery_cached *ret, struct err *e)
{
	size_t length = 0;
	char *text = NULL;
	/* A user who can write the file can redirect the node's connects. */
	int r = file_read_own(path, BYTES_MAX, &text, &length, e);

	if (r < 0)
		return r == -EFBIG ? -EINVAL : r;
	r = cache_parse(path, text, length, frontends, n_frontends, ret, e);
	free(text);
	return r;
}

/* --- writing ------------------------------------------------------------------------- */

static json_t *list_to_json(const struct klb_endpoint *list, unsigned int n)
{
	json_t *array = json_array();
	char text[ENDPOINT_TEXT_MAX];
	unsigned int i;

	for (i = 0; i < n; i++)
		if (json_array_append_new(array, json_string(endpoint_format(&list[i], text))) < 0)
			goto fail;
	return array;
fail:
	json_decref(array);
	return NULL;
}

/* To be freed; NULL when memory is short. */
static char *to_text(const struct klb_endpoint *list, unsigned int n)
{
	time_t now = time(NULL);
	char written[32], *text;
	json_t *root;
	struct tm tm;

	strftime(written, sizeof(written), TIME_FORMAT, gmtime_r(&now, &tm));
	root = json_pack("{s:s, s:i, s:s, s:o}", "kind", KIND, "version", VERSION, "written",
			 written, "backends", list_to_json(list, n));
	text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	json_decref(root);
	return text;
}

int discovery_cache_save(const char *path, const struct klb_endpoint *list, unsigned int n,
			 struct err *e)
{
	char *text = to_text(list, n);
	int r = text ? file_replace(path, text, "set discovery.cache to another file", e)
		     : err_no_memory_for(e, path);

	free(text);
	return r;
}

static bool is_cached(const char *path, const struct klb_endpoint *list, unsigned int n)
{
	struct discovery_cached c = { .n = 0 };

	return !discovery_cache_load(path, NULL, 0, &c, NULL) && c.n == n &&
	       !memcmp(c.list, list, n * sizeof(*list));
}

/* Leaves a file alone that holds the list already. */
static int update(const char *path, const struct klb_endpoint *list, unsigned int n, struct err *e)
{
	return is_cached(path, list, n) ? 0 : discovery_cache_save(path, list, n, e);
}

/* --- in the background --------------------------------------------------------------- */

struct cache_job {
	char *path;
	unsigned int n;
	struct klb_endpoint list[KLB_MAX_BACKENDS];
	int r;
	struct err e;
};

static void job_drop(void *data)
{
	struct cache_job *job = data;

	free(job->path);
	free(job);
}

static void job_work(void *data)
{
	struct cache_job *job = data;

	job->r = update(job->path, job->list, job->n, &job->e);
}

/* How long the end waits for the disk. It may hang, and the event loop waits as well. */
#define END_WAIT_MS 500

struct cache_writer {
	struct event_base *base;
	char *path;
	void (*failed)(void *arg, const char *why);
	void *arg;
	struct worker *job; /* under way */
	bool again; /* there is a newer list than the job's */
	unsigned int n;
	struct klb_endpoint list[KLB_MAX_BACKENDS];
};

static void write_next(struct cache_writer *w);

static void on_done(void *arg, void *data)
{
	const struct cache_job *job = data;
	struct cache_writer *w = arg;

	w->job = NULL;
	if (w->again)
		write_next(w);
	if (job->r)
		w->failed(w->arg, job->e.text);
}

static void write_next(struct cache_writer *w)
{
	static const struct worker_ops ops = { .work = job_work,
					       .done = on_done,
					       .drop = job_drop };
	struct cache_job *job = calloc(1, sizeof(*job));

	w->again = false;
	if (!job)
		return;
	job->path = strdup(w->path);
	job->n = w->n;
	memcpy(job->list, w->list, sizeof(job->list));
	if (!job->path)
		job_drop(job);
	else if (worker_start(w->base, &ops, w, job, &w->job, NULL))
		w->job = NULL;
}

int cache_writer_new(struct event_base *base, const char *path,
		     void (*failed)(void *arg, const char *why), void *arg,
		     struct cache_writer **ret)
{
	struct cache_writer *w = calloc(1, sizeof(*w));

	if (!w || !(w->path = strdup(path))) {
		free(w);
		return -ENOMEM;
	}
	w->base = base;
	w->failed = failed;
	w->arg = arg;
	*ret = w;
	return 0;
}

void cache_writer_put(struct cache_writer *w, const struct klb_endpoint *list, unsigned int n)
{
	if (!w)
		return;
	w->n = n;
	memcpy(w->list, list, n * sizeof(*list));
	w->again = true;
	if (!w->job)
		write_next(w);
}

void cache_writer_free(struct cache_writer *w)
{
	if (!w)
		return;
	/* The end of one begins the next, if there is a newer list. */
	while (w->job && worker_wait(w->job, END_WAIT_MS))
		;
	worker_cancel(w->job);
	free(w->path);
	free(w);
}

int discovery_cached_list(const struct config *c, struct klb_endpoint *ret, unsigned int *ret_n,
			  struct err *e)
{
	struct klb_endpoint frontends[KLB_MAX_FRONTENDS];
	struct discovery_cached cached;
	int r;

	*ret_n = 0;
	if (!c->discovery || !c->discovery_cache)
		return -ENOENT;
	for (unsigned int i = 0; i < c->n_frontends; i++)
		frontends[i] = c->frontends[i].endpoint;
	r = discovery_cache_load(c->discovery_cache, frontends, c->n_frontends, &cached, e);
	if (r)
		return r;
	memcpy(ret, cached.list, cached.n * sizeof(*ret));
	*ret_n = cached.n;
	return 0;
}

/* --- at the start, with a limit ------------------------------------------------------- */

struct reading {
	struct config config; /* only what discovery_cached_list reads */
	struct klb_endpoint list[KLB_MAX_BACKENDS];
	unsigned int n;
	int r;
	struct err e;
};

/* Where a reading that has ended in time goes. */
struct wanted {
	struct klb_endpoint *list;
	unsigned int *n;
	struct err *e;
	int r;
};

static void reading_drop(void *data)
{
	struct reading *reading = data;

	free(reading->config.discovery_cache);
	free(reading);
}

static void reading_work(void *data)
{
	struct reading *reading = data;

	reading->r =
		discovery_cached_list(&reading->config, reading->list, &reading->n, &reading->e);
}

static void reading_done(void *arg, void *data)
{
	const struct reading *reading = data;
	struct wanted *wanted = arg;

	memcpy(wanted->list, reading->list, reading->n * sizeof(*wanted->list));
	*wanted->n = reading->n;
	*wanted->e = reading->e;
	wanted->r = reading->r;
}

static struct reading *make_reading(const struct config *c)
{
	struct reading *reading = calloc(1, sizeof(*reading));

	if (!reading)
		return NULL;
	reading->config.discovery = true;
	reading->config.discovery_cache = strdup(c->discovery_cache);
	reading->config.n_frontends = c->n_frontends;
	memcpy(reading->config.frontends, c->frontends, sizeof(c->frontends));
	if (reading->config.discovery_cache)
		return reading;
	free(reading);
	return NULL;
}

int discovery_cached_list_within(unsigned int wait_ms, const struct config *c,
				 struct klb_endpoint *ret, unsigned int *ret_n, struct err *e)
{
	static const struct worker_ops ops = { .work = reading_work,
					       .done = reading_done,
					       .drop = reading_drop };
	struct wanted wanted = { .list = ret, .n = ret_n, .e = e };
	struct worker *worker = NULL;
	struct reading *reading;

	*ret_n = 0;
	if (!c->discovery || !c->discovery_cache)
		return -ENOENT;
	reading = make_reading(c);
	if (!reading)
		return err_no_memory_for(e, c->discovery_cache);
	/* Without a descriptor for the thread, at least the list. */
	if (worker_start(NULL, &ops, &wanted, reading, &worker, NULL))
		return discovery_cached_list(c, ret, ret_n, e);
	if (worker_wait(worker, wait_ms))
		return wanted.r;
	worker_cancel(worker);
	return err_set(e, ETIMEDOUT, "%s: cannot be read: the disk that it is on does not answer",
		       c->discovery_cache);
}
