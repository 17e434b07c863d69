/* SPDX-License-Identifier: BSD-2-Clause */
/* Finds the network namespaces of this machine, and opens netlink sockets in them. */
#include "net/netns.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

#define OWN "/proc/thread-self/ns/net"
#define NAMED "/run/netns"

struct search {
	const struct netns_visitor *visitor;
	int protocol;
	int home; /* the namespace to go back to */
	bool over; /* the visitor has seen enough */
};

int netns_cookie(int fd, __u64 *ret)
{
	socklen_t length = sizeof(*ret);

	return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, ret, &length) ? -errno : 0;
}

static int inode_of(const char *path, __u64 *ret)
{
	struct stat st;

	if (stat(path, &st))
		return -errno;
	*ret = st.st_ino;
	return 0;
}

int netns_own(__u64 *ret)
{
	return inode_of(OWN, ret);
}

struct netns_id netns_self(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct netns_id id = { 0, 0 };

	if (netns_own(&id.inode))
		id.inode = 0;
	if (fd >= 0 && netns_cookie(fd, &id.cookie))
		id.cookie = 0;
	if (fd >= 0)
		close(fd);
	return id;
}

bool netns_same(const struct netns_id *x, const struct netns_id *y)
{
	if (x->cookie && y->cookie)
		return x->cookie == y->cookie;
	return x->inode && x->inode == y->inode;
}

/* A setting of the whole machine, which no other namespace shows (net/core/sysctl_net_core.c). */
bool netns_is_initial(void)
{
	return !access("/proc/sys/net/core/dev_weight", F_OK);
}

static int own_socket(int family, int type, int protocol)
{
	int fd = socket(family, type | SOCK_CLOEXEC, protocol);

	if (fd < 0)
		return -errno;
	return fd;
}

struct socket_kind {
	int family, type, protocol;
};

static int make_kind(void *arg)
{
	const struct socket_kind *k = arg;

	return own_socket(k->family, k->type, k->protocol);
}

/* What is opened in a namespace, as a socket is, stays in it. */
static int make_inside(int home, int ns, int (*make)(void *arg), void *arg)
{
	int fd;

	if (setns(ns, CLONE_NEWNET))
		return -errno;
	fd = make(arg);
	/* It must not go on in another network namespace: it is better to end. */
	if (setns(home, CLONE_NEWNET))
		abort();
	return fd;
}

static int make_socket(int home, int ns, int family, int type, int protocol)
{
	struct socket_kind kind = { family, type, protocol };

	return make_inside(home, ns, make_kind, &kind);
}

static int begin(struct search *s, int protocol, const struct netns_visitor *v, struct err *e)
{
	*s = (struct search){ .visitor = v, .protocol = protocol };
	s->home = open(OWN, O_RDONLY | O_CLOEXEC);
	return s->home < 0 ? err_set(e, errno, OWN ": %s", strerror(errno)) : 0;
}

