/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connects to the frontends without a packet. TCP_REPAIR, which is made for restoring connections
 * (CRIU), takes a socket through everything that connect(2) does, programs included, but for the
 * SYN.
 */
#include "datapath/internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "balance/backend_status.h"
#include "net/endpoint.h"
#include "net/netns.h"

/* Everything that the connects need; a child process shares it. */
struct trials {
	const struct datapath *dp;
	const struct datapath_state *s;
	unsigned int n;
	struct datapath_trial at[KLB_MAX_FRONTENDS];
};

__attribute__((format(printf, 2, 3))) static void not_made(struct datapath_trial *t,
							   const char *format, ...)
{
	va_list args;

	t->result = DATAPATH_TRIAL_NOT_MADE;
	va_start(args, format);
	vsnprintf(t->why, sizeof(t->why), format, args);
	va_end(args);
}

/* Makes a socket whose connect sends nothing and is counted nowhere. Returns -1 with t filled. */
static int test_socket(struct datapath_trial *t)
{
	int family = endpoint_is_ipv4(&t->frontend) ? AF_INET : AF_INET6;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	int on = 1, priority = KLB_TEST_PRIORITY;

	if (fd < 0) {
		not_made(t, "no socket: %s", err_reason(errno));
		return -1;
	}
	if (setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &priority, sizeof(priority)) ||
	    setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on))) {
		not_made(t, "a connect without a packet takes CAP_NET_ADMIN: %s",
			 err_reason(errno));
		close(fd);
		return -1;
	}
	return fd;
}

/* The peer as getpeername(2) shows it to a client; KubeLB's own programs answer with the frontend.
 */
static bool peer_of(int fd, struct klb_endpoint *ret)
{
	struct sockaddr_storage ss;
	socklen_t length = sizeof(ss);

	return !getpeername(fd, (struct sockaddr *)&ss, &length) &&
	       !endpoint_from_sockaddr((struct sockaddr *)&ss, ret);
}

/*
 * The record tells which backend was chosen. klb_sockops makes it only when the SYN would go there.
 * Without that program the connect hook makes it, and the peer has to be compared.
 */
static void judge(const struct trials *all, int fd, struct datapath_trial *t)
{
	bool followed = !all->s->control.refused[KLB_FEATURE_SOCKOPS];
	struct klb_endpoint peer = { { 0 }, 0 };
	struct klb_socket record;
	bool chosen = !bpf_map_lookup_elem(all->dp->fds[MAP_SOCKETS], &fd, &record) &&
		      endpoint_equal(&record.frontend, &t->frontend);

	if (!peer_of(fd, &peer) && !followed) {
		not_made(t, "getpeername: %s", err_reason(errno));
		return;
	}
	t->found = peer;
	if (chosen && (followed || endpoint_equal(&peer, &t->frontend) ||
		       endpoint_equal(&peer, &record.backend)))
		t->result = DATAPATH_TRIAL_BALANCED;
	else
		t->result = endpoint_equal(&peer, &t->frontend) ? DATAPATH_TRIAL_UNTOUCHED
								: DATAPATH_TRIAL_ELSEWHERE;
}

static __u32 left_alone(const struct trials *all)
{
	struct klb_counters counters = { 0 };

	map_get(all->dp, MAP_COUNTERS, &counters, NULL);
	return counters.tests_left_alone;
}

static void try_frontend(const struct trials *all, struct datapath_trial *t)
{
	int fd = test_socket(t);
	__u32 before = left_alone(all);
	struct sockaddr_storage ss;
	socklen_t length;

	if (fd < 0)
		return;
	length = endpoint_to_sockaddr(&t->frontend, &ss);
	if (connect(fd, (struct sockaddr *)&ss, length))
		not_made(t, "the connect ends early: %s", err_reason(errno));
	else if (left_alone(all) != before)
		not_made(t, "a rule leaves it alone: what listens there is of this process's "
			    "cgroup, or no backend takes connects");
	else
		judge(all, fd, t);
	/* Under repair this sends nothing either. */
	close(fd);
}

static int try_all(void *arg)
{
	struct trials *all = arg;

	for (unsigned int i = 0; i < all->n; i++)
		if (!all->at[i].why[0])
			try_frontend(all, &all->at[i]);
	return 0;
}

