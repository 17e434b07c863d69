/* SPDX-License-Identifier: BSD-2-Clause */
/* A process that keeps the privileges for attaching, and attaches when the agent asks for it. */
#include "agent/attacher.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/cgroup.h"
#include "host/mounts.h"
#include "host/node.h"
#include "load/attach.h"
#include "net/local_delivery.h"

struct attacher {
	int fd;
	pid_t pid;
};

/* --- in that process --- */

struct server {
	const char *config_path, *pin_dir;
	const struct config *config; /* the last valid one */
	char bpffs[512]; /* where the pins' bpffs is mounted at the start; "": nowhere */
	int fd;
};

static void reply(const struct server *s, int code, const char *text)
{
	struct attacher_result result = { .code = code };

	snprintf(result.text, sizeof(result.text), "%s", text);
	send(s->fd, &result, sizeof(result), MSG_NOSIGNAL);
}

/* The file may have changed since. An invalid one must not keep the node without its balancer. */
static void read_config(struct server *s)
{
	struct config *newer = NULL;
	struct err e;

	if (!config_load(s->config_path, node_has_ipv6(), &newer, &e))
		s->config =
			newer; /* the one before is small, and this happens once in a blue moon */
}

static int attach(const struct server *s, __u64 cgroup_id)
{
	struct attach_report *report = calloc(1, sizeof(*report));
	char cgroup[CGROUP_PATH_MAX];
	struct err e = { "out of memory" };
	bool there = cgroup_id && cgroup_path_of(cgroup_id, cgroup);
	const struct datapath_load_options options = { .pin_dir = s->pin_dir,
						       .cgroup = there && cgroup_id != 1 ? cgroup
											 : NULL };
	int r = report ? 0 : -ENOMEM;

	/* Mounted again where it was; kubelb-load itself does that at /sys/fs/bpf alone. */
	if (!r && s->bpffs[0])
		r = mounts_mount_bpffs(s->bpffs, &e);
	if (!r)
		/* It was attached: whoever serves the frontends without it is not to stay. */
		r = attach_run(s->config, &options, PREFLIGHT_OFF, report, &e);
	reply(s, r, r ? e.text : report->cgroup);
	free(report);
	return r;
}

/* In a process of its own: libbpf takes tens of megabytes to load programs. */
static void handle(struct server *s, __u64 cgroup_id)
{
	int status = -1;
	pid_t pid;

	read_config(s);
	pid = fork();
	if (!pid)
		_exit(attach(s, cgroup_id) ? 1 : 0);
	if (pid < 0)
		reply(s, -errno, strerror(errno));
	else if (waitpid(pid, &status, 0) == pid && WIFSIGNALED(status))
		reply(s, -EINTR, "ended by a signal; attaching takes 16 MiB of memory");
}

static _Noreturn void serve(struct server *s)
{
	__u64 cgroup_id;

	prctl(PR_SET_NAME, "kubelb-attacher");
	/* For the agent. */
	signal(SIGHUP, SIG_IGN);
	while (recv(s->fd, &cgroup_id, sizeof(cgroup_id), 0) == sizeof(cgroup_id))
		handle(s, cgroup_id);
	/* An agent that was killed has left them, and its listeners are gone. */
	local_delivery_remove(NULL);
	_exit(0);
}

/* --- in the agent --- */

int attacher_start(const char *config_path, const char *pin_dir, const struct config *cfg,
		   struct attacher **ret, struct err *e)
{
	struct attacher *at = calloc(1, sizeof(*at));
	int ends[2];

	if (!at)
		return err_no_memory(e);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends)) {
		free(at);
		return err_set(e, errno, "cannot make a socket: %s", err_reason(errno));
	}
	at->fd = ends[0];
	at->pid = fork();
	if (!at->pid) {
		struct server s = { config_path, pin_dir, cfg, "", ends[1] };

		close(ends[0]);
		mounts_bpffs_of(pin_dir, s.bpffs, sizeof(s.bpffs));
		serve(&s);
	}
	close(ends[1]);
	if (at->pid < 0) {
		int code = errno;

		close(ends[0]);
		free(at);
		return err_set(e, code, "cannot start a process: %s", err_reason(code));
	}
	*ret = at;
	return 0;
}

void attacher_free(struct attacher *at)
{
	if (!at)
		return;
	close(at->fd);
	/* It ends with the connection, at the latest when it has attached. */
	waitpid(at->pid, NULL, WNOHANG);
	free(at);
}

int attacher_request(struct attacher *at, __u64 cgroup_id)
{
	return send(at->fd, &cgroup_id, sizeof(cgroup_id), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno
											    : 0;
}

int attacher_fd(const struct attacher *at)
{
	return at->fd;
}

void attacher_result(struct attacher *at, struct attacher_result *ret)
{
	if (recv(at->fd, ret, sizeof(*ret), MSG_DONTWAIT) == sizeof(*ret)) {
		ret->text[sizeof(ret->text) - 1] = '\0';
		return;
	}
	*ret = (struct attacher_result){ .code = -EPIPE };
	snprintf(ret->text, sizeof(ret->text),
		 "the process that attaches has ended; restart the "
		 "agent");
}