int netns_cookie_at(const char *path, __u64 *ret)
{
	struct search s;
	int fd, r, ns = open(path, O_RDONLY | O_CLOEXEC);

	if (ns < 0)
		return -errno;
	r = begin(&s, NETLINK_ROUTE, NULL, NULL);
	fd = r ? r : make_socket(s.home, ns, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	r = fd < 0 ? fd : netns_cookie(fd, ret);
	if (fd >= 0)
		close(fd);
	if (s.home >= 0)
		close(s.home);
	close(ns);
	return r;
}

static int visit_and_return(int ns, int family, int type, int protocol)
{
	int fd, home = open(OWN, O_RDONLY | O_CLOEXEC);

	if (home < 0)
		return -errno;
	fd = make_socket(home, ns, family, type, protocol);
	close(home);
	return fd;
}

int netns_socket(int beside, int family, int type, int protocol)
{
	int fd, ns = ioctl(beside, SIOCGSKNS);
	__u64 own = 0;
	struct stat st;

	if (ns < 0)
		return -errno;
	if (!fstat(ns, &st) && !netns_own(&own) && st.st_ino == own)
		fd = own_socket(family, type, protocol);
	else
		fd = visit_and_return(ns, family, type, protocol);
	close(ns);
	return fd;
}

/* ns: a descriptor of the namespace. */
static void look_at(struct search *s, int ns, __u64 netns)
{
	const struct netns_visitor *v = s->visitor;
	int fd = v->makes ? make_inside(s->home, ns, v->makes, v->arg)
			  : make_socket(s->home, ns, AF_NETLINK, SOCK_RAW, s->protocol);

	if (fd >= 0)
		s->over = !v->takes(v->arg, netns, fd);
}

static void look_into(struct search *s, const char *path)
{
	__u64 netns = 0;
	int ns;

	if (s->over || inode_of(path, &netns) || !s->visitor->wants(s->visitor->arg, netns))
		return;
	/* The path may lead to something that is no namespace. */
	ns = open(path, O_RDONLY | O_CLOEXEC);
	if (ns < 0)
		return;
	look_at(s, ns, netns);
	close(ns);
}

/* Looks into DIR/NAME/suffix for each name that begins with one of first's characters. */
static void look_through(struct search *s, const char *dir, const char *first, const char *suffix)
{
	struct dirent *entry;
	char path[512];
	DIR *d = opendir(dir);

	while (d && !s->over && (entry = readdir(d))) {
		if (entry->d_name[0] == '.' || (first && !strchr(first, entry->d_name[0])))
			continue;
		snprintf(path, sizeof(path), "%s/%s%s", dir, entry->d_name, suffix);
		look_into(s, path);
	}
	if (d)
		closedir(d);
}

int netns_visit(__u32 pid, int protocol, const struct netns_visitor *v, struct err *e)
{
	struct search s;
	char path[64];
	int r = begin(&s, protocol, v, e);

	if (r)
		return r;
	if (pid) {
		snprintf(path, sizeof(path), "/proc/%u/ns/net", pid);
		look_into(&s, path);
	}
	look_through(&s, NAMED, NULL, "");
	look_through(&s, "/proc", "123456789", "/ns/net");
	close(s.home);
	return 0;
}

/* --- by sockets ------------------------------------------------------------------------ */

/* sock: a duplicate of the process's socket. */
static void look_at_socket(struct search *s, int sock)
{
	int ns = ioctl(sock, SIOCGSKNS);
	struct stat st;

	if (ns < 0)
		return;
	if (!fstat(ns, &st) && s->visitor->wants(s->visitor->arg, st.st_ino))
		look_at(s, ns, st.st_ino);
	close(ns);
}

static bool is_socket(const char *dir, const char *name)
{
	char path[600], target[32] = "";

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return readlink(path, target, sizeof(target) - 1) > 0 && !strncmp(target, "socket:", 7);
}

static void look_at_process(struct search *s, const char *pid)
{
	int pidfd = (int)syscall(SYS_pidfd_open, strtol(pid, NULL, 10), 0);
	struct dirent *entry;
	char dir[300];
	DIR *d;

	snprintf(dir, sizeof(dir), "/proc/%s/fd", pid);
	d = opendir(dir);
	while (d && pidfd >= 0 && !s->over && (entry = readdir(d))) {
		int sock;

		if (entry->d_name[0] == '.' || !is_socket(dir, entry->d_name))
			continue;
		sock = (int)syscall(SYS_pidfd_getfd, pidfd, strtol(entry->d_name, NULL, 10), 0);
		if (sock >= 0) {
			look_at_socket(s, sock);
			close(sock);
		}
	}
	if (d)
		closedir(d);
	if (pidfd >= 0)
		close(pidfd);
}

int netns_visit_sockets(int protocol, const struct netns_visitor *v, struct err *e)
{
	struct dirent *entry;
	struct search s;
	int r = begin(&s, protocol, v, e);
	DIR *d;

	if (r)
		return r;
	d = opendir("/proc");
	while (d && !s.over && (entry = readdir(d)))
		if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
			look_at_process(&s, entry->d_name);
	if (d)
		closedir(d);
	close(s.home);
	return 0;
}
