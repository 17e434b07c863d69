/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Watches files for changes, with inotify on their directories. A watch on the file itself would
 * miss a rename, which puts another inode in the file's place. An event of a directory only
 * triggers a check: stat(2), which follows links, tells whether a file has changed.
 */
#include "host/file_watch.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/clock.h"

/* The check comes this long after the last event of a burst, */
#define SETTLE_MS 200
/* but no later than this after the first one: somebody may write there all the time. */
#define SETTLE_MAX_MS 1000
/* The wait before another try, when a directory came or went while it was being watched. */
#define RETRY_MS 1000
/* The same when the kernel gives no more watches: doubling, to this. */
#define RETRY_MAX_MS 60000

/* The kernel follows as many (MAXSYMLINKS, include/linux/namei.h). */
#define LINKS_MAX 40

#define INTERESTING                                                                         \
	(IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ATTRIB | \
	 IN_DELETE_SELF | IN_MOVE_SELF)

struct filewatch {
	struct event_base *base;
	int fd; /* -1: the kernel gives none */
	unsigned int n;
	char *paths[FILEWATCH_MAX];
	struct file_identity seen[FILEWATCH_MAX];
	struct event *readable, *settled;
	unsigned long burst_end_ms; /* the latest time of the check; 0: no check is pending */
	unsigned int retry_ms;
	bool slow; /* and told so */
	struct filewatch_ops ops;
	void *arg;
};

static bool refresh_identities(struct filewatch *w)
{
	bool changed = false;

	for (unsigned int i = 0; i < w->n; i++) {
		struct file_identity now;

		file_identify(w->paths[i], &now);
		changed |= !file_is_same(&now, &w->seen[i]);
		w->seen[i] = now;
	}
	return changed;
}

/* Watches the directory that the last part of path is in. */
static int watch_directory_of(struct filewatch *w, const char *path)
{
	char text[PATH_MAX];

	snprintf(text, sizeof(text), "%s", path);
	return inotify_add_watch(w->fd, dirname(text), INTERESTING) < 0 ? -errno : 0;
}

/*
 * Replaces the link at path by its target, followed by rest. Returns false when that is not
 * possible.
 */
static bool follow_link(char path[PATH_MAX], const char *rest)
{
	char text[PATH_MAX], target[PATH_MAX], whole[PATH_MAX];
	ssize_t n = readlink(path, target, sizeof(target) - 1);
	int length;

	if (n < 0)
		return false;
	target[n] = '\0';
	snprintf(text, sizeof(text), "%s", path);
	length = snprintf(whole, sizeof(whole), "%s%s%s%s", target[0] == '/' ? "" : dirname(text),
			  target[0] == '/' ? "" : "/", target, rest);
	if (length >= (int)sizeof(whole))
		return false;
	memcpy(path, whole, (size_t)length + 1);
	return true;
}

/*
 * Watches every directory that contains a link on the way to path, and the directory where the way
 * ends: that of the file, or of the first part that does not exist. Each directory is watched
 * before its content is read, so that no change in between is missed.
 */
static int watch_path(struct filewatch *w, const char *path)
{
	char at[PATH_MAX], rest[PATH_MAX];
	unsigned int links = 0;
	struct stat st;
	char *end = at;
	int r;

	if (snprintf(at, sizeof(at), "%s", path) >= (int)sizeof(at))
		return -ENAMETOOLONG;
	while (*end) {
		end += strspn(end, "/");
		end += strcspn(end, "/");
		memcpy(rest, end, strlen(end) + 1);
		*end = '\0';
		if (!lstat(at, &st) && !S_ISLNK(st.st_mode) && rest[0]) {
			*end = rest[0];
			continue;
		}
		r = watch_directory_of(w, at);
		if (r || lstat(at, &st))
			return r;
		if (!S_ISLNK(st.st_mode)) {
			*end = rest[0];
			continue;
		}
		if (++links > LINKS_MAX || !follow_link(at, rest))
			return 0;
		end = at;
	}
	return 0;
}

/* Both limits are settings, and programs end: what is used up now may be there later. */
static bool is_used_up(int code)
{
	return err_is_shortage(code) || code == ENOSPC;
}

static const char *used_up_text(int code)
{
	switch (code) {
	case ENOSPC:
		return "too many watches: raise fs.inotify.max_user_watches";
	case EMFILE:
		return "too many open files, or fs.inotify.max_user_instances is reached: raise "
		       "LimitNOFILE= or that setting";
	default:
		return err_reason(code);
	}
}

static void on_readable(evutil_socket_t fd, short what, void *arg);

/* Opens what watches, unless it is open. Returns 0 or a negative errno. */
static int open_inotify(struct filewatch *w)
{
	if (w->fd >= 0)
		return 0;
	w->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (w->fd < 0)
		return -errno;
	w->readable = event_new(w->base, w->fd, EV_READ | EV_PERSIST, on_readable, w);
	if (w->readable && !event_add(w->readable, NULL))
		return 0;
	if (w->readable)
		event_free(w->readable);
	close(w->fd);
	w->readable = NULL;
	w->fd = -1;
	return -ENOMEM;
}

