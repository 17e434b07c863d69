/* SPDX-License-Identifier: BSD-2-Clause */
/* Compares two configurations, so that a reload keeps what has not changed. */
#include <string.h>

#include "config/config.h"

static bool same_text(const char *x, const char *y)
{
	return x == y || (x && y && !strcmp(x, y));
}

static bool same_frontends(const struct config *x, const struct config *y)
{
	return x->n_frontends == y->n_frontends &&
	       !memcmp(x->frontends, y->frontends, x->n_frontends * sizeof(x->frontends[0]));
}

bool config_same_connection(const struct config *x, const struct config *y)
{
	const struct config_probe *p = &x->probe, *q = &y->probe;

	return same_frontends(x, y) && same_text(p->path, q->path) &&
	       same_text(p->live_path, q->live_path) && same_text(p->server_name, q->server_name) &&
	       p->timeout_ms == q->timeout_ms && p->connect_timeout_ms == q->connect_timeout_ms &&
	       p->anonymous_auth == q->anonymous_auth;
}

bool config_same_probe(const struct config *x, const struct config *y)
{
	const struct config_probe *p = &x->probe, *q = &y->probe;

	return config_same_connection(x, y) && p->interval_ms == q->interval_ms &&
	       p->ping_ms == q->ping_ms && p->ping_timeout_ms == q->ping_timeout_ms &&
	       p->rise == q->rise && p->fall == q->fall;
}

bool config_same_discovery(const struct config *x, const struct config *y)
{
	return x->discovery == y->discovery &&
	       same_text(x->discovery_kubeconfig, y->discovery_kubeconfig) &&
	       same_text(x->discovery_cache, y->discovery_cache) && same_frontends(x, y);
}
