/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Detour: the connect hook sends here what can reach no backend itself, a socket bound to a
 * loopback source or of another family than all backends. The listeners are on the loopback
 * addresses, on ports that the host gives them; who has no entry in the kernel's map is refused.
 */
#include "agent/relay_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "host/node.h"
#include "net/endpoint.h"
#include "net/tcp_listen.h"

#define RETRY_NS (60 * NS_PER_S)

static const char *const loopbacks[RELAY_DETOURS] = { "127.0.0.1", "::1" };

/* Returns the port, or a negative errno. */
static int listen_at(struct agent_relay *r, int which)
{
	struct klb_endpoint at;
	struct err e;
	int fd, code;

	endpoint_parse(loopbacks[which], 1, &at, NULL);
	at.port = 0;
	fd = tcp_listen(&at, false);
	if (fd < 0)
		return fd;
	code = relay_listen(r->relay, fd, RELAY_UNREACHABLE, NULL, NULL, 0, &r->detour.at[which],
			    &e);
	if (code)
		close(fd);
	return code ? code : (int)at.port;
}

static void open_one(struct agent_relay *r, int which, __u16 *ret_port)
{
	struct err e = { "" };
	int port;

	if (r->detour.at[which] || (which == RELAY_DETOUR_IPV6 && !node_has_ipv6()))
		return;
	port = listen_at(r, which);
	if (port > 0) {
		*ret_port = (__u16)port;
	} else {
		r->told.detour_off = KLB_RELAY_OFF_ADDRESS;
		r->detour.retry_ns = clock_now_ns() + RETRY_NS;
		err_set(&e, -port, "%s: %s; `ip link set lo up`?", loopbacks[which],
			strerror(-port));
	}
	log_failure(r->detour.text, LOG_LEVEL_WARN,
		    "connects of sockets that can reach no backend are not relayed, the rest works",
		    &e);
}

static enum klb_relay_off why_off(const struct agent *a)
{
	if (!a->config->relay.detour)
		return KLB_RELAY_OFF_CONFIG;
	return a->other_netns ? KLB_RELAY_OFF_NETNS : KLB_RELAY_ON;
}

/* Whether there is anybody to relay to. */
static bool has_target(const struct agent_relay *r)
{
	for (unsigned int i = 0; i < r->n_plan; i++)
		for (unsigned int j = 0; j < r->plan[i].n; j++)
			if (r->plan[i].at[j].weight)
				return true;
	return false;
}

void relay_detour_review(struct agent_relay *r)
{
	enum klb_relay_off off = why_off(r->agent);
	bool idle = r->ending_ns || !has_target(r);

	/* Without a backend a refusal is the honest answer. */
	if (off || idle) {
		r->told.port4 = r->told.port6 = 0;
		r->told.detour_off = (__u16)off;
		relay_tell(r);
		if (off)
			relay_detour_close(r);
		return;
	}
	if (clock_now_ns() < r->detour.retry_ns)
		return;
	r->told.detour_off = KLB_RELAY_ON;
	open_one(r, RELAY_DETOUR_IPV4, &r->told.port4);
	open_one(r, RELAY_DETOUR_IPV6, &r->told.port6);
	relay_tell(r);
}

void relay_detour_close(struct agent_relay *r)
{
	for (int i = 0; i < RELAY_DETOURS; i++)
		if (r->detour.at[i])
			relay_unlisten(r->detour.at[i]);
	memset(r->detour.at, 0, sizeof(r->detour.at));
}
