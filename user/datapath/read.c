/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the maps. */
#include "datapath/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/endpoint.h"

/* A hash map has no order. A stable order helps people and scripts. */
static int by_endpoint(const void *a, const void *b)
{
	const struct plan_frontend *x = a, *y = b;
	int r = memcmp(x->endpoint.addr, y->endpoint.addr, sizeof(x->endpoint.addr));

	/* IPv4, which is ::ffff:…, comes before IPv6. */
	if (endpoint_is_ipv4(&x->endpoint) != endpoint_is_ipv4(&y->endpoint))
		return endpoint_is_ipv4(&x->endpoint) ? -1 : 1;
	return r ? r
		 : (x->endpoint.port > y->endpoint.port) - (x->endpoint.port < y->endpoint.port);
}

static int read_frontends(const struct datapath *dp, struct plan *ret)
{
	struct klb_endpoint key, *previous = NULL;
	int fd = dp->fds[MAP_FRONTENDS];

	while (ret->n_frontends < KLB_MAX_FRONTENDS && !bpf_map_get_next_key(fd, previous, &key)) {
		struct plan_frontend *f = &ret->frontends[ret->n_frontends];
		struct klb_frontend value;

		previous = &key;
		if (bpf_map_lookup_elem(fd, &key, &value))
			continue; /* removed meanwhile */
		f->endpoint = key;
		f->policy = value.policy;
		f->scope = value.scope;
		f->n_backends = value.n_backends;
		if (f->n_backends > KLB_MAX_BACKENDS)
			return -EPROTO;
		memcpy(f->ids, value.ids, sizeof(f->ids));
		ret->n_frontends++;
	}
	qsort(ret->frontends, ret->n_frontends, sizeof(ret->frontends[0]), by_endpoint);
	return 0;
}

/* Which backends are preferred: the same ones for each frontend. */
static void read_preferred(const struct datapath *dp, struct plan *ret)
{
	struct klb_candidates table;
	struct klb_frontend value;

	if (!ret->n_frontends ||
	    bpf_map_lookup_elem(dp->fds[MAP_FRONTENDS], &ret->frontends[0].endpoint, &value) ||
	    bpf_map_lookup_elem(dp->fds[MAP_CANDIDATES], &value.table, &table))
		return;
	for (unsigned int i = 0; i < ret->n_backends; i++)
		for (unsigned int k = 0; k < table.n && k < KLB_MAX_BACKENDS; k++)
			if (table.at[k].id == ret->backends[i].id)
				ret->backends[i].preferred = table.at[k].preferred;
}

static int read_backends(const struct datapath *dp, struct plan *ret)
{
	int fd = dp->fds[MAP_BACKENDS];

	for (__u32 id = 1; id < KLB_MAX_IDS; id++) {
		struct plan_backend *b = &ret->backends[ret->n_backends];

		if (bpf_map_lookup_elem(fd, &id, &b->value)) {
			if (errno == ENOENT)
				continue;
			return -errno;
		}
		b->id = id;
		b->removed = b->value.left_ns || (ret->n_frontends && !plan_uses(ret, id));
		ret->n_backends++;
	}
	read_preferred(dp, ret);
	return 0;
}

/* Reads the values of all ids at once, from an array map: they are looked at every second. */
static int read_ids(const struct datapath *dp, enum map_index map, void *values, struct err *e)
{
	__u32 ids[KLB_MAX_IDS], last, n = KLB_MAX_IDS;

	if (bpf_map_lookup_batch(dp->fds[map], NULL, &last, ids, values, &n, NULL))
		return err_set(e, errno, "%s/%s: %s", dp->pin_dir, map_pins[map],
			       bpf_errno_hint(errno));
	return 0;
}

int datapath_read_stat(const struct datapath *dp, __u32 id, struct klb_stats *ret, struct err *e)
{
	if (!bpf_map_lookup_elem(dp->fds[MAP_STATS], &id, ret))
		return 0;
	return err_set(e, errno, "%s/stats: %s", dp->pin_dir, bpf_errno_hint(errno));
}

int datapath_read_stats(const struct datapath *dp, struct klb_stats *ret, struct err *e)
{
	return read_ids(dp, MAP_STATS, ret, e);
}

int datapath_read_admin(const struct datapath *dp, struct klb_admin *ret, struct err *e)
{
	return read_ids(dp, MAP_ADMIN, ret, e);
}

int datapath_read(const struct datapath *dp, struct datapath_state *ret, struct err *e)
{
	__u32 zero = 0;
	int r = 0;

	memset(ret, 0, sizeof(*ret));
	if (bpf_map_lookup_elem(dp->fds[MAP_CONTROL], &zero, &ret->control) ||
	    bpf_map_lookup_elem(dp->fds[MAP_COUNTERS], &zero, &ret->counters))
		r = -errno;
	if (!r)
		r = read_ids(dp, MAP_STATS, ret->stats, NULL);
	if (!r)
		r = read_ids(dp, MAP_ADMIN, ret->admin, NULL);
	if (!r)
		r = read_frontends(dp, &ret->applied);
	if (!r)
		r = read_backends(dp, &ret->applied);
	if (r)
		return err_set(e, -r, "%s: cannot read the maps: %s", dp->pin_dir,
			       bpf_errno_hint(-r));
	ret->applied.serial = (__u32)ret->control.config_serial;
	ret->applied.connect_timeout_ms = ret->control.connect_timeout_ms;
	ret->applied.dead_peer_timeout_ms = ret->control.dead_peer_timeout_ms;
	ret->applied.local = ret->control.local;
	return 0;
}
