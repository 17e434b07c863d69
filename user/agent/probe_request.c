/* SPDX-License-Identifier: BSD-2-Clause */
/* The TLS that all probes share, made of the configuration. */
#include <stdlib.h>

#include "agent/probe_internal.h"
#include "config/probe_tls.h"

int probe_tls_new(const struct config_probe *cfg, struct probe_tls **ret, struct err *e)
{
	struct tls_options options;
	struct probe_tls *tls = calloc(1, sizeof(*tls));
	int r;

	if (!tls)
		return err_no_memory_for(e, "probe");
	config_probe_tls(cfg, &options);
	r = tls_new(&options, &tls->tls, e);
	if (r) {
		free(tls);
		return r;
	}
	tls->owners = 1;
	*ret = tls;
	return 0;
}

struct probe_tls *probe_tls_hold(struct probe_tls *tls)
{
	tls->owners++;
	return tls;
}

void probe_tls_free(struct probe_tls *tls)
{
	if (!tls || --tls->owners)
		return;
	tls_free(tls->tls);
	free(tls);
}

bool probe_tls_is_same(const struct probe_tls *x, const struct probe_tls *y)
{
	return tls_is_same(x->tls, y->tls);
}

__s64 probe_tls_expires_s(const struct probe_tls *tls)
{
	return tls_own_expires_s(tls->tls);
}