/* A frontend without a backend that takes connects is left alone, as it should be. */
static bool has_backend(const struct datapath_state *s, const struct plan_frontend *f)
{
	for (unsigned int i = 0; i < f->n_backends; i++) {
		const struct plan_backend *b = plan_find_id(&s->applied, f->ids[i]);

		if (b && backend_status_weight(s, b))
			return true;
	}
	return false;
}

static void prepare(struct trials *all, const struct datapath_state *s, unsigned int max)
{
	__u64 own = 0;
	bool known = !netns_own(&own);

	for (unsigned int i = 0; i < s->applied.n_frontends && i < max; i++) {
		const struct plan_frontend *f = &s->applied.frontends[i];
		struct datapath_trial *t = &all->at[all->n++];

		t->frontend = f->endpoint;
		if (!has_backend(s, f))
			not_made(t, "no backend takes connects");
		else if (f->scope != KLB_SCOPE_ALL && (!known || own != s->control.host_netns))
			not_made(t, "this process is not in the host's network namespace");
	}
}

/*
 * The agent listens on such a frontend, and who belongs to its cgroup is left alone there as an
 * apiserver that dials itself is.
 */
static void excuse_relayed(struct trials *all)
{
	for (unsigned int i = 0; i < all->n; i++)
		if (all->s->applied.frontends[i].scope == KLB_SCOPE_NETWORK &&
		    all->at[i].result == DATAPATH_TRIAL_UNTOUCHED)
			not_made(&all->at[i], "the agent's own listener may decide, from here");
}

static void none_made(struct trials *all, const char *why)
{
	for (unsigned int i = 0; i < all->n; i++)
		if (!all->at[i].why[0])
			not_made(&all->at[i], "%s", why);
}

/* The id of the cgroup that the connect programs run on; 0: it was removed, or there is none. */
static __u64 cgroup_of(const struct datapath_link *links, int n_links)
{
	for (int i = 0; i < n_links; i++)
		if (links[i].hook == BPF_CGROUP_INET4_CONNECT)
			return links[i].cgroup_id;
	return 0;
}

static void run(struct trials *all, __u64 cgroup_id, bool join)
{
	char path[PATH_TEXT_MAX];

	if (!cgroup_id || cgroup_contains_self(cgroup_id))
		try_all(all);
	else if (!join || !cgroup_path_of(cgroup_id, path) ||
		 selftest_inside(path, try_all, all) < 0)
		none_made(all, "this process is outside of the cgroup");
}

unsigned int datapath_try_frontends(const struct datapath *dp, const struct datapath_state *s,
				    const struct datapath_link *links, int n_links, bool join,
				    struct datapath_trial *ret, unsigned int max)
{
	struct trials *all =
		/* -1 is what belongs there (mmap(2)). */
		/* cppcheck-suppress invalidFunctionArg */
		mmap(NULL, sizeof(*all), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned int n;

	if (all == MAP_FAILED)
		return 0;
	all->dp = dp;
	all->s = s;
	prepare(all, s, max < KLB_MAX_FRONTENDS ? max : KLB_MAX_FRONTENDS);
	run(all, cgroup_of(links, n_links), join);
	excuse_relayed(all);
	n = all->n;
	memcpy(ret, all->at, n * sizeof(ret[0]));
	munmap(all, sizeof(*all));
	return n;
}

const char *datapath_trial_text(const struct datapath_trial *t, char *ret)
{
	char text[ENDPOINT_TEXT_MAX];

	switch (t->result) {
	case DATAPATH_TRIAL_BALANCED:
		return "ends at a backend";
	case DATAPATH_TRIAL_UNTOUCHED:
		return "goes through untouched: KubeLB's programs do not decide";
	case DATAPATH_TRIAL_ELSEWHERE:
		snprintf(ret, DATAPATH_TRIAL_TEXT, "is sent to %s by another program",
			 endpoint_format(&t->found, text));
		return ret;
	default:
		snprintf(ret, DATAPATH_TRIAL_TEXT, "not checked: %s", t->why);
		return ret;
	}
}
