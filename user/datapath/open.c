/* SPDX-License-Identifier: BSD-2-Clause */
/* Opens the pinned maps, and checks that the programs use them. */
#include "datapath/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

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
	[MAP_ENDING] = sizeof(__u64),
	[MAP_RELAYED] = sizeof(struct klb_relayed),
	[MAP_SOCKETS] = sizeof(struct klb_socket),
};

void datapath_init(struct datapath *dp, const char *pin_dir)
{
	snprintf(dp->pin_dir, sizeof(dp->pin_dir), "%s", pin_dir);
	for (int i = 0; i < MAP_COUNT; i++)
		dp->fds[i] = -1;
	dp->control = NULL;
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
	control_unmap(dp->control);
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

static int map_control(struct datapath *dp, struct err *e)
{
	dp->control = control_map(dp->fds[MAP_CONTROL]);
	if (dp->control)
		return 0;
	if (errno == EINVAL)
		return err_set(e, EPROTO,
			       "%s/control: made by an earlier build of kubelb; run this version's "
			       "kubelb-load to bring it in line",
			       dp->pin_dir);
	return err_set(e, errno, "%s/control: cannot be mapped: %s", dp->pin_dir,
		       err_reason(errno));
}

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
	if (!r)
		r = map_control(dp, e);
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
	/* Another failure says nothing about what is pinned. */
	if (fd < 0)
		return fd != -ENOENT && fd != -EEXIST;
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

bool datapath_is_detached(const struct datapath *dp)
{
	struct klb_control control;

	return !map_get(dp, MAP_CONTROL, &control, NULL) && control.detached;
}

/* Waits for an upgrade that is under way. Reports one that was killed. */
int datapath_open(const char *pin_dir, unsigned int wait_ms, struct datapath **ret, struct err *e)
{
	struct datapath *dp = NULL;
	int lock, r = open_once(pin_dir, &dp, e);

	if (r || is_live(dp)) {
		*ret = r ? *ret : dp;
		return r;
	}
	datapath_close(dp);
	lock = datapath_lock(pin_dir, false, wait_ms, e);
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
