/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connects once through the attached programs. That a link exists and is pinned proves little: its
 * cgroup may contain no process of this host.
 */
#include "datapath/internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/endpoint.h"

#define CGROUP_PREFIX "kubelb-selftest-"

/* The exit status of a child that could not join the cgroup; no test's own. */
#define CANNOT_JOIN 127

/* The child's exit status. */
enum selftest_result {
	SELFTEST_OK,
	SELFTEST_NOT_BALANCED, /* the connect was not redirected */
	SELFTEST_NO_PEERNAME, /* redirected, but getpeername is not rewritten */
	SELFTEST_CANNOT_JOIN, /* no process can join the cgroup */
};

/* Makes a TCP socket bound to a free port of loopback. */
static int bound_socket(struct klb_endpoint *ret, struct err *e)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&sin, length) ||
	    getsockname(fd, (struct sockaddr *)&sin, &length)) {
		int r = err_set(e, errno, "test connect: cannot bind to 127.0.0.1: %s",
				err_reason(errno));

		if (fd >= 0)
			close(fd);
		return r;
	}
	endpoint_from_sockaddr((struct sockaddr *)&sin, ret);
	return fd;
}

static int install(const struct datapath *dp, enum klb_scope scope,
		   const struct klb_endpoint *frontend, const struct klb_endpoint *backend,
		   struct err *e)
{
	const struct klb_lookup_entry entry = { .endpoint = *frontend,
						.policy = KLB_POLICY_RANDOM,
						.scope = scope,
						.table = KLB_TABLE_SELFTEST };
	struct klb_candidates table;
	__u32 key = KLB_TABLE_SELFTEST;

	memset(&table, 0, sizeof(table));
	table.n = 1;
	table.at[0].endpoint = *backend;
	table.at[0].id = KLB_ID_SELFTEST;
	table.at[0].weight = KLB_WEIGHT_DEFAULT;
	table.at[0].state = KLB_STATE_READY;
	table.at[0].ipv4 = 1;
	if (bpf_map_update_elem(dp->fds[MAP_CANDIDATES], &key, &table, BPF_ANY) ||
	    lookup_set(dp->fds[MAP_LOOKUP], KLB_MAX_FRONTENDS, &entry))
		return err_set(e, errno, "%s/lookup: cannot write: %s", dp->pin_dir,
			       bpf_errno_hint(errno));
	return 0;
}

/* Connects with an IPv4 socket, or with an IPv6 socket to ::ffff:127.0.0.1. */
static enum selftest_result try_connect(const struct klb_endpoint *frontend, int family)
{
	struct sockaddr_storage ss, peer;
	socklen_t length = sizeof(peer);
	struct klb_endpoint seen;
	enum selftest_result result = SELFTEST_NOT_BALANCED;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int v6only = 0;

	if (fd < 0)
		return family == AF_INET6 ? SELFTEST_OK : SELFTEST_NOT_BALANCED;
	if (family == AF_INET6) {
		struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)&ss;

		memset(&ss, 0, sizeof(ss));
		sin6->sin6_family = AF_INET6;
		sin6->sin6_port = htons((unsigned short)frontend->port);
		memcpy(&sin6->sin6_addr, frontend->addr, sizeof(sin6->sin6_addr));
		length = sizeof(*sin6);
		/*
		 * The host's default may be 1 (net.ipv6.bindv6only); such a socket cannot connect
		 * to an IPv4 address.
		 */
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only));
	} else {
		length = endpoint_to_sockaddr(frontend, &ss);
	}
	if (connect(fd, (struct sockaddr *)&ss, length))
		goto out;
	result = SELFTEST_NO_PEERNAME;
	length = sizeof(peer);
	if (!getpeername(fd, (struct sockaddr *)&peer, &length) &&
	    !endpoint_from_sockaddr((struct sockaddr *)&peer, &seen) &&
	    endpoint_equal(&seen, frontend))
		result = SELFTEST_OK;
out:
	close(fd);
	return result;
}

static enum selftest_result try_both(const struct klb_endpoint *frontend)
{
	enum selftest_result result = try_connect(frontend, AF_INET);

	return result == SELFTEST_OK ? try_connect(frontend, AF_INET6) : result;
}

