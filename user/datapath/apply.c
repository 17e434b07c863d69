/* SPDX-License-Identifier: BSD-2-Clause */
/* Writes a plan into the maps. Writes only what differs. */
#include "datapath/internal.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "net/endpoint.h"

static int fail(const struct datapath *dp, enum map_index map, struct err *e)
{
	return err_set(e, errno, "%s/%s: cannot write: %s", dp->pin_dir, map_pins[map],
		       bpf_errno_hint(errno));
}

/*
 * A new generation: connections that were counted for the id's last owner see from it that they do
 * not count here any more.
 */
static int clear_stats(const struct datapath *dp, __u32 id, __u32 generation)
{
	const struct klb_stats zero = { .generation = generation };

	return bpf_map_update_elem(dp->fds[MAP_STATS], &id, &zero, BPF_ANY) ? -errno : 0;
}

static int apply_backend(const struct datapath *dp, const struct plan_backend *b, struct err *e)
{
	struct klb_backend old;

	bool there = !bpf_map_lookup_elem(dp->fds[MAP_BACKENDS], &b->id, &old);

	/*
	 * First the counters: they change as soon as a candidate has the id. It may be there: from
	 * an apply that failed half-way, or another backend's that has left the list long ago.
	 */
	if (b->new_id && (!there || old.generation != b->value.generation) &&
	    clear_stats(dp, b->id, b->value.generation))
		return fail(dp, MAP_STATS, e);
	if (there && !memcmp(&old, &b->value, sizeof(old)))
		return 0;
	if (bpf_map_update_elem(dp->fds[MAP_BACKENDS], &b->id, &b->value, BPF_ANY))
		return fail(dp, MAP_BACKENDS, e);
	return 0;
}

static void candidate_of(const struct plan_backend *b, struct klb_candidate *ret)
{
	ret->endpoint = b->value.endpoint;
	ret->id = (__u16)b->id;
	ret->weight = (__u16)b->value.weight;
	ret->generation = b->value.generation;
	ret->state = b->value.state;
	ret->rank = b->rank;
	ret->ipv4 = endpoint_is_ipv4(&b->value.endpoint);
	ret->preferred = b->preferred;
}

static void candidates_of(const struct plan *p, const struct plan_frontend *f,
			  struct klb_candidates *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->n = (__u16)f->n_backends;
	for (__u32 i = 0; i < f->n_backends; i++) {
		const struct plan_backend *b = plan_find_id(p, f->ids[i]);

		if (!b)
			continue;
		candidate_of(b, &ret->at[i]);
		ret->local |= b->local;
	}
}

/* Returns the first table of a slot that no frontend uses. */
static int free_table(const struct datapath *dp, __u32 *ret)
{
	struct klb_endpoint key, *previous = NULL;
	bool used[KLB_FRONTEND_SLOTS] = { false };
	struct klb_frontend value;

	while (!bpf_map_get_next_key(dp->fds[MAP_FRONTENDS], previous, &key)) {
		previous = &key;
		if (!bpf_map_lookup_elem(dp->fds[MAP_FRONTENDS], &key, &value) &&
		    value.table < KLB_MAX_TABLES)
			used[value.table / KLB_TABLE_TURNS] = true;
	}
	for (__u32 i = 0; i < KLB_MAX_FRONTENDS; i++) {
		if (!used[i]) {
			*ret = KLB_TABLE_TURNS * i;
			return 0;
		}
	}
	errno = E2BIG;
	return -E2BIG;
}

int lookup_set(int fd, __u32 slot, const struct klb_lookup_entry *entry)
{
	struct klb_lookup lookup;
	__u32 zero = 0;

	if (bpf_map_lookup_elem(fd, &zero, &lookup))
		return -errno;
	memset(&lookup.at[slot], 0, sizeof(lookup.at[slot]));
	if (entry)
		lookup.at[slot] = *entry;
	lookup.slots = KLB_FRONTEND_SLOTS;
	while (lookup.slots && !lookup.at[lookup.slots - 1].endpoint.port)
		lookup.slots--;
	return bpf_map_update_elem(fd, &zero, &lookup, BPF_ANY) ? -errno : 0;
}

