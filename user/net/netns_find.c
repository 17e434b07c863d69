/* SPDX-License-Identifier: BSD-2-Clause */
/* Looks for a network namespace that some process or name of this machine may still lead to. */
#include "net/netns.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

/* PROC_PID_INIT_INO, include/linux/proc_ns.h: the first PID namespace, which shows all processes.
 */
#define FIRST_PIDS 0xEFFFFFFCU
/* Far more than the mounts of any process take. */
#define MOUNTINFO_BYTES_MAX ((size_t)16 * 1024 * 1024)

struct hunt {
	struct netns_id id;
	dev_t nsfs;
	char link[32]; /* what a mount of it begins with */
	bool found, hidden; /* hidden: something could not be looked at */
};

bool netns_pids_are_hidden(void)
{
	struct stat st;

	return stat("/proc/self/ns/pid", &st) || st.st_ino != FIRST_PIDS;
}

/* A process that ends meanwhile hides nothing. */
static void note_failure(struct hunt *h, int code)
{
	h->hidden |= code && code != ENOENT && code != ESRCH;
}

/* Whether the namespace behind path, which has the inode number, has another cookie. */
static bool is_another(const struct hunt *h, const char *path)
{
	__u64 cookie;

	return h->id.cookie && !netns_cookie_at(path, &cookie) && cookie != h->id.cookie;
}

static bool is_it(const struct hunt *h, const char *path, const struct stat *st)
{
	return st->st_ino == h->id.inode && st->st_dev == h->nsfs && !is_another(h, path);
}

static bool look_at(struct hunt *h, const char *path)
{
	struct stat st;

	if (stat(path, &st))
		note_failure(h, errno);
	else
		h->found |= is_it(h, path, &st);
	return h->found;
}

static void look_into(struct hunt *h, const char *dir)
{
	struct dirent *entry;
	char path[600];
	DIR *d = opendir(dir);

	if (!d)
		note_failure(h, errno);
	while (d && !h->found && (entry = readdir(d)))
		if (entry->d_name[0] != '.') {
			snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
			look_at(h, path);
		}
	if (d)
		closedir(d);
}

/* line: of mountinfo, from its fourth field on: `net:[4026532000] /run/netns/name …`. */
static void look_at_mount(struct hunt *h, const char *pid, const char *line)
{
	const char *point = line + strlen(h->link);
	char path[PATH_MAX];
	struct stat st;

	point += *point == ' ';
	snprintf(path, sizeof(path), "/proc/%s/root%.*s", pid, (int)strcspn(point, " \n"), point);
	/* What is mounted over it hides which one it is. */
	h->found |= stat(path, &st) || st.st_dev != h->nsfs || is_it(h, path, &st);
}

/* A bind mount keeps a namespace without any process, in whichever mount namespace it is. */
static void look_at_mounts(struct hunt *h, const char *pid)
{
	char path[300], *text = NULL;
	size_t length;
	int r;

	snprintf(path, sizeof(path), "/proc/%s/mountinfo", pid);
	r = file_read(path, MOUNTINFO_BYTES_MAX, &text, &length, NULL);
	for (const char *at = text; !r && !h->found && (at = strstr(at, h->link)); at++)
		look_at_mount(h, pid, at);
	/* A process that is about to end has no mount namespace any more. */
	if (r != -EINVAL)
		note_failure(h, -r);
	free(text);
}

static void look_at_process(struct hunt *h, const char *pid)
{
	char path[300];

	snprintf(path, sizeof(path), "/proc/%s/ns/net", pid);
	look_at(h, path);
}

static void look_through_process(struct hunt *h, const char *pid)
{
	char path[300];

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	look_into(h, path);
	if (!h->found)
		look_at_mounts(h, pid);
}

/* Returns the process with which look has found it, or 0. */
static __u32 look_at_processes(struct hunt *h, void (*look)(struct hunt *h, const char *pid))
{
	bool all = !netns_pids_are_hidden();
	struct dirent *entry;
	DIR *d = opendir("/proc");
	__u32 pid = 0;

	if (!d)
		h->hidden = true;
	while (d && !h->found && (entry = readdir(d))) {
		pid = (__u32)strtoul(entry->d_name, NULL, 10);
		/*
		 * Some machines let nobody look at the first process. It is where the kernel's own
		 * threads are, the second and others.
		 */
		if (pid && !(all && pid == 1))
			look(h, entry->d_name);
	}
	if (d)
		closedir(d);
	return h->found ? pid : 0;
}

enum netns_presence netns_find(const struct netns_id *id, __u32 *ret_pid)
{
	struct hunt h = { .id = *id, .hidden = netns_pids_are_hidden() };
	struct netns_id own = netns_self();
	struct stat st;

	*ret_pid = 0;
	if (!id->inode || stat("/proc/self/ns/net", &st))
		return NETNS_UNSEEN;
	/* Its number has been given out again, to this one. */
	if (own.inode == id->inode)
		return NETNS_GONE;
	h.nsfs = st.st_dev;
	snprintf(h.link, sizeof(h.link), "net:[%llu]", id->inode);
	*ret_pid = look_at_processes(&h, look_at_process);
	if (!h.found && !access("/run/netns", F_OK))
		look_into(&h, "/run/netns");
	if (!h.found)
		look_at_processes(&h, look_through_process);
	return h.found ? NETNS_FOUND : h.hidden ? NETNS_UNSEEN : NETNS_GONE;
}
