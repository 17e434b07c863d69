/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looks for connections that a backend's kernel has taken and its process does not serve: the
 * client's first data is acknowledged, and nothing has come for a second. PINGs on the persistent
 * connection do not show that: there the process may still answer. The kernel ejects the backend
 * for it, and nothing is ended.
 */
#include "agent/internal.h"

#include <string.h>

#include "base/clock.h"

#define SILENT_MS 1000
/* Between two looks, at least. */
#define LOOK_NS NS_PER_S

static __u64 count_opened(const struct agent *a)
{
	struct klb_stats stats[KLB_MAX_IDS];
	__u64 opened = 0;

	if (datapath_read_stats(a->dp, stats, NULL))
		return 0;
	for (__u32 id = 1; id < KLB_MAX_IDS; id++)
		opened += stats[id].opened;
	return opened;
}

static void report(struct agent *a, const struct klb_connection *c)
{
	struct klb_adjustment note = { .id = c->record.id,
				       .generation = c->record.generation,
				       .what = KLB_ADJUST_SILENT,
				       .silent = { .cgroup_id = c->record.cgroup_id,
						   .pid = c->record.pid,
						   .flags = c->record.flags } };
	struct err e = { "" };

	memcpy(note.silent.comm, c->record.comm, sizeof(note.silent.comm));
	if (!datapath_adjust(a->dp, &note, &e))
		return;
	log_failure(a->ejection_error, LOG_LEVEL_ERROR, "cannot eject a backend", &e);
}

/* Anybody can send half a handshake and wait; root's processes are believed. */
static bool counts(const struct klb_connection *c)
{
	return c->record.phase == KLB_PHASE_ACTIVE && c->record.flags & KLB_SOCKET_TRUSTED &&
	       c->silent_ms;
}

/*
 * It has become so since the look before. It counts once: a client may wait for as long as it
 * likes.
 */
static bool is_news(const struct agent *a, const struct klb_connection *c)
{
	return c->silent_ms >= SILENT_MS &&
	       clock_now_ns() - (c->silent_ms - SILENT_MS) * NS_PER_MS > a->silence.before_ns;
}

static void begin(void *arg)
{
	struct agent *a = arg;

	a->silence.again = false;
}

static int take(const struct klb_connection *c, void *arg)
{
	struct agent *a = arg;

	if (!counts(c))
		return 0;
	if (is_news(a, c))
		report(a, c);
	else if (c->silent_ms < SILENT_MS)
		a->silence.again = true;
	return 0;
}

/* Where connections cannot be listed, reconcile.c says so. */
static void on_done(void *arg, int result, const struct datapath_found *found, const struct err *e)
{
	struct agent *a = arg;
	__u64 rested_ns = look_rested_ns(&a->silence.look);

	(void)result;
	(void)found;
	(void)e;
	a->silence.due_ns = a->silence.began_ns + LOOK_NS;
	if (a->silence.due_ns < rested_ns)
		a->silence.due_ns = rested_ns;
}

void agent_look_for_silence(struct agent *a)
{
	static const struct look_ops ops = { .visitor = { .begin = begin, .take = take },
					     .done = on_done };
	const struct datapath_list_options how = { .info = true, .host_only = true };
	__u64 now = clock_now_ns(), opened;

	if (look_is_running(&a->silence.look) || now < a->silence.due_ns ||
	    !agent_can_end_ejections(a))
		return;
	opened = count_opened(a);
	if (opened == a->silence.opened && !a->silence.again)
		return;
	a->silence.opened = opened;
	a->silence.before_ns = a->silence.began_ns;
	a->silence.began_ns = now;
	look_begin(&a->silence.look, a->base, a->dp, &how, false, &ops, a);
}
