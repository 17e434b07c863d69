/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Watches files for changes, with inotify on their directories. A watch on the file itself would
 * miss a rename, which puts another inode in the file's place. An event of a directory only
 * triggers a check: stat(2), which follows links, tells whether a file has changed.
 */
#include "host/file_watch.h"

#include <errno.h>
#include <fcntl.h>
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
#include "host/worker.h"

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
	struct worker *look; /* under way */
	bool look_again;
	bool beginning; /* the first look only watches */
	struct filewatch_ops ops;
	void *arg;
};

/* --- the directories on the way ------------------------------------------------------ */

/* Watches the directory that the last part of path is in. */
static int watch_directory_of(int fd, const char *path)
{
	char text[PATH_MAX];

	snprintf(text, sizeof(text), "%s", path);
	return inotify_add_watch(fd, dirname(text), INTERESTING) < 0 ? -errno : 0;
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
static int watch_path(int fd, const char *path)
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
		r = watch_directory_of(fd, at);
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

/* --- a look: on a thread, because a disk may hang --------------------------------------- */

struct look {
	int fd; /* -1: nothing can be watched */
	unsigned int n;
	char *paths[FILEWATCH_MAX];
	struct file_identity seen[FILEWATCH_MAX];
	int r;
};

static void look_drop(void *data)
{
	struct look *look = data;

	for (unsigned int i = 0; i < look->n; i++)
		free(look->paths[i]);
	if (look->fd >= 0)
		close(look->fd);
	free(look);
}

/*
 * Watches first, for a link may lead into a directory that is not watched yet. r: the first error,
 * after all have been tried: a used-up limit before others.
 */
static void look_work(void *data)
{
	struct look *look = data;

	for (unsigned int i = 0; look->fd >= 0 && i < look->n; i++) {
		int r = watch_path(look->fd, look->paths[i]);

		if (r && (!look->r || (is_used_up(-r) && !is_used_up(-look->r))))
			look->r = r;
	}
	for (unsigned int i = 0; i < look->n; i++)
		file_identify(look->paths[i], &look->seen[i]);
}

static void start_look(struct filewatch *w);

static void look_done(void *arg, void *data)
{
	const struct look *look = data;
	struct filewatch *w = arg;
	bool changed = false;

	w->look = NULL;
	/* What has changed until now is told when it has settled. */
	if (w->beginning) {
		w->beginning = false;
		if (w->look_again)
			start_look(w);
		return;
	}
	tell(w, -look->r);
	if (look->r)
		try_again(w);
	if (!w->slow)
		w->retry_ms = RETRY_MS;
	for (unsigned int i = 0; i < w->n; i++) {
		changed |= !file_is_same(&look->seen[i], &w->seen[i]);
		w->seen[i] = look->seen[i];
	}
	if (w->look_again)
		start_look(w);
	if (changed)
		w->ops.changed(w->arg);
}

/* Returns NULL when memory is short. */
static struct look *make_look(struct filewatch *w)
{
	struct look *look = calloc(1, sizeof(*look));

	if (!look)
		return NULL;
	look->r = open_inotify(w);
	look->fd = w->fd < 0 ? -1 : fcntl(w->fd, F_DUPFD_CLOEXEC, 0);
	if (!look->r && look->fd < 0)
		look->r = -errno;
	for (; look->n < w->n; look->n++) {
		look->paths[look->n] = strdup(w->paths[look->n]);
		if (!look->paths[look->n]) {
			look_drop(look);
			return NULL;
		}
	}
	return look;
}

static void start_look(struct filewatch *w)
{
	static const struct worker_ops ops = { .work = look_work,
					       .done = look_done,
					       .drop = look_drop };
	struct look *look;

	w->look_again = w->look != NULL;
	if (w->look)
		return;
	look = make_look(w);
	if (!look) {
		try_again(w);
		return;
	}
	if (!file_spare(1)) {
		if (worker_start(w->base, &ops, w, look, &w->look, NULL))
			try_again(w);
		return;
	}
	/* Without a descriptor there is no thread; that passes, and a change is noticed at least.
	 */
	if (!w->beginning) {
		look_work(look);
		look_done(w, look);
	}
	w->beginning = false;
	look_drop(look);
}

static void on_settled(evutil_socket_t fd, short what, void *arg)
{
	struct filewatch *w = arg;

	(void)fd;
	(void)what;
	w->burst_end_ms = 0;
	start_look(w);
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

/* What is used up is tried again later. */
static int open_first(struct filewatch *w, struct err *e)
{
	int r = open_inotify(w);

	if (r && !is_used_up(-r))
		return err_set(e, -r, "cannot watch files: %s", strerror(-r));
	return 0;
}

static int start(struct filewatch *w, struct err *e)
{
	/* There were no events before the watch existed, so the first check comes anyway. */
	const struct timeval settle = clock_timeval(SETTLE_MS);

	w->settled = evtimer_new(w->base, on_settled, w);
	if (!w->settled || event_add(w->settled, &settle))
		return err_no_memory(e);
	w->beginning = true;
	start_look(w);
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
		r = open_first(w, e);
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
	worker_cancel(w->look);
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