/* Returns the first error, after all have been tried: a used-up limit before others. */
static int watch_all(struct filewatch *w)
{
	int first = open_inotify(w);

	for (unsigned int i = 0; w->fd >= 0 && i < w->n; i++) {
		int r = watch_path(w, w->paths[i]);

		if (r && (!first || (is_used_up(-r) && !is_used_up(-first))))
			first = r;
	}
	return first;
}

/* Tells once that the limit is reached, and once that it is not any more. */
static void tell(struct filewatch *w, int code)
{
	bool slow = is_used_up(code);

	if (slow != w->slow)
		w->ops.slow(w->arg, slow ? used_up_text(code) : NULL);
	w->slow = slow;
}

static void try_again(struct filewatch *w)
{
	const struct timeval retry = clock_timeval(w->slow ? w->retry_ms : RETRY_MS);

	event_add(w->settled, &retry);
	w->retry_ms = w->retry_ms * 2 < RETRY_MAX_MS ? w->retry_ms * 2 : RETRY_MAX_MS;
}

static void on_settled(evutil_socket_t fd, short what, void *arg)
{
	struct filewatch *w = arg;
	int r;

	(void)fd;
	(void)what;
	w->burst_end_ms = 0;
	/* A link may lead into a directory that is not watched yet. */
	r = watch_all(w);
	tell(w, -r);
	if (r)
		try_again(w);
	if (!w->slow)
		w->retry_ms = RETRY_MS;
	if (refresh_identities(w))
		w->ops.changed(w->arg);
}

/* Returns the wait before the check: SETTLE_MS, or less at the end of a burst. */
static unsigned int settle_ms(struct filewatch *w)
{
	unsigned long now = clock_now_ns() / NS_PER_MS;

	if (!w->burst_end_ms)
		w->burst_end_ms = now + SETTLE_MAX_MS;
	if (w->burst_end_ms <= now)
		return 0;
	return w->burst_end_ms - now < SETTLE_MS ? (unsigned int)(w->burst_end_ms - now)
						 : SETTLE_MS;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct filewatch *w = arg;
	struct timeval settle;
	char buffer[4096];

	(void)what;
	while (read(fd, buffer, sizeof(buffer)) > 0)
		;
	settle = clock_timeval(settle_ms(w));
	event_add(w->settled, &settle);
}

static int add_file(struct filewatch *w, const struct filewatch_file *file, struct err *e)
{
	if (w->n == FILEWATCH_MAX)
		return err_set(e, E2BIG, "%s: too many files to watch", file->path);
	w->paths[w->n] = strdup(file->path);
	if (!w->paths[w->n])
		return err_no_memory(e);
	w->seen[w->n++] = file->seen;
	return 0;
}

static int add_files(struct filewatch *w, const struct filewatch_file *files, unsigned int n,
		     struct err *e)
{
	int r = 0;

	for (unsigned int i = 0; !r && i < n; i++)
		if (files[i].path)
			r = add_file(w, &files[i], e);
	return r;
}

/* A directory that has just gone is tried again later, and so is what is used up. */
static int watch_first(struct filewatch *w, struct err *e)
{
	int r = open_inotify(w);

	if (r && !is_used_up(-r))
		return err_set(e, -r, "cannot watch files: %s", strerror(-r));
	for (unsigned int i = 0; !r && i < w->n; i++) {
		r = watch_path(w, w->paths[i]);
		if (r == -ENOENT || is_used_up(-r))
			r = 0;
		if (r)
			err_set(e, -r, "%s: cannot be watched for changes: %s", w->paths[i],
				strerror(-r));
	}
	return is_used_up(-r) ? 0 : r;
}

static int start(struct filewatch *w, struct err *e)
{
	/* There were no events before the watch existed, so the first check comes at once. */
	const struct timeval settle = clock_timeval(SETTLE_MS);

	w->settled = evtimer_new(w->base, on_settled, w);
	if (!w->settled || event_add(w->settled, &settle))
		return err_no_memory(e);
	return 0;
}

int filewatch_new(struct event_base *base, const struct filewatch_file *files, unsigned int n,
		  const struct filewatch_ops *ops, void *arg, struct filewatch **ret, struct err *e)
{
	struct filewatch *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_no_memory(e);
	*w = (struct filewatch){
		.base = base, .fd = -1, .ops = *ops, .arg = arg, .retry_ms = RETRY_MS
	};
	r = add_files(w, files, n, e);
	if (!r)
		r = watch_first(w, e);
	if (!r)
		r = start(w, e);
	if (r) {
		filewatch_free(w);
		return r;
	}
	*ret = w;
	return 0;
}

void filewatch_free(struct filewatch *w)
{
	if (!w)
		return;
	if (w->readable)
		event_free(w->readable);
	if (w->settled)
		event_free(w->settled);
	if (w->fd >= 0)
		close(w->fd);
	for (unsigned int i = 0; i < w->n; i++)
		free(w->paths[i]);
	free(w);
}
