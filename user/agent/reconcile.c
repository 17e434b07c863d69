/* SPDX-License-Identifier: BSD-2-Clause */
/* Compares the kernel's counts with the sockets, and corrects them. */
#include "agent/internal.h"

#include <errno.h>
#include <stdlib.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/mem_trim.h"
#include "host/node.h"
#include "net/endpoint.h"

/*
 * How often the counts are compared with the sockets, how soon after the start, and how soon again
 * after a difference.
 */
#define RECONCILE_MS 30000
#define RECONCILE_FIRST_MS 5000
#define RECONCILE_AGAIN_MS 1000

static void repair(struct agent *a, const struct klb_adjustment *fix)
{
	const struct plan_backend *b = plan_find_id(&a->state->applied, fix->id);
	char text[ENDPOINT_TEXT_MAX] = "removed";
	struct err e = { "" };

	if (b)
		endpoint_format(&b->value.endpoint, text);
	if (datapath_adjust(a->dp, fix, &e))
		log_event(LOG_LEVEL_ERROR, "cannot correct a count", "backend=%s error=%s", text,
			  log_quoted(e.text));
	else
		log_event(LOG_LEVEL_WARN, "count corrected: it did not agree with the sockets",
			  "backend=%s id=%u active=%+lld connecting=%+lld", text, fix->id,
			  fix->active, fix->connecting);
}

/* An incomplete list proves nothing. */
static int list_all(struct agent *a, struct datapath_connections *ret)
{
	struct sock_diag *diag = NULL;
	struct err e = { "" };
	int r;

	privileges_raise();
	r = sock_diag_open(&diag, &e);
	if (!r)
		r = datapath_connections(a->dp, diag, &(struct datapath_list_options){ 0 }, ret,
					 &e);
	sock_diag_close(diag);
	privileges_lower();
	log_failure(a->reconcile_error, LOG_LEVEL_WARN,
		    "connections cannot be listed: their counts are not checked, and none "
		    "is ended",
		    &e);
	return r ? r : ret->all ? 0 : -EAGAIN;
}

/*
 * The count of sockets in other network namespaces tells whether a list is complete. It is
 * corrected when two comparisons agree. If not every process is visible, the missing ones may be
 * hidden.
 */
static void reconcile_other_netns(struct agent *a, __s64 excess)
{
	const struct klb_adjustment fix = { .other_netns = -excess };
	bool confirmed = excess && excess == a->excess;
	struct err e = { "" };

	a->excess = confirmed ? 0 : excess;
	if (!confirmed || !privileges_can_enter_pods() || !node_sees_every_process())
		return;
	if (datapath_adjust(a->dp, &fix, &e))
		log_event(LOG_LEVEL_ERROR, "cannot correct a count", "error=%s",
			  log_quoted(e.text));
	else
		log_event(LOG_LEVEL_WARN, "count corrected: it did not agree with the sockets",
			  "other_netns=%+lld", fix.other_netns);
}

/* Returns whether to compare again soon. */
static bool reconcile_counts(struct agent *a)
{
	struct klb_adjustment fixes[KLB_MAX_IDS];
	struct datapath_connections all = { 0 };
	struct klb_stats after[KLB_MAX_IDS];
	unsigned int n_fixes;
	bool again = false;
	int r;

	if (a->state->control.refused[KLB_FEATURE_ADJUST] ||
	    a->state->control.refused[KLB_FEATURE_SOCKOPS])
		return false;
	if (datapath_read_stats(a->dp, a->state->stats, NULL))
		return false;
	r = list_all(a, &all);
	if (!r || r == -EAGAIN)
		reconcile_other_netns(a, all.excess);
	if (r || datapath_read_stats(a->dp, after, NULL))
		goto out;
	n_fixes = reconcile_compare(&a->reconcile, a->state->stats, after, all.list, all.n, fixes,
				    &again);
	for (unsigned int i = 0; i < n_fixes; i++)
		repair(a, &fixes[i]);
out:
	free(all.list);
	return again;
}

void agent_on_reconcile(evutil_socket_t fd, short what, void *arg)
{
	struct agent *a = arg;
	unsigned int ms = a->dp && reconcile_counts(a) ? RECONCILE_AGAIN_MS
			  : a->reconciled	       ? RECONCILE_MS
						       : RECONCILE_FIRST_MS;
	const struct timeval tv = clock_timeval(ms);

	(void)fd;
	(void)what;
	event_add(a->reconcile_timer, &tv);
	a->reconciled = true;
	/* A good time to free what the start, handshakes and reloads have used. */
	memory_trim();
}
