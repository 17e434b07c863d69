/* SPDX-License-Identifier: BSD-2-Clause */
/* Opens the pinned maps, reads them, and writes single values. */
#include "datapath/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/endpoint.h"

/* The sizes of the values in this version. */
static const unsigned int value_sizes[MAP_COUNT] = {
	[MAP_FRONTENDS] = sizeof(struct klb_frontend),
	[MAP_LOOKUP] = sizeof(struct klb_lookup),
	[MAP_CANDIDATES] = sizeof(struct klb_candidates),
	[MAP_BACKENDS] = sizeof(struct klb_backend),
	[MAP_STATS] = sizeof(struct klb_stats),
	[MAP_ADMIN] = sizeof(struct klb_admin),
	[MAP_CONTROL] = sizeof(struct klb_control),
	[MAP_COUNTERS] = sizeof(struct klb_counters),
	[MAP_PENDING] = sizeof(struct klb_pending),
	[MAP_EVENTS] = sizeof(struct klb_event),
	[MAP_SOCKETS] = sizeof(struct klb_socket),
};

void datapath_init(struct datapath *dp, const char *pin_dir)
{
	snprintf(dp->pin_dir, sizeof(dp->pin_dir), "%s", pin_dir);
	for (int i = 0; i < MAP_COUNT; i++)
		dp->fds[i] = -1;
	dp->wakeup = NULL;
}

static void datapath_close_fds(struct datapath *dp)
{
	for (int i = 0; i < MAP_COUNT; i++) {
		if (dp->fds[i] >= 0)
			close(dp->fds[i]);
		dp->fds[i] = -1;
	}
}

void datapath_close(struct datapath *dp)
{
	if (!dp)
		return;
	ring_buffer__free(dp->wakeup);
	datapath_close_fds(dp);
	free(dp);
}

static int open_one(struct datapath *dp, int index, struct err *e)
{
	struct bpf_map_info info = { 0 };
	int fd = pin_open_map(dp->pin_dir, map_pins[index], &info, e);

	if (fd == -ENOENT && map_is_optional(index))
		return 0;
	if (fd < 0)
		return fd;
	dp->fds[index] = fd;
	if (info.value_size != value_sizes[index])
		return err_set(e, EPROTO,
			       "%s/%s: made by another version of kubelb (values of %u bytes, not "
			       "%u); run this version's kubelb-load to bring it in line",
			       dp->pin_dir, map_pins[index], info.value_size, value_sizes[index]);
	return 0;
}

static int check_abi(const struct datapath *dp, struct err *e)
{
	struct klb_control control;
	int r = map_get(dp, MAP_CONTROL, &control, e);

	if (r)
		return r;
	if (control.abi_version != KLB_ABI_VERSION)
		return err_set(e, EPROTO,
			       "%s: data path of ABI version %u, this program speaks %u; run this "
			       "version's kubelb-load to bring it in line",
			       dp->pin_dir, control.abi_version, KLB_ABI_VERSION);
	return 0;
}

#define UPGRADE_WAIT_MS 10000

static int open_once(const char *pin_dir, struct datapath **ret, struct err *e)
{
	struct datapath *dp;
	int r;

	r = require_root(e);
	if (r)
		return r;
	if (access(pin_dir, F_OK) && errno == ENOENT)
		return err_set(e, ENOENT, "%s: nothing is attached; run kubelb-load", pin_dir);
	dp = malloc(sizeof(*dp));
	if (!dp)
		return err_no_memory(e);
	datapath_init(dp, pin_dir);
	for (int i = 0; i < MAP_COUNT; i++) {
		r = open_one(dp, i, e);
		if (r)
			goto fail;
	}
	r = check_abi(dp, e);
	if (r)
		goto fail;
	*ret = dp;
	return 0;
fail:
	datapath_close(dp);
	return r;
}

/* Whether the pin still leads to the map that dp holds. */
static bool is_current(const struct datapath *dp, int index)
{
	struct bpf_map_info mine, pinned;
	int fd;

	if (dp->fds[index] < 0)
		return true;
	if (bpf_info(dp->fds[index], &mine, sizeof(mine)))
		return false;
	fd = pin_open_map(dp->pin_dir, map_pins[index], &pinned, NULL);
	if (fd < 0)
		return false;
	close(fd);
	return mine.id == pinned.id;
}

/* The same without CAP_SYS_ADMIN, by the program id that kubelb-load has written into `control`. */
static bool is_live_by_name(const struct datapath *dp)
{
	__u32 runs = links_connect4_prog(dp->pin_dir);
	struct klb_control control;

	return map_get(dp, MAP_CONTROL, &control, NULL) || !control.connect4_prog || !runs ||
	       control.connect4_prog == runs;
}

/*
 * Whether the programs use the maps that dp holds. An upgrade that was killed after switching the
 * links and before changing the pins leaves pins that no program uses; what is written there would
 * be lost.
 */
static bool is_live(const struct datapath *dp)
{
	struct bpf_map_info mine, live;
	int fd = links_live_map(dp->pin_dir, map_pins[MAP_CONTROL], &live);

	if (fd == -EPERM)
		return is_live_by_name(dp);
	if (fd < 0)
		return true;
	close(fd);
	return bpf_info(dp->fds[MAP_CONTROL], &mine, sizeof(mine)) || mine.id == live.id;
}

