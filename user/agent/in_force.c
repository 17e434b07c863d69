/* SPDX-License-Identifier: BSD-2-Clause */
/* Puts a configuration into force, with the backends that are used. */
#include "agent/internal.h"

#include <stdlib.h>
#include <string.h>

#include "balance/local_list.h"
#include "balance/plausible.h"
#include "base/clock.h"
#include "host/node.h"
#include "net/endpoint.h"
#include "net/http_server.h"

static void warn_insecure(const struct config *cfg)
{
	if (cfg->probe.insecure_skip_verify)
		log_event(LOG_LEVEL_WARN,
			  "the backends' certificates are NOT verified: anybody who answers on a "
			  "backend's address counts as an apiserver",
			  "key=probe.insecureSkipVerify");
}

/*
 * Makes everything of the new configuration before it frees anything of the old one. Takes
 * ownership of cfg and tls on success. tls: a->tls, when the content of the files is the same.
 * cluster: see agent_log_list_changes.
 */
static int take_config(struct agent *a, struct config *cfg, bool cluster, struct probe_tls *tls,
		       struct err *e)
{
	struct config *old = a->config;
	struct agent_backend **backends =
		calloc(cfg->n_backends + 1, sizeof(struct agent_backend *));
	int r;

	if (!backends)
		return err_no_memory(e);
	r = agent_make_backends(a, cfg, tls, backends, e);
	if (!r && old)
		r = agent_prepare_backends(a, cfg, tls, e);
	if (r) {
		agent_forgo_backends(a);
		agent_free_backends(backends, cfg->n_backends);
		return r;
	}
	if (old)
		agent_log_list_changes(a, cfg, cluster);
	agent_replace_backends(a, cfg, backends);
	if (!old)
		agent_adopt_removed(a, cfg, tls);
	if (tls != a->tls)
		probe_tls_free(a->tls);
	a->tls = tls;
	agent_close_http(a, cfg);
	a->config = cfg;
	agent_renew_backends(a);
	config_free(old);
	a->config_pending = true;
	warn_insecure(cfg);
	return 0;
}

/* Once for as long as there are some; the list is made again and again. */
static void warn_implausible(struct agent *a, unsigned int n)
{
	if (n && !a->implausible_logged)
		log_event(LOG_LEVEL_WARN,
			  "the cluster's list names addresses that no apiserver has, they are not "
			  "used: another port than an apiserver's, or this node's own address; an "
			  "apiserver that is there belongs into backends",
			  "addresses=%u", n);
	a->implausible_logged = n;
}

/* What the file and discovery say. */
static unsigned int list_sources(struct agent *a, const struct config *file,
				 struct klb_endpoint *ret)
{
	struct klb_endpoint found[KLB_MAX_BACKENDS];
	unsigned int n_found = file->discovery ? a->n_found : 0, n;

	memcpy(found, a->found, n_found * sizeof(found[0]));
	n = plausible_keep(file, node_is_local, found, n_found);
	warn_implausible(a, n_found - n);
	if (!n) {
		config_endpoints(file, ret);
		return file->n_backends;
	}
	if (!a->source.list_alone)
		return endpoint_source_with_seeds(file, found, n, ret);
	memcpy(ret, found, n * sizeof(*ret));
	return n;
}

/* Whether a local backend that the cluster lists no more is still one to keep. */
static bool keeps_unlisted(struct agent *a)
{
	bool local[KLB_MAX_BACKENDS];
	__u64 now = clock_now_ns();

	node_is_local(a->found, a->n_found, local);
	for (unsigned int i = 0; i < a->n_found; i++)
		if (local[i])
			a->local_listed_ns = now;
	/* The time before this agent is not known; it counts from the start. */
	if (!a->local_listed_ns)
		a->local_listed_ns = now;
	return now - a->local_listed_ns < PLAN_KEEP_NS;
}

static void warn_missing(struct agent *a, bool missing, unsigned int n)
{
	if (missing && !a->local_missing_logged)
		log_event(
			LOG_LEVEL_WARN,
			"local: only, but no backend has an address of this node: all of them are "
			"used, as with local: ignore; on a control-plane node add its own address "
			"to backends",
			"backends=%u", n);
	a->local_missing_logged = missing;
}

unsigned int agent_list_backends(struct agent *a, const struct config *file,
				 struct klb_endpoint *ret)
{
	const struct plan *applied = keeps_unlisted(a) ? &a->state->applied : NULL;
	unsigned int n = list_sources(a, file, ret);
	bool some_local;

	n = local_list_apply(file, applied, node_is_local, ret, n, &some_local);
	warn_missing(a, file->local == KLB_LOCAL_ONLY && n && !some_local, n);
	return n;
}

int agent_take_effective(struct agent *a, const struct config *file, struct probe_tls *tls,
			 struct err *e)
{
	struct klb_endpoint list[KLB_MAX_BACKENDS];
	struct config *effective = NULL;
	unsigned int n = agent_list_backends(a, file, list);
	int r = config_with_backends(file, list, n, &effective, e);

	if (!r)
		r = take_config(a, effective, file->discovery && a->n_found, tls, e);
	if (r) {
		config_free(effective);
		return r;
	}
	a->n_listed = file->discovery ? a->n_found : 0;
	memcpy(a->listed, a->found, a->n_listed * sizeof(a->listed[0]));
	return 0;
}
