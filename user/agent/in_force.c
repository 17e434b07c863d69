/* SPDX-License-Identifier: BSD-2-Clause */
/* Puts a configuration into force, with the backends that are used. */
#include "agent/internal.h"

#include <stdlib.h>
#include <string.h>

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
	bool keep = old && tls == a->tls && config_same_probe(old, cfg);
	struct agent_backend **backends =
		calloc(cfg->n_backends + 1, sizeof(struct agent_backend *));
	int r;

	if (!backends)
		return err_no_memory(e);
	r = agent_make_backends(a, cfg, tls, keep, backends, e);
	if (r) {
		agent_free_backends(backends, cfg->n_backends);
		return r;
	}
	if (old)
		agent_log_list_changes(a, cfg, cluster);
	agent_replace_backends(a, cfg, backends);
	if (!old)
		agent_adopt_removed(a, cfg, tls);
	else if (!keep)
		agent_renew_removed(a, cfg, tls);
	if (tls != a->tls)
		probe_tls_free(a->tls);
	a->tls = tls;
	a->config = cfg;
	if (old &&
	    (old->http_enabled != cfg->http_enabled || !endpoint_equal(&old->http, &cfg->http))) {
		http_free(a->http);
		a->http = NULL;
		a->http_retry_ns = 0;
	}
	config_free(old);
	a->config_pending = true;
	warn_insecure(cfg);
	return 0;
}

int agent_take_effective(struct agent *a, const struct config *file, struct probe_tls *tls,
			 struct err *e)
{
	struct klb_endpoint list[KLB_MAX_BACKENDS];
	const struct klb_endpoint *counts = a->found;
	struct config *effective = NULL;
	unsigned int n = file->discovery ? a->n_found : 0;
	int r;

	if (n && !a->source.list_alone) {
		n = endpoint_source_with_seeds(file, a->found, n, list);
		counts = list;
	}
	r = config_with_backends(file, counts, n, &effective, e);

	if (!r)
		r = take_config(a, effective, n > 0, tls, e);
	if (r) {
		config_free(effective);
		return r;
	}
	a->n_listed = file->discovery ? a->n_found : 0;
	memcpy(a->listed, a->found, a->n_listed * sizeof(a->listed[0]));
	return 0;
}