/* An upgrade may have replaced any of the maps. */
bool datapath_is_current(const struct datapath *dp)
{
	if (!is_live(dp))
		return false;
	for (int i = 0; i < MAP_COUNT; i++)
		if (!is_current(dp, i))
			return false;
	return true;
}

/* Waits for an upgrade that is under way. Reports one that was killed. */
int datapath_open(const char *pin_dir, struct datapath **ret, struct err *e)
{
	struct datapath *dp = NULL;
	int lock, r = open_once(pin_dir, &dp, e);

	if (r || is_live(dp)) {
		*ret = r ? *ret : dp;
		return r;
	}
	datapath_close(dp);
	lock = datapath_lock(pin_dir, false, UPGRADE_WAIT_MS, e);
	if (lock < 0)
		return lock;
	close(lock);
	r = open_once(pin_dir, &dp, e);
	if (!r && !is_live(dp)) {
		datapath_close(dp);
		r = err_set(
			e, EPROTO,
			"%s: an upgrade was killed half-way: the programs run on maps that are not "
			"the pinned ones; run kubelb-load to complete it",
			pin_dir);
	}
	if (!r)
		*ret = dp;
	return r;
}

/* --- reading ------------------------------------------------------------------ */

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
		ret->n_backends++;
	}
	return 0;
}

/* Reads the values of all ids. size: of one. */
static int read_ids(const struct datapath *dp, enum map_index map, void *values, size_t size,
		    struct err *e)
{
	for (__u32 id = 0; id < KLB_MAX_IDS; id++)
		if (bpf_map_lookup_elem(dp->fds[map], &id, (char *)values + id * size))
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
	return read_ids(dp, MAP_STATS, ret, sizeof(ret[0]), e);
}

int datapath_read_admin(const struct datapath *dp, struct klb_admin *ret, struct err *e)
{
	return read_ids(dp, MAP_ADMIN, ret, sizeof(ret[0]), e);
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
		r = read_ids(dp, MAP_STATS, ret->stats, sizeof(ret->stats[0]), NULL);
	if (!r)
		r = read_ids(dp, MAP_ADMIN, ret->admin, sizeof(ret->admin[0]), NULL);
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
	return 0;
}

/* --- small writes --------------------------------------------------------------- */

/* Takes the lock and checks that the pins still lead to the maps. */
static int lock_current(const struct datapath *dp, unsigned int wait_ms, struct klb_control *ret,
			struct err *e)
{
	int r, fd = datapath_lock(dp->pin_dir, false, wait_ms, e);

	/* Detached: only this process still holds the maps. */
	if (fd == -ENOENT)
		return err_set(e, ESTALE, "%s: detached", dp->pin_dir);
	if (fd < 0)
		return fd;
	if (!datapath_is_current(dp)) {
		close(fd);
		return err_set(e, ESTALE,
			       "%s: detached, replaced or left half upgraded; run kubelb-load",
			       dp->pin_dir);
	}
	r = map_get(dp, MAP_CONTROL, ret, e);
	if (r) {
		close(fd);
		return r;
	}
	return fd;
}

int datapath_heartbeat(const struct datapath *dp, const struct datapath_heartbeat_values *values,
		       __u64 *ret_serial, struct err *e)
{
	struct klb_control control;
	int fd = lock_current(dp, 0, &control, e), r;

	if (fd < 0)
		return fd;
	control.heartbeat_ns = values->now_ns;
	control.heartbeat_max_age_ns = values->max_age_ns;
	control.discovery = values->discovery;
	control.discovery_heard_ns = values->discovery_heard_ns;
	r = map_put(dp, MAP_CONTROL, &control, e);
	if (!r)
		*ret_serial = control.config_serial;
	close(fd);
	return r;
}

int datapath_apply(const struct datapath *dp, __u64 based_on, const struct plan *p, struct err *e)
{
	struct klb_control control;
	int fd = lock_current(dp, 0, &control, e), r;

	if (fd < 0)
		return fd;
	if (control.config_serial != based_on)
		r = err_set(e, ESTALE, "%s: changed by kubelb-load", dp->pin_dir);
	else
		r = apply_plan(dp, p, e);
	close(fd);
	return r;
}

#define ADMIN_WAIT_MS 10000

int datapath_change_admin(const struct datapath *dp, const struct plan_backend *b,
			  void (*change)(struct klb_admin *admin, const void *arg), const void *arg,
			  struct err *e)
{
	struct klb_control control;
	struct klb_admin admin;
	int r = 0, fd = lock_current(dp, ADMIN_WAIT_MS, &control, e);

	if (fd < 0)
		return fd;
	if (bpf_map_lookup_elem(dp->fds[MAP_ADMIN], &b->id, &admin))
		goto fail;
	/* An admin state of the id's earlier owner is invalid. */
	if (admin.generation != b->value.generation)
		memset(&admin, 0, sizeof(admin));
	admin.generation = b->value.generation;
	change(&admin, arg);
	if (!bpf_map_update_elem(dp->fds[MAP_ADMIN], &b->id, &admin, BPF_ANY))
		goto out;
fail:
	r = err_set(e, errno, "%s/admin: %s", dp->pin_dir, bpf_errno_hint(errno));
out:
	close(fd);
	return r;
}
