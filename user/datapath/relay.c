/* SPDX-License-Identifier: BSD-2-Clause */
/* What the relay and the kernel programs tell each other. */
#include "datapath/internal.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"

/*
 * The relay accepts as soon as it runs. An entry that has lain for longer was left behind by a
 * relay that ended, and says nothing about whoever has the same port by now.
 */
#define RELAYED_MAX_AGE_NS (60 * NS_PER_S)

void datapath_set_relay(const struct datapath *dp, const struct klb_relay *relay)
{
	control_set_relay(dp->control, relay);
}

int datapath_take_relayed(const struct datapath *dp, const struct klb_endpoint *client,
			  const struct klb_endpoint *local, struct klb_relayed *ret)
{
	const struct klb_relayed_key key = { .client = *client, .local = *local };
	int fd = dp->fds[MAP_RELAYED];

	/* Two calls, as the one that does both takes Linux 5.14. Nobody else has this key. */
	if (bpf_map_lookup_elem(fd, &key, ret))
		return -errno;
	bpf_map_delete_elem(fd, &key);
	return clock_now_ns() - ret->time_ns > RELAYED_MAX_AGE_NS ? -ENOENT : 0;
}

int datapath_record_upstream(const struct datapath *dp, int fd, const struct datapath_upstream *u)
{
	/* The agent is root in the host's network namespace. */
	struct klb_socket record = {
		.frontend = u->frontend,
		.backend = u->backend,
		.id = u->id,
		.generation = u->generation,
		.flags = KLB_SOCKET_EARLY | KLB_SOCKET_TRUSTED | KLB_SOCKET_UPSTREAM,
		.pid = u->pid,
		.cgroup_id = u->cgroup_id,
	};

	memcpy(record.comm, u->comm, sizeof(record.comm));
	return bpf_map_update_elem(dp->fds[MAP_SOCKETS], &fd, &record, BPF_ANY) ? -errno : 0;
}
