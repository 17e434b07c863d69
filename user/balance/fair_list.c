/* SPDX-License-Identifier: BSD-2-Clause */
/* Orders connections so that everybody gets a turn. */
#include "balance/fair_list.h"

#include <errno.h>
#include <stdlib.h>

struct fair_entry {
	struct klb_connection connection;
	__u64 rank;
};

/* It is sorted and cut when so many times `keep` are in it: sorting each time would take longer. */
#define ROOM_TIMES 4
#define CAPACITY_MIN 16

/* What is sorted. turn: its place among the connections of its process, cgroup or user. */
struct key {
	__u64 cgroup_id, rank;
	__u32 uid, pid;
	unsigned int turn, index;
};

typedef int (*compare_fn)(const void *a, const void *b);

#define COMPARE(x, y) ((x) < (y) ? -1 : (x) > (y))

static int compare_users(const struct key *x, const struct key *y)
{
	int r = COMPARE(x->uid, y->uid);

	return r ? r : COMPARE(x->cgroup_id, y->cgroup_id);
}

static int by_process(const void *a, const void *b)
{
	const struct key *x = a, *y = b;
	int r = compare_users(x, y);

	if (!r)
		r = COMPARE(x->pid, y->pid);
	return r ? r : COMPARE(x->rank, y->rank);
}

static int by_turn(const struct key *x, const struct key *y)
{
	int r = COMPARE(x->turn, y->turn);

	return r ? r : COMPARE(x->rank, y->rank);
}

static int by_cgroup(const void *a, const void *b)
{
	int r = compare_users(a, b);

	return r ? r : by_turn(a, b);
}

static int by_user(const void *a, const void *b)
{
	const struct key *x = a, *y = b;
	int r = COMPARE(x->uid, y->uid);

	return r ? r : by_turn(a, b);
}

static unsigned int round_of(const struct key *x)
{
	return x->uid ? x->turn : x->turn / FAIR_LIST_ROOT_TURNS;
}

/* Root has the smallest uid. */
static int by_round(const void *a, const void *b)
{
	const struct key *x = a, *y = b;
	int r = COMPARE(round_of(x), round_of(y));

	if (!r)
		r = COMPARE(!!x->uid, !!y->uid);
	return r ? r : by_turn(a, b);
}

static bool is_same_user(const struct key *x, const struct key *y)
{
	return x->uid == y->uid;
}

static bool is_same_cgroup(const struct key *x, const struct key *y)
{
	return is_same_user(x, y) && x->cgroup_id == y->cgroup_id;
}

static bool is_same_process(const struct key *x, const struct key *y)
{
	return is_same_cgroup(x, y) && x->pid == y->pid;
}

/* Sorts, and counts turns anew in each group. */
static void count_turns(struct key *keys, unsigned int n, compare_fn compare,
			bool (*is_same)(const struct key *x, const struct key *y))
{
	qsort(keys, n, sizeof(*keys), compare);
	for (unsigned int i = 0; i < n; i++)
		keys[i].turn = i && is_same(&keys[i - 1], &keys[i]) ? keys[i - 1].turn + 1 : 0;
}

/* The order, in the field index. The caller frees it; NULL: no memory. */
static struct key *make_order(const struct fair_list *l)
{
	struct key *keys = calloc(l->n, sizeof(*keys));

	for (unsigned int i = 0; keys && i < l->n; i++) {
		const struct klb_connection *c = &l->at[i].connection;

		keys[i] = (struct key){ .uid = c->uid,
					.cgroup_id = c->record.cgroup_id,
					.pid = c->record.pid,
					.rank = l->at[i].rank,
					.index = i };
	}
	if (!keys)
		return NULL;
	count_turns(keys, l->n, by_process, is_same_process);
	count_turns(keys, l->n, by_cgroup, is_same_cgroup);
	count_turns(keys, l->n, by_user, is_same_user);
	qsort(keys, l->n, sizeof(*keys), by_round);
	return keys;
}

int fair_list_sort(struct fair_list *l)
{
	unsigned int kept = l->n < l->keep ? l->n : l->keep;
	struct fair_entry *sorted;
	struct key *keys;

	if (!l->n)
		return 0;
	keys = make_order(l);
	sorted = reallocarray(NULL, l->capacity, sizeof(*sorted));
	if (!keys || !sorted) {
		free(keys);
		free(sorted);
		return -ENOMEM;
	}
	for (unsigned int i = 0; i < kept; i++)
		sorted[i] = l->at[keys[i].index];
	free(keys);
	free(l->at);
	l->at = sorted;
	l->dropped += l->n - kept;
	l->n = kept;
	return 0;
}

static int grow(struct fair_list *l)
{
	unsigned int capacity = l->capacity ? 2 * l->capacity : CAPACITY_MIN;
	void *at;

	if (capacity > ROOM_TIMES * l->keep)
		capacity = ROOM_TIMES * l->keep;
	at = realloc(l->at, capacity * sizeof(*l->at));
	if (!at)
		return -ENOMEM;
	l->at = at;
	l->capacity = capacity;
	return 0;
}

int fair_list_add(struct fair_list *l, const struct klb_connection *c, __u64 rank)
{
	int r = 0;

	if (l->n == ROOM_TIMES * l->keep)
		r = fair_list_sort(l);
	else if (l->n == l->capacity)
		r = grow(l);
	if (!r)
		l->at[l->n++] = (struct fair_entry){ .connection = *c, .rank = rank };
	return r;
}

void fair_list_clear(struct fair_list *l)
{
	l->n = l->next = l->dropped = 0;
}

void fair_list_free(struct fair_list *l)
{
	fair_list_clear(l);
	free(l->at);
	l->at = NULL;
	l->capacity = 0;
}

unsigned int fair_list_dropped(const struct fair_list *l)
{
	return l->dropped;
}

unsigned int fair_list_left(const struct fair_list *l)
{
	return l->n - l->next;
}

const struct klb_connection *fair_list_next(struct fair_list *l)
{
	return l->next < l->n ? &l->at[l->next++].connection : NULL;
}
