/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whatever the bytes: a snapshot that keeps its promises, or one printable line
 * and nothing else. The first byte decides whether the host has IPv6.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "net/endpoint.h"
#include "fuzz.h"

static void check_error(int r, const struct err *e)
{
	require(r == -EINVAL);
	require_line(e, "fuzz:");
}

static void check_snapshot(const struct config *c)
{
	unsigned int i, j;

	require(c->n_frontends >= 1 && c->n_frontends <= KLB_MAX_FRONTENDS);
	require(c->n_backends <= KLB_MAX_BACKENDS && (c->n_backends || c->discovery));
	for (i = 0; i < c->n_backends; i++) {
		const struct klb_endpoint *ep = &c->backends[i].endpoint;

		require(ep->port >= 1 && ep->port <= 65535);
		require(c->backends[i].weight <= KLB_WEIGHT_MAX);
		require(!endpoint_is_unspecified(ep) && !endpoint_is_multicast(ep));
		for (j = 0; j < i; j++)
			require(!endpoint_equal(ep, &c->backends[j].endpoint));
		for (j = 0; j < c->n_frontends; j++)
			require(!endpoint_equal(ep, &c->frontends[j].endpoint));
	}
	require(c->policy >= KLB_POLICY_LEAST_CONN && c->policy <= KLB_POLICY_LATENCY);
	require(c->probe.path[0] == '/' && c->probe.live_path[0] == '/');
	require(!strpbrk(c->probe.path, " \r\n") && !strpbrk(c->probe.live_path, " \r\n"));
	require(c->probe.interval_ms >= 100 && c->probe.timeout_ms >= 10);
	require(c->probe.rise && c->probe.fall);
	require(!c->probe.client_cert == !c->probe.client_key);
}

/* What is printed makes the same text again. */
static void check_printed(const struct config *c, bool host_has_ipv6)
{
	char *first = NULL, *second = NULL;
	struct config *again = NULL;
	struct err e;

	require(!config_print(c, host_has_ipv6, &first, &e));
	require(!config_parse(first, strlen(first), "printed", host_has_ipv6, &again, &e));
	require(!config_print(again, host_has_ipv6, &second, &e));
	require(!strcmp(first, second));
	free(first);
	free(second);
	config_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config *c = NULL;
	struct err e;
	int r;

	r = config_parse((const char *)data, size, "fuzz", size && data[0] & 1, &c, &e);
	if (r == 0) {
		check_snapshot(c);
		check_printed(c, size && data[0] & 1);
	} else {
		check_error(r, &e);
	}
	config_free(c);
	return 0;
}
