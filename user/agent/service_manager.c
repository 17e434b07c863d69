/* SPDX-License-Identifier: BSD-2-Clause */
/* Tells the service manager how the agent is. */
#include "agent/internal.h"

#include "base/clock.h"
#include "host/sd_notify.h"

/* The wait before the next try: doubling. */
#define MANAGER_RETRY_MIN_MS 1000
#define MANAGER_RETRY_MAX_MS 60000

/* At each tick until it is clear. A shortage passes; what is wrong in the environment stays. */
void agent_open_manager(struct agent *a)
{
	__u64 now = clock_now_ns();
	struct err e = { "" };
	int r;

	if (a->manager_asked || now < a->manager_retry_ns)
		return;
	r = notify_new(a->base, &a->notify, &e);
	if (!r && a->notify_error[0])
		log_event(LOG_LEVEL_INFO, "the service manager is told again", "");
	log_failure(a->notify_error, LOG_LEVEL_WARN, "the service manager cannot be told anything",
		    &e);
	a->manager_asked = !err_is_shortage(-r);
	a->manager_wait_ms = a->manager_wait_ms ? 2 * a->manager_wait_ms : MANAGER_RETRY_MIN_MS;
	if (a->manager_wait_ms > MANAGER_RETRY_MAX_MS)
		a->manager_wait_ms = MANAGER_RETRY_MAX_MS;
	a->manager_retry_ns = now + a->manager_wait_ms * NS_PER_MS;
}

/* Ready means that connects are balanced and that the kernel uses this agent's states. */
void agent_notify(struct agent *a)
{
	const char *why = agent_not_ready(a);
	const char *refused =
		a->reload_refused ? "; the configuration was NOT reloaded, see the log" : "";
	const char *missing = agent_http_missing(a);
	unsigned int ready = 0;

	for (unsigned int i = 0; i < a->config->n_backends; i++)
		ready += agent_backend_health(a->backends[i])->state == KLB_STATE_READY;
	if (why || !a->heartbeat_written)
		notify_status(a->notify, "%s%s", why ? why : "waiting for the maps", refused);
	else if (!a->config->n_backends)
		notify_ready(a->notify, "no backends: connects go through untouched%s", refused);
	else
		notify_ready(a->notify, "%u of %u backends ready%s%s%s%s", ready,
			     a->config->n_backends,
			     a->path.relaying ? "; every connect is relayed" : "", refused,
			     missing ? "; " : "", missing ? missing : "");
}
