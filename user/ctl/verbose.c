/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelbctl -v: logs to stderr what a command reads and writes. */
#include "ctl/ctl.h"

#include "base/clock.h"
#include "net/endpoint.h"
#include "base/log.h"
#include "base/format.h"

/* Seconds since then_ns; negative for never. */
static double seconds_ago(__u64 then_ns, __u64 now_ns)
{
	if (!then_ns)
		return -1;
	return clock_seconds(then_ns, now_ns);
}

void ctl_log_state(const char *pin_dir, const struct datapath_state *s)
{
	const struct klb_control *c = &s->control;
	__u64 now = clock_now_ns();

	log_event(LOG_LEVEL_DEBUG, "maps read",
		  "pin=%s abi_version=%u config_serial=%llu config_seconds_ago=%.1f "
		  "heartbeat_seconds_ago=%.1f heartbeat_good_for_seconds=%.1f "
		  "connect_timeout_ms=%u dead_peer_timeout_ms=%u local=%s host_netns=%llu "
		  "frontends=%u backends=%u events=%llu",
		  log_quoted(pin_dir), c->abi_version, c->config_serial,
		  seconds_ago(c->config_applied_ns, now), seconds_ago(c->heartbeat_ns, now),
		  (double)c->heartbeat_max_age_ns / NS_PER_S, c->connect_timeout_ms,
		  c->dead_peer_timeout_ms, config_local_name(c->local), c->host_netns,
		  s->applied.n_frontends, s->applied.n_backends, s->counters.events);
}

static const char *effect_name(const struct datapath_link *link)
{
	if (link->effective)
		return "yes";
	return link->hidden ? "unknown" : "no";
}

void ctl_log_links(const struct datapath_link *links, int n)
{
	for (int i = 0; i < n; i++)
		log_event(LOG_LEVEL_DEBUG, "link read", "name=%s program_id=%u effective=%s",
			  links[i].name, links[i].prog_id, effect_name(&links[i]));
}

void ctl_log_admin(const struct datapath *dp, const struct plan_backend *b)
{
	struct klb_admin admins[KLB_MAX_IDS];
	const struct klb_admin *admin = &admins[b->id];
	char text[ENDPOINT_TEXT_MAX];

	if (!log_enabled(LOG_LEVEL_DEBUG) || datapath_read_admin(dp, admins, NULL))
		return;
	log_event(LOG_LEVEL_DEBUG, "wish written",
		  "map=admin backend=%s id=%u generation=%u drained=%u weight_set=%u weight=%u",
		  endpoint_format(&b->value.endpoint, text), b->id, admin->generation,
		  admin->drained, admin->weight_set, admin->weight);
}

void ctl_log_list(unsigned int records, unsigned int open)
{
	log_event(LOG_LEVEL_DEBUG, "sockets listed", "records=%u open=%u", records, open);
}

static const char *end_text(const struct datapath_ending *x)
{
	if (x->result == -ENOENT)
		return "connection had ended by itself";
	return x->reset ? "connection reset" : "connection destroyed";
}

void ctl_log_end(const struct datapath_ending *x)
{
	const struct klb_connection *c = x->connection;
	char process[FORMAT_PROCESS_MAX];
	char local[ENDPOINT_TEXT_MAX], backend[ENDPOINT_TEXT_MAX];

	format_process(c->record.comm, c->record.pid, process);
	log_event(LOG_LEVEL_DEBUG, end_text(x),
		  "process=%s local=%s backend=%s netns=%llu cookie=%llu", log_quoted(process),
		  endpoint_format(&c->local, local), endpoint_format(&c->record.backend, backend),
		  c->netns, c->cookie);
}