static void lookup_entry_of(const struct plan_frontend *f, const struct klb_frontend *value,
			    struct klb_lookup_entry *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->endpoint = f->endpoint;
	ret->policy = value->policy;
	ret->scope = value->scope;
	ret->table = value->table;
}

/*
 * Whether the kernel's map `lookup` matches `frontends`. A writer may have been killed between the
 * two writes.
 */
static bool lookup_same(const struct datapath *dp, const struct plan_frontend *f,
			const struct klb_frontend *value)
{
	struct klb_lookup_entry want;
	struct klb_lookup lookup;
	__u32 zero = 0;

	lookup_entry_of(f, value, &want);
	return !bpf_map_lookup_elem(dp->fds[MAP_LOOKUP], &zero, &lookup) &&
	       !memcmp(&lookup.at[value->table / KLB_TABLE_TURNS], &want, sizeof(want));
}

static bool frontend_same(const struct datapath *dp, const struct klb_frontend *a,
			  const struct klb_frontend *b, const struct klb_candidates *wanted)
{
	struct klb_candidates applied;

	if (a->policy != b->policy || a->scope != b->scope || a->n_backends != b->n_backends ||
	    memcmp(a->ids, b->ids, sizeof(a->ids)) != 0)
		return false;
	if (bpf_map_lookup_elem(dp->fds[MAP_CANDIDATES], &a->table, &applied))
		return false;
	return !memcmp(&applied, wanted, sizeof(applied));
}

static __u32 next_table(__u32 table)
{
	return table - table % KLB_TABLE_TURNS + (table + 1) % KLB_TABLE_TURNS;
}

/*
 * Fills the next table of the frontend, then points the frontend to it: in `frontends`, where this
 * code finds it again, and in `lookup`, which the kernel reads.
 */
static int apply_frontend(const struct datapath *dp, const struct plan *p,
			  const struct plan_frontend *f, struct err *e)
{
	struct klb_frontend old,
		value = { .policy = f->policy, .scope = f->scope, .n_backends = f->n_backends };
	struct klb_lookup_entry entry;
	struct klb_candidates table;

	memcpy(value.ids, f->ids, sizeof(value.ids));
	candidates_of(p, f, &table);
	if (!bpf_map_lookup_elem(dp->fds[MAP_FRONTENDS], &f->endpoint, &old)) {
		if (frontend_same(dp, &old, &value, &table) && lookup_same(dp, f, &old))
			return 0;
		value.table = next_table(old.table);
	} else if (free_table(dp, &value.table)) {
		return fail(dp, MAP_CANDIDATES, e);
	}
	if (bpf_map_update_elem(dp->fds[MAP_CANDIDATES], &value.table, &table, BPF_ANY))
		return fail(dp, MAP_CANDIDATES, e);
	if (bpf_map_update_elem(dp->fds[MAP_FRONTENDS], &f->endpoint, &value, BPF_ANY))
		return fail(dp, MAP_FRONTENDS, e);
	lookup_entry_of(f, &value, &entry);
	if (lookup_set(dp->fds[MAP_LOOKUP], value.table / KLB_TABLE_TURNS, &entry))
		return fail(dp, MAP_LOOKUP, e);
	return 0;
}

static int remove_frontend(const struct datapath *dp, const struct klb_endpoint *key)
{
	struct klb_frontend value;

	if (bpf_map_lookup_elem(dp->fds[MAP_FRONTENDS], key, &value))
		return errno == ENOENT ? 0 : -errno;
	if (value.table < KLB_MAX_TABLES &&
	    lookup_set(dp->fds[MAP_LOOKUP], value.table / KLB_TABLE_TURNS, NULL))
		return -errno;
	return bpf_map_delete_elem(dp->fds[MAP_FRONTENDS], key) && errno != ENOENT ? -errno : 0;
}

