/* SPDX-License-Identifier: BSD-2-Clause */
/* Notices when other backends are this node's own than before: its addresses have changed. */
#include "agent/internal.h"

#include "base/clock.h"
#include "host/node.h"

/* The time between two looks at this node's addresses: they come after the agent at boot. */
#define REVIEW_MS 5000

static bool is_in_force(const struct agent *a, const struct klb_endpoint *list, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		if (!config_has_backend(a->config, &list[i]))
			return false;
	return n == a->config->n_backends;
}

/* Whether another backend than planned has an address of this node. */
static bool is_planned(const struct agent *a)
{
	struct klb_endpoint endpoints[KLB_MAX_BACKENDS];
	bool local[KLB_MAX_BACKENDS];

	config_endpoints(a->config, endpoints);
	node_is_local(endpoints, a->config->n_backends, local);
	for (unsigned int i = 0; i < a->config->n_backends; i++) {
		const struct plan_backend *b = agent_planned(a, i);

		if (b && b->local != local[i])
			return false;
	}
	return true;
}

void agent_review_local(struct agent *a)
{
	struct klb_endpoint list[KLB_MAX_BACKENDS];
	__u64 now = clock_now_ns();
	struct err e = { "" };
	unsigned int n;

	if (now < a->local_review_ns || a->file->local == KLB_LOCAL_IGNORE)
		return;
	a->local_review_ns = now + REVIEW_MS * NS_PER_MS;
	n = agent_list_backends(a, a->file, list);
	if (is_in_force(a, list, n) || (!n && !a->config->n_backends)) {
		a->dirty |= !is_planned(a);
		return;
	}
	if (agent_take_effective(a, a->file, a->tls, &e)) {
		log_event(LOG_LEVEL_ERROR, "cannot take the backends of this node", "error=%s",
			  log_quoted(e.text));
		return;
	}
	log_event(LOG_LEVEL_INFO, "the backends of this node are others now", "backends=%u",
		  a->config->n_backends);
	agent_apply(a);
}
