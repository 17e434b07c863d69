/* SPDX-License-Identifier: BSD-2-Clause */
/* Compares two readings of the maps and lists the changes. */
#include "balance/state_diff.h"

#include <stdlib.h>

#include "balance/backend_status.h"

struct list {
	struct state_change *at;
	unsigned int n;
	__u64 now_ns;
};

static struct state_change *add(struct list *list, enum state_change_kind kind,
				const struct plan_backend *b)
{
	struct state_change *c = &list->at[list->n++];

	*c = (struct state_change){
		.kind = kind, .backend = b->value.endpoint, .id = b->id, .time_ns = list->now_ns
	};
	return c;
}

/* Does not set a time in the future, which a jump of the clock could cause. */
static void set_time(struct state_change *c, __u64 then_ns)
{
	if (then_ns && then_ns < c->time_ns)
		c->time_ns = then_ns;
}

static struct state_change *add_status(struct list *list, enum state_change_kind kind,
				       const struct plan_backend *b)
{
	struct state_change *c = add(list, kind, b);

	c->state = b->value.state;
	c->reason = b->value.reason;
	c->http_status = b->value.http_status;
	return c;
}

static struct state_change *add_state(struct list *list, const struct plan_backend *b,
				      enum klb_state was)
{
	struct state_change *c = add_status(list, CHANGE_STATE, b);

	c->was = was;
	set_time(c, b->value.since_ns);
	return c;
}

static void compare_status(struct list *list, const struct klb_backend *was,
			   const struct plan_backend *b)
{
	const struct klb_backend *is = &b->value;
	struct state_change *c;

	/*
	 * The same state since another time: it has changed and changed back between the two
	 * readings. For an unknown state the time means nothing.
	 */
	if (was->state != is->state ||
	    (was->since_ns != is->since_ns && is->state != KLB_STATE_UNKNOWN)) {
		add_state(list, b, was->state);
	} else if (was->reason != is->reason || was->http_status != is->http_status) {
		c = add_status(list, CHANGE_REASON, b);
		c->was_reason = was->reason;
		c->was_http_status = was->http_status;
		set_time(c, is->last_probe_ns);
	}
}

static int weight_override(const struct klb_admin *admin)
{
	return admin->weight_set ? (int)admin->weight : -1;
}

static void compare_admin(struct list *list, const struct plan_backend *b,
			  const struct klb_admin *was, const struct klb_admin *is)
{
	if (was->drained != is->drained)
		add(list, is->drained ? CHANGE_DRAINED : CHANGE_UNDRAINED, b);
	if (weight_override(was) != weight_override(is))
		add(list, CHANGE_WEIGHT, b)->weight = weight_override(is);
}

static void compare(struct list *list, const struct datapath_state *was,
		    const struct datapath_state *is, const struct plan_backend *b)
{
	const struct plan_backend *before = plan_find(&was->applied, &b->value.endpoint);

	/* One that was forgotten meanwhile is a new one. */
	if (!before || before->value.generation != b->value.generation) {
		if (!b->removed)
			add(list, CHANGE_ADDED, b);
		return;
	}
	if (before->removed && !b->removed)
		add(list, CHANGE_RETURNED, b)->left_ns = before->value.left_ns;
	/* Its return begins the same state anew. */
	if (before->removed == b->removed || before->value.state != b->value.state)
		compare_status(list, &before->value, b);
	compare_admin(list, b, backend_status_admin(was, before), backend_status_admin(is, b));
}

static int by_time(const void *a, const void *b)
{
	const struct state_change *x = a, *y = b;

	if (x->time_ns != y->time_ns)
		return x->time_ns < y->time_ns ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

unsigned int state_diff(const struct datapath_state *was, const struct datapath_state *is,
			__u64 now_ns, struct state_change *ret)
{
	struct list list = { .at = ret, .now_ns = now_ns };

	for (unsigned int i = 0; i < is->applied.n_backends; i++) {
		const struct plan_backend *b = &is->applied.backends[i];

		if (was)
			compare(&list, was, is, b);
		else if (!b->removed && b->value.state != KLB_STATE_UNKNOWN)
			add_state(&list, b, KLB_STATE_UNKNOWN)->found = true;
	}
	for (unsigned int i = 0; was && i < was->applied.n_backends; i++) {
		const struct plan_backend *b = &was->applied.backends[i];

		if (!b->removed && !plan_find_used(&is->applied, &b->value.endpoint))
			add(&list, CHANGE_REMOVED, b);
	}
	qsort(ret, list.n, sizeof(*ret), by_time);
	return list.n;
}

const char *state_change_name(enum state_change_kind kind)
{
	switch (kind) {
	case CHANGE_STATE:
		return "state";
	case CHANGE_REASON:
		return "reason";
	case CHANGE_ADDED:
		return "added";
	case CHANGE_REMOVED:
		return "removed";
	case CHANGE_RETURNED:
		return "returned";
	case CHANGE_DRAINED:
		return "drained";
	case CHANGE_UNDRAINED:
		return "undrained";
	case CHANGE_WEIGHT:
		return "weight";
	}
	return "unknown";
}
