/* SPDX-License-Identifier: BSD-2-Clause */
/* What the relay may use up: connections, descriptors, and one source's share of them. */
#include "relay/internal.h"

#include <sys/resource.h>

#include "base/clock.h"
#include "base/log.h"

/* A limit that is met and left in turns is not worth more lines. */
static const struct ration_rules limit_lines = { .burst = 2, .every_ms = 60000 };

/* What the process has open beside the relay's connections: probes, maps, pages. */
#define OTHER_DESCRIPTORS 256
/* Two sockets for each connection, and for one in eight a dial beside the first. */
#define DESCRIPTORS_FOR(connections) (2 * (connections) + (connections) / 8)

/* Returns whether the change is to be told. */
static bool change(struct relay *r, struct relay_limit *l, bool met)
{
	bool tells;

	if (atomic_exchange(&l->met, met) == met)
		return false;
	pthread_mutex_lock(&r->lock);
	tells = met ? ration_take(&l->lines, &limit_lines, clock_now_ns()) : l->told;
	l->told = met && tells;
	pthread_mutex_unlock(&r->lock);
	return tells;
}

bool limits_take_slot(struct relay *r)
{
	unsigned int limit = atomic_load(&r->limit);

	if (atomic_fetch_add(&r->connections, 1) < limit)
		return true;
	atomic_fetch_sub(&r->connections, 1);
	atomic_fetch_add(&r->refused_limit, 1);
	if (change(r, &r->slots, true))
		log_event(LOG_LEVEL_WARN,
			  "the relay has as many connections as it may, others are refused; raise "
			  "relay.connections, or find out who holds them",
			  "connections=%u", limit);
	return false;
}

void limits_give_slot_back(struct relay *r)
{
	unsigned int limit = atomic_load(&r->limit), left;

	left = atomic_fetch_sub(&r->connections, 1) - 1;
	/* A tenth below it, so that one that comes and goes does not change this each time. */
	if (atomic_load(&r->slots.met) && left < limit - limit / 10 && change(r, &r->slots, false))
		log_event(LOG_LEVEL_INFO, "the relay takes connections again",
			  "connections=%u refused=%llu", left,
			  (unsigned long long)atomic_load(&r->refused_limit));
}

bool limits_take_source(struct relay *r, enum relay_from from, const struct klb_endpoint *client)
{
	if (from != RELAY_NETWORK ||
	    sources_take(r->sources, client->addr, atomic_load(&r->per_source)))
		return true;
	atomic_fetch_add(&r->refused_source, 1);
	return false;
}

void limits_give_source_back(struct relay *r, enum relay_from from,
			     const struct klb_endpoint *client)
{
	if (from == RELAY_NETWORK)
		sources_give_back(r->sources, client->addr);
}

void limits_note_shortage(struct relay *r, int code)
{
	if (!code && !atomic_load_explicit(&r->shortage.met, memory_order_relaxed))
		return;
	if (!change(r, &r->shortage, code != 0))
		return;
	if (code)
		log_event(LOG_LEVEL_WARN, "the relay can take no connections at the moment",
			  "error=%s", log_quoted(err_reason(code)));
	else
		log_event(LOG_LEVEL_INFO, "the relay can take connections again", "");
}

unsigned int limits_raise_descriptors(unsigned int connections)
{
	rlim_t wanted = DESCRIPTORS_FOR((rlim_t)connections) + OTHER_DESCRIPTORS;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return connections;
	if (limit.rlim_cur < wanted) {
		limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
		getrlimit(RLIMIT_NOFILE, &limit);
	}
	if (limit.rlim_cur >= wanted)
		return connections;
	/* Where even the others' are not there, half of it. */
	wanted = limit.rlim_cur > 2 * OTHER_DESCRIPTORS ? limit.rlim_cur - OTHER_DESCRIPTORS
							: limit.rlim_cur / 2;
	return (unsigned int)(wanted * 8 / 17);
}
