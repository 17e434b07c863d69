/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who has a place at the agent's HTTP address, and whose turn it is. Pure.
 *
 * A peer is a local user, or another host. Every peer has the same right: its requests take turns
 * with those of the others, and when the places are taken, the peer that holds most of them gives
 * one up. Root goes first, and some places are kept for root: it may be the kubelet, which ends an
 * agent that does not answer.
 */
#ifndef KUBELB_HTTP_PLACES_H
#define KUBELB_HTTP_PLACES_H

#include <stdbool.h>
#include <sys/queue.h>

#include <linux/types.h>

/* What a connection does at its place. */
enum http_at {
	HTTP_IDLE, /* nothing: it can be closed at any time */
	HTTP_BUSY, /* something arrives, or it is being answered */
	HTTP_FIRST, /* its first request waits for its turn */
	HTTP_AGAIN, /* a further request waits; after all first ones of the same peer */
	HTTP_ATS
};

struct http_peer;

/* A part of each connection. */
struct http_place {
	TAILQ_ENTRY(http_place) link;
	struct http_peer *peer; /* NULL: it has no place */
	enum http_at at;
	__u64 since_ns; /* when that was last said of it */
};

/* Of root. The key of another local user is its uid. */
#define HTTP_ROOT 0ULL
/* The key of what is no local user: with anything that tells it from the others. */
#define HTTP_OTHER(n) (1ULL << 32 | (__u32)(n))

struct http_places;

/* max: places in all; reserve: how many of them only root gets. Returns NULL without memory. */
struct http_places *http_places_new(unsigned int max, unsigned int reserve);
/* NULL is allowed. Every place must have been left. */
void http_places_free(struct http_places *p);

/*
 * Takes a place, which is HTTP_BUSY then. Returns 0; or -EBUSY when another has to leave before:
 * ret_victim, or NULL when nobody has to and there is no place; or -ENOMEM. Times are those of
 * clock_now_ns().
 */
int http_places_enter(struct http_places *p, struct http_place *place, __u64 key, __u64 now_ns,
		      struct http_place **ret_victim);
void http_places_leave(struct http_places *p, struct http_place *place);

/* at: what it does from now on. It is the last of those of its peer that do the same. */
void http_places_set(struct http_place *place, enum http_at at, __u64 now_ns);

/*
 * The one whose waiting request is to be answered next; NULL when none waits. all: false to
 * consider root's only. It waits until http_places_set says otherwise.
 */
struct http_place *http_places_next(struct http_places *p, bool all);
bool http_places_is_root(const struct http_place *place);

#endif
