/* SPDX-License-Identifier: BSD-2-Clause */
#include "netns.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

#define OWN "/proc/thread-self/ns/net"
#define NAMED "/run/netns"

struct search {
	__u64 cookie;
	int protocol;
	int home; /* the namespace to go back to */
	ino_t *seen; /* namespaces that it was not */
	size_t n_seen, room;
	int found; /* the socket; -1: not yet */
};

int netns_cookie(int fd, __u64 *ret)
{
	socklen_t length = sizeof(*ret);

	return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, ret, &length) ? -errno : 0;
}

/* Without memory for it a namespace is looked into once more: no harm. */
static void remember(struct search *s, ino_t inode)
{
	if (s->n_seen == s->room) {
		size_t room = s->room ? 2 * s->room : 64;
		ino_t *seen = realloc(s->seen, room * sizeof(*seen));

		if (!seen)
			return;
		s->seen = seen;
		s->room = room;
	}
	s->seen[s->n_seen++] = inode;
}

static bool was_seen(const struct search *s, ino_t inode)
{
	for (size_t i = 0; i < s->n_seen; i++)
		if (s->seen[i] == inode)
			return true;
	return false;
}

/* A socket stays in the namespace that it was made in. */
static int make_socket(const struct search *s, int ns)
{
	int fd;

	if (setns(ns, CLONE_NEWNET))
		return -errno;
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, s->protocol);
	/* Going on in somebody else's network would be worse than to end. */
	if (setns(s->home, CLONE_NEWNET))
		abort();
	return fd;
}

static void look_into(struct search *s, const char *path)
{
	struct stat st;
	__u64 cookie;
	int ns, fd;

	if (s->found >= 0 || stat(path, &st) || was_seen(s, st.st_ino))
		return;
	ns = open(path, O_RDONLY | O_CLOEXEC);
	if (ns < 0)
		return;
	fd = make_socket(s, ns);
	close(ns);
	/* Whatever stands there that is no namespace. */
	if (fd < 0)
		return;
	if (!netns_cookie(fd, &cookie) && cookie == s->cookie) {
		s->found = fd;
		return;
	}
	remember(s, st.st_ino);
	close(fd);
}

/* Looks into DIR/NAME/suffix for each name that begins with one of first's characters. */
static void look_through(struct search *s, const char *dir, const char *first, const char *suffix)
{
	struct dirent *entry;
	char path[512];
	DIR *d = opendir(dir);

	while (d && s->found < 0 && (entry = readdir(d))) {
		if (entry->d_name[0] == '.' || (first && !strchr(first, entry->d_name[0])))
			continue;
		snprintf(path, sizeof(path), "%s/%s%s", dir, entry->d_name, suffix);
		look_into(s, path);
	}
	if (d)
		closedir(d);
}

int netns_netlink(__u64 cookie, __u32 pid, int protocol, struct err *e)
{
	struct search s = { .cookie = cookie, .protocol = protocol, .found = -1 };
	int home = open(OWN, O_RDONLY | O_CLOEXEC);
	char path[64];

	if (home < 0)
		return err_set(e, errno, OWN ": %s", strerror(errno));
	s.home = home;
	/* Most often whoever opened a connection still lives, and where it lived. */
	if (pid) {
		snprintf(path, sizeof(path), "/proc/%u/ns/net", pid);
		look_into(&s, path);
	}
	look_through(&s, NAMED, NULL, "");
	look_through(&s, "/proc", "123456789", "/ns/net");
	close(home);
	free(s.seen);
	if (s.found >= 0)
		return s.found;
	return err_set(e, ESRCH,
		       "no process, and no name in " NAMED ", leads to its network namespace; run "
		       "this in the host's PID namespace");
}
