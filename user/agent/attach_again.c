/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Attaches again when the data path is lost: its bpffs was unmounted, its pins were removed, its
 * links were detached. Nothing listens on the frontends, so every connect is refused until then.
 * What `kubelb-load --detach` has removed stays removed: it leaves a sign in `control`, of which
 * the agent holds a descriptor.
 */
#include "agent/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/clock.h"
#include "host/cgroup.h"

/* Attaching that fails is tried again after so long, doubling. */
#define RETRY_MIN_NS NS_PER_S
#define RETRY_MAX_NS (60 * NS_PER_S)
/*
 * The same while the agent relays. What a kernel refuses it mostly refuses until the next boot, and
 * each try costs a second of a processor.
 */
#define RELAYING_MIN_NS (60 * NS_PER_S)
#define RELAYING_MAX_NS (3600 * NS_PER_S)

/* Whether the programs run and no pin of their links is there: the pins are hidden, not lost. */
static bool are_hidden(struct agent *a)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/links/connect4", a->options->pin_dir);
	if (!access(path, F_OK))
		return false;
	datapath_links_refresh(a->links, a->n_links);
	for (int i = 0; i < a->n_links; i++)
		if (a->links[i].effective)
			return true;
	return false;
}

static void wait_longer(struct agent *a)
{
	bool relaying = a->path.relaying;
	__u64 max = relaying ? RELAYING_MAX_NS : RETRY_MAX_NS;

	a->attach_wait_ns = a->attach_wait_ns ? 2 * a->attach_wait_ns
			    : relaying	      ? RELAYING_MIN_NS
					      : RETRY_MIN_NS;
	if (a->attach_wait_ns > max)
		a->attach_wait_ns = max;
	a->attach_due_ns = clock_now_ns() + a->attach_wait_ns;
}

static void on_failure(struct agent *a, const struct attacher_result *result)
{
	struct err e = { "" };

	wait_longer(a);
	if (result->code == -EOPNOTSUPP && !a->dp)
		snprintf(a->path.refused, sizeof(a->path.refused), "%s", result->text);
	if (a->path.relaying)
		return;
	err_set(&e, EIO, "%s", result->text);
	log_failure(a->attach_error, LOG_LEVEL_ERROR, "cannot attach again", &e);
	/* A unit without the privilege to mount has a step before the agent that does. */
	if (!a->dp && a->notify && (result->code == -EPERM || result->code == -EACCES)) {
		err_set(&a->fatal, -result->code, "%s: nothing is attached any more: %s",
			a->options->pin_dir, result->text);
		event_base_loopbreak(a->base);
	}
}

static void on_result(evutil_socket_t fd, short what, void *arg)
{
	struct agent *a = arg;
	struct attacher_result result;

	(void)fd;
	(void)what;
	attacher_result(a->options->attacher, &result);
	a->attaching = false;
	if (result.code == -EPIPE)
		event_del(a->attach_result);
	if (result.code) {
		on_failure(a, &result);
		return;
	}
	log_failure(a->attach_error, LOG_LEVEL_ERROR, "", &(struct err){ "" });
	a->attach_wait_ns = a->attach_due_ns = 0;
	a->trials_due_ns = 0;
	/* Fewer links than before may be what this kernel takes now. */
	a->n_links = 0;
	log_event(LOG_LEVEL_WARN, "attached again", "cgroup=%s pin=%s", log_quoted(result.text),
		  log_quoted(a->options->pin_dir));
	/* The tick opens it. */
	event_active(a->tick, EV_TIMEOUT, 0);
}

int agent_listen_attacher(struct agent *a)
{
	if (!a->options->attacher)
		return 0;
	a->attach_result = event_new(a->base, attacher_fd(a->options->attacher),
				     EV_READ | EV_PERSIST, on_result, a);
	return a->attach_result && !event_add(a->attach_result, NULL) ? 0 : -ENOMEM;
}

static void request(struct agent *a)
{
	__u64 now = clock_now_ns();

	if (!a->attach_result || a->attaching || now < a->attach_due_ns)
		return;
	a->attaching = !attacher_request(a->options->attacher, a->cgroup_id);
}

void agent_try_attaching(struct agent *a)
{
	/* Where that has been refused, it was a moment ago. */
	if (!a->attach_due_ns && a->path.refused[0])
		wait_longer(a);
	request(a);
}

void agent_note_loss(struct agent *a, bool held, int code)
{
	/*
	 * Only what this process has held can be told from what was detached on purpose, and only
	 * pins that are gone: anything else is another program's work.
	 */
	a->lost = code == -ENOENT && (held ? !a->on_purpose : a->lost);
	if (!a->lost)
		return;
	if (!are_hidden(a)) {
		a->hidden_for = 0;
		request(a);
		return;
	}
	/* The kernel may take a moment to end what was pinned. */
	if (++a->hidden_for == 2)
		log_event(LOG_LEVEL_ERROR,
			  "the pins are not to be seen, and the programs run all the same",
			  "pin=%s fix=%s", log_quoted(a->options->pin_dir),
			  log_quoted(
				  "another mount hides them, or only another mount namespace has "
				  "them any more (findmnt -t bpf): unmount what hides them, or end "
				  "the programs (bpftool link list, bpftool link detach id N)"));
}

/*
 * Whether links that are pinned run nothing although their cgroup is there, or fewer are pinned
 * than before.
 */
static bool are_cut(struct agent *a, const struct datapath_link *links, int n)
{
	bool cut = n < a->n_links;
	int fd;

	for (int i = 0; i < n; i++)
		cut |= !links[i].effective && !links[i].hidden;
	if (!cut || !a->cgroup_id)
		return false;
	/* A cgroup that was removed is not there to attach to. */
	fd = cgroup_open_id(a->cgroup_id);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

bool agent_check_links(struct agent *a, const struct datapath_link *links, int n)
{
	if (!are_cut(a, links, n)) {
		a->cut_for = 0;
		for (int i = 0; i < n && i < METRICS_LINKS; i++)
			a->links[i] = links[i];
		a->n_links = n;
		if (n && links[0].cgroup_id)
			a->cgroup_id = links[0].cgroup_id;
		return true;
	}
	/* A kubelb-load may be at work: two in a row count. */
	if (++a->cut_for >= 2 && !datapath_is_detached(a->dp))
		request(a);
	return false;
}
