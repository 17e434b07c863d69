/* SPDX-License-Identifier: BSD-2-Clause */
/* Writes the map `control`, and tests the attached programs. */
#include "datapath/load.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/random.h"
#include "net/netns.h"

static int connect4_prog(struct datapath_load *l, __u32 *ret, struct err *e)
{
	struct bpf_prog_info info;
	int r = bpf_info(bpf_program__fd(l->o.progs[PROG_CONNECT4]), &info, sizeof(info));

	if (r)
		return err_set(e, -r, "cannot tell a program's id: %s", bpf_errno_hint(-r));
	*ret = info.id;
	return 0;
}

/*
 * A reused control map is shared by the old and the new programs, so it names no program until
 * everything is done. If the load were killed before the link is switched, it would name a program
 * that never ran.
 */
int load_write_control(struct datapath_load *l, struct err *e)
{
	struct klb_control control;
	int r = map_get(&l->view, MAP_CONTROL, &control, e);

	if (r)
		return r;
	control.connect4_prog = 0;
	if (!l->reused[MAP_CONTROL])
		r = connect4_prog(l, &control.connect4_prog, e);
	if (r)
		return r;
	if (!control.seed)
		control.seed = random_u64();
	control.abi_version = KLB_ABI_VERSION;
	control.detached = 0;
	memcpy(control.refused, l->request.refused, sizeof(control.refused));
	control_put(l->view.control, &control);
	return 0;
}

/*
 * Writes what the test connect has found out into `control`: the cookie of our network namespace as
 * the programs see it, and the relation of their clock to CLOCK_MONOTONIC. Until then connects of
 * scope host go through untouched, which can happen only during a first load.
 */
static int record_selftest(struct datapath_load *l, struct err *e)
{
	struct klb_counters counters;
	struct klb_control control;
	struct netns_id own = netns_self();
	struct timespec tick;
	int r = map_get(&l->view, MAP_CONTROL, &control, e);

	if (r)
		return r;
	r = map_get(&l->view, MAP_COUNTERS, &counters, e);
	if (r)
		return r;
	/* The coarse clock advances by jiffies of 1/CONFIG_HZ s (kernel/time/posix-timers.c). */
	if (clock_getres(CLOCK_MONOTONIC_COARSE, &tick))
		return err_set(e, errno, "cannot tell the clock: %s", strerror(errno));
	control.host_netns = own.inode;
	/*
	 * Since Linux 5.14 user space can read it too. The fallback may be wrong: somebody else may
	 * have connected to the test frontend.
	 */
	control.host_netns_cookie = own.cookie ? own.cookie : counters.selftest.netns_cookie;
	control.tick_ns = (__u64)tick.tv_nsec;
	control.tick_offset_ns =
		counters.selftest.now_ns - counters.selftest.jiffies * control.tick_ns;
	control_put(l->view.control, &control);
	return 0;
}

int load_set_connect4_prog(struct datapath_load *l, struct err *e)
{
	struct klb_control control;
	int r = map_get(&l->view, MAP_CONTROL, &control, e);

	if (!r)
		r = connect4_prog(l, &control.connect4_prog, e);
	if (!r)
		control_put(l->view.control, &control);
	return r;
}

void load_restore_control(struct datapath_load *l)
{
	if (l->reused[MAP_CONTROL])
		control_put(l->view.control, &l->state.control);
}

/* Whether a program still runs on another cgroup until its pin is replaced. */
static bool is_moved(const struct datapath_load *l)
{
	for (unsigned int i = 0; i < l->n_slots; i++)
		if (l->exists && !l->slots[i].replaced)
			return true;
	return false;
}

/*
 * Runs two tests: the result of the first one decides which sockets the second one counts as the
 * host's.
 */
int load_run_selftests(struct datapath_load *l, struct err *e)
{
	struct selftest test = { .cgroup = l->cgroup,
				 .cgroup_id = l->cgroup_id,
				 .peername = l->o.progs[PROG_GETPEER4] && !is_moved(l),
				 .scope = KLB_SCOPE_ALL };
	int r = selftest_connect(&l->view, &test, e);

	if (!r)
		r = record_selftest(l, e);
	test.scope = KLB_SCOPE_HOST;
	return r ? r : selftest_connect(&l->view, &test, e);
}
