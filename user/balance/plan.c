/* SPDX-License-Identifier: BSD-2-Clause */
/* Makes a plan: what the maps should hold. */
#include "balance/plan.h"

#include <errno.h>
#include <string.h>

#include "base/hash.h"
#include "net/endpoint.h"

/*
 * log2(x) in 1/2^20, bit by bit: squaring a number in [1, 2) doubles its logarithm. Uses integers
 * only, so that every node gets the same result, and no program needs libm (half a megabyte) for
 * one function. x: not 0.
 */
static __u64 log2_q20(__u64 x)
{
	int top = 63 - __builtin_clzll(x);
	unsigned __int128 m = (unsigned __int128)x << (63 - top); /* in 1/2^63 */
	__u64 result = (__u64)top;

	for (int i = 0; i < 20; i++) {
		m = m * m >> 63;
		result = result << 1 | (__u64)(m >> 64);
		m >>= (unsigned int)(m >> 64);
	}
	return result;
}

/*
 * -ln(u) for a hash that is read as a number u in (0, 1). It is exponentially distributed, so that
 * each backend has the smallest rank/weight in proportion to its weight (weighted rendezvous
 * hashing; Schindelhauer and Schomaker, SPAA 2005).
 */
static __u32 rank_of(__u64 node, const struct klb_endpoint *endpoint)
{
	__u64 h = hash_bytes(node, endpoint, sizeof(*endpoint)) | 1;
	__u64 bits = (64ULL << 20) - log2_q20(h);

	/* Times ln 2, in 1/2^16. */
	return (__u32)(bits * 45426 >> 16);
}

const struct plan_backend *plan_find(const struct plan *p, const struct klb_endpoint *endpoint)
{
	for (unsigned int i = 0; i < p->n_backends; i++)
		if (endpoint_equal(&p->backends[i].value.endpoint, endpoint))
			return &p->backends[i];
	return NULL;
}

const struct plan_backend *plan_find_id(const struct plan *p, __u32 id)
{
	for (unsigned int i = 0; i < p->n_backends; i++)
		if (p->backends[i].id == id)
			return &p->backends[i];
	return NULL;
}

const struct plan_frontend *plan_find_frontend(const struct plan *p,
					       const struct klb_endpoint *endpoint)
{
	for (unsigned int i = 0; i < p->n_frontends; i++)
		if (endpoint_equal(&p->frontends[i].endpoint, endpoint))
			return &p->frontends[i];
	return NULL;
}

/*
 * The lowest id that is not in use: by the applied plan (connections to a removed backend may be
 * under way), by a connection, or by this plan.
 */
static __u32 free_id(const struct plan_input *in, const struct plan *p)
{
	for (__u32 id = 1; id < KLB_ID_SELFTEST; id++) {
		if (in->applied && plan_find_id(in->applied, id))
			continue;
		if (in->open && in->open[id])
			continue;
		if (!plan_find_id(p, id))
			return id;
	}
	return 0;
}

static bool is_held(const struct plan_input *in, __u32 id)
{
	return in->held && in->held[id];
}

static bool is_carried(const struct plan_input *in, __u32 id)
{
	return in->open && in->open[id];
}

/* Whether it has left the list earlier, and nothing but the memory of it is kept. */
static bool is_resting(const struct plan_input *in, const struct plan_backend *b)
{
	return b->value.left_ns && !is_carried(in, b->id) && !is_held(in, b->id) &&
	       !config_has_backend(in->config, &b->value.endpoint);
}

/* The id of the backend that has been resting for longest; 0: there is none. */
static __u32 reclaimed_id(const struct plan_input *in, const struct plan *p)
{
	const struct plan_backend *oldest = NULL;

	for (unsigned int i = 0; in->applied && i < in->applied->n_backends; i++) {
		const struct plan_backend *b = &in->applied->backends[i];

		if (is_resting(in, b) && !plan_find_id(p, b->id) &&
		    (!oldest || b->value.left_ns < oldest->value.left_ns))
			oldest = b;
	}
	return oldest ? oldest->id : 0;
}

