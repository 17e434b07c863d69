/* SPDX-License-Identifier: BSD-2-Clause */
/* Places and turns of the HTTP address, shared fairly between peers. */
#include "net/http_places.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "base/clock.h"

/* So long a peer's idle connection stays though a newcomer of the same peer wants its place. */
#define OWN_IDLE_NS NS_PER_S

TAILQ_HEAD(place_list, http_place);

struct http_peer {
	TAILQ_ENTRY(http_peer) link;
	__u64 key;
	unsigned int n; /* places */
	struct place_list at[HTTP_ATS]; /* the oldest first */
};

struct http_places {
	unsigned int max, reserve;
	unsigned int n, n_root;
	TAILQ_HEAD(peers, http_peer) peers; /* in the order of their next turns */
};

struct http_places *http_places_new(unsigned int max, unsigned int reserve)
{
	struct http_places *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->max = max;
	p->reserve = reserve;
	TAILQ_INIT(&p->peers);
	return p;
}

void http_places_free(struct http_places *p)
{
	free(p);
}

/* --- peers --------------------------------------------------------------------------- */

static struct http_peer *find_peer(const struct http_places *p, __u64 key)
{
	struct http_peer *peer;

	TAILQ_FOREACH(peer, &p->peers, link)
		if (peer->key == key)
			return peer;
	return NULL;
}

static struct http_peer *add_peer(struct http_places *p, __u64 key)
{
	struct http_peer *peer = calloc(1, sizeof(*peer));

	if (!peer)
		return NULL;
	peer->key = key;
	for (int i = 0; i < HTTP_ATS; i++)
		TAILQ_INIT(&peer->at[i]);
	TAILQ_INSERT_TAIL(&p->peers, peer, link);
	return peer;
}

/* The one with the most places; root only where there is nobody else. */
static struct http_peer *largest_peer(const struct http_places *p)
{
	struct http_peer *peer, *best = NULL;

	TAILQ_FOREACH(peer, &p->peers, link)
		if (!best || best->key == HTTP_ROOT ||
		    (peer->key != HTTP_ROOT && peer->n > best->n))
			best = peer;
	return best;
}

/* --- places -------------------------------------------------------------------------- */

static bool is_full(const struct http_places *p, __u64 key)
{
	if (p->n >= p->max)
		return true;
	return key != HTTP_ROOT && p->n - p->n_root >= p->max - p->reserve;
}

/* Of those that wait, the last one to be served. */
static struct http_place *least_urgent(const struct http_peer *peer)
{
	static const enum http_at order[] = { HTTP_AGAIN, HTTP_FIRST, HTTP_BUSY };

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		if (!TAILQ_EMPTY(&peer->at[order[i]]))
			return TAILQ_LAST(&peer->at[order[i]], place_list);
	return NULL;
}

/*
 * Of the newcomer's own peer. Each one that loses its place may come back at once: with a thousand
 * clients of one user the agent would do nothing but accept and close.
 */
static struct http_place *own_victim(const struct http_peer *peer, __u64 now_ns)
{
	struct http_place *oldest = TAILQ_FIRST(&peer->at[HTTP_IDLE]);

	return oldest && now_ns - oldest->since_ns >= OWN_IDLE_NS ? oldest : NULL;
}

/*
 * Who leaves for a newcomer. An idle one of the largest peer is closed for anybody; one that waits
 * or is answered only for a peer that has fewer places.
 */
static struct http_place *pick_victim(const struct http_places *p, const struct http_peer *newcomer,
				      __u64 key, __u64 now_ns)
{
	const struct http_peer *largest = largest_peer(p);
	unsigned int n = newcomer ? newcomer->n : 0;

	if (!largest)
		return NULL;
	if (key != HTTP_ROOT && n >= largest->n)
		largest = newcomer;
	if (largest == newcomer && key != HTTP_ROOT)
		return own_victim(newcomer, now_ns);
	if (!TAILQ_EMPTY(&largest->at[HTTP_IDLE]))
		return TAILQ_FIRST(&largest->at[HTTP_IDLE]);
	if (largest == newcomer)
		return NULL;
	if (key != HTTP_ROOT && (largest->key == HTTP_ROOT || n + 1 >= largest->n))
		return NULL;
	return least_urgent(largest);
}

int http_places_enter(struct http_places *p, struct http_place *place, __u64 key, __u64 now_ns,
		      struct http_place **ret_victim)
{
	struct http_peer *peer = find_peer(p, key);

	if (is_full(p, key)) {
		*ret_victim = pick_victim(p, peer, key, now_ns);
		return -EBUSY;
	}
	if (!peer)
		peer = add_peer(p, key);
	if (!peer)
		return -ENOMEM;
	place->peer = peer;
	place->at = HTTP_BUSY;
	place->since_ns = now_ns;
	TAILQ_INSERT_TAIL(&peer->at[HTTP_BUSY], place, link);
	peer->n++;
	p->n++;
	p->n_root += key == HTTP_ROOT;
	return 0;
}

void http_places_leave(struct http_places *p, struct http_place *place)
{
	struct http_peer *peer = place->peer;

	if (!peer)
		return;
	TAILQ_REMOVE(&peer->at[place->at], place, link);
	place->peer = NULL;
	p->n--;
	p->n_root -= peer->key == HTTP_ROOT;
	if (--peer->n)
		return;
	TAILQ_REMOVE(&p->peers, peer, link);
	free(peer);
}

void http_places_set(struct http_place *place, enum http_at at, __u64 now_ns)
{
	struct http_peer *peer = place->peer;

	TAILQ_REMOVE(&peer->at[place->at], place, link);
	place->at = at;
	place->since_ns = now_ns;
	TAILQ_INSERT_TAIL(&peer->at[at], place, link);
}

/* --- turns --------------------------------------------------------------------------- */

static struct http_place *first_waiting(const struct http_peer *peer)
{
	struct http_place *first = TAILQ_FIRST(&peer->at[HTTP_FIRST]);

	return first ? first : TAILQ_FIRST(&peer->at[HTTP_AGAIN]);
}

struct http_place *http_places_next(struct http_places *p, bool all)
{
	struct http_peer *peer = find_peer(p, HTTP_ROOT);
	struct http_place *found = peer ? first_waiting(peer) : NULL;

	if (found || !all)
		return found;
	TAILQ_FOREACH(peer, &p->peers, link) {
		found = first_waiting(peer);
		if (!found)
			continue;
		TAILQ_REMOVE(&p->peers, peer, link);
		TAILQ_INSERT_TAIL(&p->peers, peer, link);
		return found;
	}
	return NULL;
}

bool http_places_is_root(const struct http_place *place)
{
	return place->peer && place->peer->key == HTTP_ROOT;
}
