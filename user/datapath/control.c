/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The map `control`, mapped into memory. It has two writers at a time: whoever holds the lock, and
 * the agent, whose heartbeat needs no lock. Each stores only its own fields. Reading the whole
 * value and writing it back would undo what the other one has stored in between.
 */
#include "datapath/internal.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/array.h"

#define STORE(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELAXED)

struct klb_control *control_map(int fd)
{
	struct klb_control *at =
		mmap(NULL, sizeof(struct klb_control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		return NULL;
	return at;
}

void control_unmap(struct klb_control *control)
{
	if (control)
		munmap(control, sizeof(*control));
}

void control_set_relay(struct klb_control *control, const struct klb_relay *relay)
{
	STORE(control->relay.mark, relay->mark);
	STORE(control->relay.port4, relay->port4);
	STORE(control->relay.port6, relay->port6);
	for (unsigned int i = 0; i < ARRAY_SIZE(relay->stands_in); i++)
		STORE(control->relay.stands_in[i], relay->stands_in[i]);
	STORE(control->relay.active, relay->active);
	STORE(control->relay.rescue_off, relay->rescue_off);
	STORE(control->relay.detour_off, relay->detour_off);
}

void control_beat(struct klb_control *control, const struct datapath_heartbeat_values *values)
{
	STORE(control->heartbeat_max_age_ns, values->max_age_ns);
	STORE(control->ends_ejections, values->ends_ejections);
	STORE(control->discovery, values->discovery);
	STORE(control->discovery_heard_ns, values->discovery_heard_ns);
	control_set_relay(control, &values->relay);
	STORE(control->heartbeat_ns, values->now_ns);
}

void control_put(struct klb_control *control, const struct klb_control *value)
{
	STORE(control->abi_version, value->abi_version);
	STORE(control->connect4_prog, value->connect4_prog);
	STORE(control->host_netns_cookie, value->host_netns_cookie);
	STORE(control->config_serial, value->config_serial);
	STORE(control->config_applied_ns, value->config_applied_ns);
	STORE(control->tick_ns, value->tick_ns);
	STORE(control->tick_offset_ns, value->tick_offset_ns);
	STORE(control->seed, value->seed);
	STORE(control->connect_timeout_ms, value->connect_timeout_ms);
	STORE(control->dead_peer_timeout_ms, value->dead_peer_timeout_ms);
	STORE(control->detached, value->detached);
	STORE(control->host_netns, value->host_netns);
	for (int i = 0; i < KLB_FEATURES; i++)
		STORE(control->refused[i], value->refused[i]);
	STORE(control->local, value->local);
}