static int plan_identity(const struct plan_input *in, const struct plan *p,
			 struct plan_backend *ret, struct err *e)
{
	const struct plan_backend *old = NULL;
	char text[ENDPOINT_TEXT_MAX];

	if (in->applied)
		old = plan_find(in->applied, &ret->value.endpoint);
	if (old) {
		ret->id = old->id;
		ret->value.generation = old->value.generation;
		return 0;
	}
	ret->id = free_id(in, p);
	if (!ret->id)
		ret->id = reclaimed_id(in, p);
	if (!ret->id)
		return err_set(e, ENOSPC,
			       "%s: no id is free for it: all %d are in use, carried by open "
			       "connections or kept for the operator; try again when some have "
			       "closed, or undrain what `kubelbctl status` shows as removed",
			       endpoint_format(&ret->value.endpoint, text), KLB_ID_SELFTEST - 1);
	ret->value.generation = p->serial;
	ret->new_id = true;
	return 0;
}

static void set_health(struct klb_backend *value, const struct health *h)
{
	value->state = h->state;
	value->reason = h->reason;
	value->http_status = h->http_status;
	value->since_ns = h->since_ns;
	value->last_probe_ns = h->last_probe_ns;
}

/* Without probes, the state that an agent has found earlier is kept. */
static void plan_health(const struct plan_input *in, unsigned int index, struct plan_backend *ret)
{
	const struct plan_backend *old;

	if (in->health) {
		const struct health *h = &in->health[index];
		unsigned int share = health_share(h, in->config->slow_start_ms, in->now_ns);

		/* A backend of weight 0 takes no connections; a small share must not become 0. */
		if (ret->value.weight)
			ret->value.weight = ret->value.weight * share / 1000 ?: 1;
		set_health(&ret->value, h);
		return;
	}
	old = in->applied ? plan_find(in->applied, &ret->value.endpoint) : NULL;
	if (old) {
		ret->value.state = health_applied_state(&old->value);
		ret->value.reason = old->value.reason;
		ret->value.http_status = old->value.http_status;
		ret->value.since_ns = old->value.since_ns;
		ret->value.last_probe_ns = old->value.last_probe_ns;
		return;
	}
	ret->value.since_ns = in->now_ns;
}

static int plan_one_backend(const struct plan_input *in, unsigned int index, struct plan *p,
			    struct err *e)
{
	const struct config_backend *cb = &in->config->backends[index];
	struct plan_backend *b = &p->backends[p->n_backends];
	int r;

	memset(b, 0, sizeof(*b));
	b->value.endpoint = cb->endpoint;
	b->value.weight = cb->weight;
	b->rank = rank_of(in->node, &cb->endpoint);
	b->local = in->local && in->local[index];
	b->preferred = in->config->local != KLB_LOCAL_IGNORE && b->local;
	r = plan_identity(in, p, b, e);
	if (r)
		return r;
	plan_health(in, index, b);
	p->n_backends++;
	return 0;
}

/* Whether clients are served by it, as far as is known. */
static bool serves(const struct plan_backend *b)
{
	return b->value.weight &&
	       (b->value.state == KLB_STATE_READY || b->value.state == KLB_STATE_DRAINING);
}

/*
 * Who has shown nothing gives way to who has. Nobody knows whether an address answers that has just
 * come into the list: it is suspect until it does. Whoever listens on an address of this node needs
 * the certificate of an apiserver to be preferred. Where nobody serves, there is nothing to give
 * way to.
 */
static void plan_unproven(struct plan *p)
{
	bool some_serve = false, some_ready = false;

	for (unsigned int i = 0; i < p->n_backends; i++) {
		some_serve |= serves(&p->backends[i]);
		some_ready |=
			serves(&p->backends[i]) && p->backends[i].value.state == KLB_STATE_READY;
	}
	for (unsigned int i = 0; i < p->n_backends; i++) {
		struct klb_backend *b = &p->backends[i].value;

		if (some_serve && b->state == KLB_STATE_UNKNOWN)
			b->state = KLB_STATE_SUSPECT;
		if (some_ready && b->reason == KLB_REASON_CERTIFICATE)
			p->backends[i].preferred = false;
	}
}