/* Empties the slots of `lookup` that have no entry in `frontends`. */
static int remove_strays(const struct datapath *dp, struct err *e)
{
	struct klb_lookup lookup;
	struct klb_frontend value;
	__u32 zero = 0;

	if (bpf_map_lookup_elem(dp->fds[MAP_LOOKUP], &zero, &lookup))
		return fail(dp, MAP_LOOKUP, e);
	for (__u32 i = 0; i < KLB_FRONTEND_SLOTS; i++) {
		if (!lookup.at[i].endpoint.port ||
		    (!bpf_map_lookup_elem(dp->fds[MAP_FRONTENDS], &lookup.at[i].endpoint, &value) &&
		     value.table / KLB_TABLE_TURNS == i))
			continue;
		if (lookup_set(dp->fds[MAP_LOOKUP], i, NULL))
			return fail(dp, MAP_LOOKUP, e);
	}
	return 0;
}

static int remove_frontends(const struct datapath *dp, const struct plan *p, struct err *e)
{
	struct klb_endpoint keys[KLB_FRONTEND_SLOTS], *previous = NULL;
	unsigned int n = 0;

	/* First collects the keys: a deletion during the iteration restarts it. */
	while (n < KLB_FRONTEND_SLOTS &&
	       !bpf_map_get_next_key(dp->fds[MAP_FRONTENDS], previous, &keys[n]))
		previous = &keys[n++];
	for (unsigned int i = 0; i < n; i++)
		if (!plan_find_frontend(p, &keys[i]) && remove_frontend(dp, &keys[i]))
			return fail(dp, MAP_FRONTENDS, e);
	return remove_strays(dp, e);
}

/* Whether the operator has set something since the plan was made: then the next one keeps it. */
static bool is_held(const struct datapath *dp, __u32 id)
{
	struct klb_backend backend;
	struct klb_admin admin;

	return !bpf_map_lookup_elem(dp->fds[MAP_BACKENDS], &id, &backend) &&
	       !bpf_map_lookup_elem(dp->fds[MAP_ADMIN], &id, &admin) &&
	       admin.generation == backend.generation && (admin.drained || admin.weight_set);
}

static int remove_backends(const struct datapath *dp, const struct plan *p, struct err *e)
{
	for (__u32 id = 1; id < KLB_MAX_IDS; id++)
		if (!plan_find_id(p, id) && !is_held(dp, id) &&
		    bpf_map_delete_elem(dp->fds[MAP_BACKENDS], &id) && errno != ENOENT)
			return fail(dp, MAP_BACKENDS, e);
	return 0;
}

/* Writes the settings, and the serial, from which others see that something has changed. */
static int apply_control(const struct datapath *dp, const struct plan *p, struct err *e)
{
	struct klb_control control;
	__u32 zero = 0;

	if (bpf_map_lookup_elem(dp->fds[MAP_CONTROL], &zero, &control))
		return fail(dp, MAP_CONTROL, e);
	if (control.config_serial == p->serial &&
	    control.connect_timeout_ms == p->connect_timeout_ms &&
	    control.dead_peer_timeout_ms == p->dead_peer_timeout_ms && control.local == p->local)
		return 0;
	control.connect_timeout_ms = p->connect_timeout_ms;
	control.dead_peer_timeout_ms = p->dead_peer_timeout_ms;
	control.local = p->local;
	if (control.config_serial != p->serial) {
		control.config_serial = p->serial;
		control.config_applied_ns = clock_now_ns();
	}
	control_put(dp->control, &control);
	return 0;
}

/*
 * The order matters: at every moment a connect sees complete data. What is new is written before
 * anything points to it; what is old is removed after nothing points to it any more.
 */
int apply_plan(const struct datapath *dp, const struct plan *p, struct err *e)
{
	int r = 0;

	/* Frontends that go free their slots for those that come. */
	r = remove_frontends(dp, p, e);
	for (unsigned int i = 0; !r && i < p->n_backends; i++)
		r = apply_backend(dp, &p->backends[i], e);
	for (unsigned int i = 0; !r && i < p->n_frontends; i++)
		r = apply_frontend(dp, p, &p->frontends[i], e);
	if (!r)
		r = remove_backends(dp, p, e);
	if (!r)
		r = apply_control(dp, p, e);
	return r;
}
