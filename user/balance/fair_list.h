/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A list of connections in which everybody gets a turn: first one of each user, then one more of
 * each, and so on. Among a user's connections the cgroups take turns, and in a cgroup the
 * processes. Root, whose the node's own components are, has several turns before another user's
 * next one. So whoever has many connections delays their own, and nobody else's. It keeps the first
 * ones only, whatever is put in. Pure.
 */
#ifndef KUBELB_FAIR_LIST_H
#define KUBELB_FAIR_LIST_H

#include <stdbool.h>

#include "net/connection.h"

/* So many turns root has for one turn of another user. */
#define FAIR_LIST_ROOT_TURNS 16

struct fair_entry;

/* The fields belong to fair_list.c, except that `keep` is set before the first use. */
struct fair_list {
	unsigned int keep; /* how many at most */
	struct fair_entry *at;
	unsigned int n, capacity;
	unsigned int next; /* the first that fair_list_next has not returned */
	unsigned int dropped;
};

/* Forgets what is in it. */
void fair_list_clear(struct fair_list *l);
/* The same, and frees its memory. */
void fair_list_free(struct fair_list *l);

/* Adds one. rank: of a process's connections the one with the lowest comes first. 0 or -ENOMEM. */
int fair_list_add(struct fair_list *l, const struct klb_connection *c, __u64 rank);
/* Puts those that were added in order. Returns 0 or -ENOMEM. */
int fair_list_sort(struct fair_list *l);

/* How many were added and are not in it, because it is full. */
unsigned int fair_list_dropped(const struct fair_list *l);
/* How many fair_list_next has not returned yet. */
unsigned int fair_list_left(const struct fair_list *l);
/* The next one, which belongs to l; NULL at the end. */
const struct klb_connection *fair_list_next(struct fair_list *l);

#endif