static void plan_one_frontend(const struct plan_input *in, unsigned int index, struct plan *p)
{
	const struct config_frontend *cf = &in->config->frontends[index];
	struct plan_frontend *f = &p->frontends[p->n_frontends++];

	memset(f, 0, sizeof(*f));
	f->endpoint = cf->endpoint;
	f->scope = cf->scope;
	f->policy = in->config->policy;
	f->n_backends = in->config->n_backends;
	for (unsigned int i = 0; i < f->n_backends; i++)
		f->ids[i] = (__u16)p->backends[i].id;
}

const struct plan_backend *plan_find_used(const struct plan *p, const struct klb_endpoint *endpoint)
{
	const struct plan_backend *b = plan_find(p, endpoint);

	return b && !b->removed ? b : NULL;
}

unsigned int plan_count_used(const struct plan *p)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < p->n_backends; i++)
		n += !p->backends[i].removed;
	return n;
}

bool plan_uses(const struct plan *p, __u32 id)
{
	for (unsigned int i = 0; i < p->n_frontends; i++)
		for (unsigned int k = 0; k < p->frontends[i].n_backends; k++)
			if (p->frontends[i].ids[k] == id)
				return true;
	return false;
}

bool plan_is_forgotten(const struct plan_backend *b, __u64 now_ns)
{
	return b->value.left_ns && b->value.left_ns < now_ns &&
	       now_ns - b->value.left_ns >= PLAN_KEEP_NS;
}

/* Whether fewer than PLAN_KEEP_MAX that rest have left later than this one. */
static bool is_among_last(const struct plan_input *in, const struct plan_backend *one)
{
	unsigned int later = 0;

	for (unsigned int i = 0; i < in->applied->n_backends; i++) {
		const struct plan_backend *b = &in->applied->backends[i];

		later += is_resting(in, b) && (b->value.left_ns > one->value.left_ns ||
					       (b->value.left_ns == one->value.left_ns && b < one));
	}
	return later < PLAN_KEEP_MAX;
}

/* Of a backend that is applied and not in the configuration. */
static bool is_kept(const struct plan_input *in, const struct plan_backend *old)
{
	if (is_carried(in, old->id) || is_held(in, old->id) || !old->value.left_ns)
		return true;
	return !plan_is_forgotten(old, in->now_ns) && is_among_last(in, old);
}

static void plan_one_removed(const struct plan_input *in, const struct plan_backend *old,
			     struct plan *p)
{
	struct plan_backend *b = &p->backends[p->n_backends++];

	*b = *old;
	b->new_id = false;
	b->removed = true;
	b->preferred = false;
	b->value.weight = 0;
	if (!b->value.left_ns)
		b->value.left_ns = in->now_ns;
	for (unsigned int i = 0; i < in->n_watched; i++)
		if (endpoint_equal(&in->watched[i].endpoint, &b->value.endpoint))
			set_health(&b->value, &in->watched[i].health);
}

/* Keeps what is applied and has left the configuration, for a while. */
static void plan_removed(const struct plan_input *in, struct plan *p)
{
	for (unsigned int i = 0; in->applied && i < in->applied->n_backends; i++) {
		const struct plan_backend *old = &in->applied->backends[i];

		/* Its id may have been given to another one a moment ago. */
		if (!plan_find(p, &old->value.endpoint) && !plan_find_id(p, old->id) &&
		    is_kept(in, old))
			plan_one_removed(in, old, p);
	}
}

int plan_make(const struct plan_input *in, struct plan *ret, struct err *e)
{
	struct plan p;

	memset(&p, 0, sizeof(p));
	p.serial = (in->applied ? in->applied->serial : 0) + in->new_config;
	p.connect_timeout_ms = in->config->connect_timeout_ms;
	p.dead_peer_timeout_ms = in->config->dead_peer_timeout_ms;
	p.local = in->config->local;
	for (unsigned int i = 0; i < in->config->n_backends; i++) {
		int r = plan_one_backend(in, i, &p, e);

		if (r)
			return r;
	}
	plan_unproven(&p);
	for (unsigned int i = 0; i < in->config->n_frontends; i++)
		plan_one_frontend(in, i, &p);
	plan_removed(in, &p);
	*ret = p;
	return 0;
}