static bool join(const char *cgroup)
{
	char path[PATH_TEXT_MAX];
	ssize_t n = -1;
	int fd;

	if (path_join(path, cgroup, "cgroup.procs", NULL))
		return false;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = write(fd, "0", 1);
		close(fd);
	}
	return n == 1;
}

/* A cgroup with controllers for its children can contain no processes itself. */
int selftest_inside(const char *cgroup, int (*test)(void *arg), void *arg)
{
	char dir[PATH_TEXT_MAX];
	int status = -1;
	pid_t pid;

	if (snprintf(dir, sizeof(dir), "%s/" CGROUP_PREFIX "%d", cgroup, (int)getpid()) >=
	    (int)sizeof(dir))
		return -1;
	if (mkdir(dir, 0755))
		return -1;
	pid = fork();
	if (!pid)
		_exit(join(dir) ? test(arg) : CANNOT_JOIN);
	if (pid > 0)
		waitpid(pid, &status, 0);
	rmdir(dir);
	return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) != CANNOT_JOIN
		       ? WEXITSTATUS(status)
		       : -1;
}

static int try_both_of(void *frontend)
{
	return (int)try_both(frontend);
}

static enum selftest_result try_inside(const char *cgroup, struct klb_endpoint *frontend)
{
	int status = selftest_inside(cgroup, try_both_of, frontend);

	return status < 0 ? SELFTEST_CANNOT_JOIN : (enum selftest_result)status;
}

static int report(enum selftest_result result, const char *cgroup, struct err *e)
{
	switch (result) {
	case SELFTEST_OK:
		return 0;
	case SELFTEST_CANNOT_JOIN:
		return err_set(
			e, EIO,
			"cgroup %s: attached, but no process can join it for a test connect, so "
			"it is not known to work; nothing was kept: choose another --cgroup",
			cgroup);
	default:
		return err_set(
			e, EIO,
			"cgroup %s: attached, but a test connect was not %s: the programs are "
			"not effective here (is it the host's cgroup root? is lo up?); nothing "
			"was kept",
			cgroup,
			result == SELFTEST_NO_PEERNAME ? "given its peer name" : "balanced");
	}
}

void selftest_remove_leftovers(int lookup_fd, const char *cgroup)
{
	char pattern[PATH_TEXT_MAX + 32];
	glob_t found;

	if (lookup_fd >= 0)
		lookup_set(lookup_fd, KLB_MAX_FRONTENDS, NULL);
	snprintf(pattern, sizeof(pattern), "%s/" CGROUP_PREFIX "*", cgroup);
	if (glob(pattern, GLOB_NOSORT, NULL, &found))
		return;
	/* rmdir fails with EBUSY for one in use. */
	for (size_t i = 0; i < found.gl_pathc; i++)
		rmdir(found.gl_pathv[i]);
	globfree(&found);
}

static int run(const struct selftest *t, struct klb_endpoint *frontend, struct err *e)
{
	enum selftest_result result =
		t->cgroup_id == 1 ? try_both(frontend) : try_inside(t->cgroup, frontend);

	if (!t->peername && result == SELFTEST_NO_PEERNAME)
		result = SELFTEST_OK;
	return report(result, t->cgroup, e);
}

int selftest_connect(const struct datapath *dp, const struct selftest *t, struct err *e)
{
	struct klb_endpoint frontend = { { 0 }, 0 }, backend = { { 0 }, 0 };
	/* Bound but not listening: nobody else can answer on the frontend's port. */
	int reserved = bound_socket(&frontend, e);
	int listener = reserved < 0 ? reserved : bound_socket(&backend, e);
	int r = listener < 0 ? listener : 0;

	if (!r && listen(listener, 4))
		r = err_set(e, errno, "test connect: cannot listen: %s", err_reason(errno));
	if (!r)
		r = install(dp, t->scope, &frontend, &backend, e);
	if (!r) {
		r = run(t, &frontend, e);
		lookup_set(dp->fds[MAP_LOOKUP], KLB_MAX_FRONTENDS, NULL);
	}
	if (listener >= 0)
		close(listener);
	if (reserved >= 0)
		close(reserved);
	return r;
}
