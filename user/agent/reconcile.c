/* SPDX-License-Identifier: BSD-2-Clause */
/* Compares the kernel's counts with the sockets, and corrects them. */
#include "agent/internal.h"

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

static void compare(struct agent *a, bool *ret_again)
{
	struct klb_adjustment fixes[KLB_MAX_IDS];
	struct klb_stats after[KLB_MAX_IDS];
	unsigned int n_fixes;

	if (datapath_read_stats(a->dp, after, NULL))
		return;
	n_fixes = reconcile_compare(&a->reconcile, after, fixes, ret_again);
	for (unsigned int i = 0; i < n_fixes; i++)
		repair(a, &fixes[i]);
}

/* Sets the timer for the next comparison, no sooner than the last look is paid for. */
static void schedule(struct agent *a, unsigned int ms)
{
	__u64 now = clock_now_ns(), rested = look_rested_ns(&a->reconcile_look);
	struct timeval tv;

	if (rested > now && (rested - now) / NS_PER_MS > ms)
		ms = (unsigned int)((rested - now) / NS_PER_MS);
	tv = clock_timeval(ms);
	event_add(a->reconcile_timer, &tv);
}

static void begin_count(void *arg)
{
	struct agent *a = arg;

	reconcile_begin(&a->reconcile);
}

static int count(const struct klb_connection *c, void *arg)
{
	struct agent *a = arg;

	reconcile_count(&a->reconcile, &c->record);
	return 0;
}

static void on_counted(void *arg, int result, const struct datapath_found *found,
		       const struct err *e)
{
	struct agent *a = arg;
	bool again = false;

	log_failure(a->reconcile_error, LOG_LEVEL_WARN,
		    "connections cannot be listed: their counts are not checked, and none "
		    "is ended",
		    e);
	if (!result)
		reconcile_other_netns(a, found->excess);
	/* An incomplete look proves nothing. */
	if (!result && found->all)
		compare(a, &again);
	if (again)
		schedule(a, RECONCILE_AGAIN_MS);
}

static bool may_compare(struct agent *a)
{
	return a->dp && !a->state->control.refused[KLB_FEATURE_ADJUST] &&
	       !a->state->control.refused[KLB_FEATURE_SOCKOPS] &&
	       !datapath_read_stats(a->dp, a->reconcile.before, NULL);
}

void agent_on_reconcile(evutil_socket_t fd, short what, void *arg)
{
	static const struct look_ops ops = { .visitor = { .begin = begin_count, .take = count },
					     .done = on_counted };
	struct agent *a = arg;

	(void)fd;
	(void)what;
	schedule(a, a->reconciled ? RECONCILE_MS : RECONCILE_FIRST_MS);
	a->reconciled = true;
	if (!look_is_running(&a->reconcile_look) && may_compare(a))
		look_begin(&a->reconcile_look, a->base, a->dp, &(struct datapath_list_options){ 0 },
			   false, &ops, a);
	/* A good time to free what the start, handshakes and reloads have used. */
	memory_trim();
}
