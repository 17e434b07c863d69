/* SPDX-License-Identifier: BSD-2-Clause */
/* Judges the addresses that discovery names. */
#include "balance/plausible.h"

#include <string.h>

#include "base/array.h"
#include "net/endpoint.h"

/* Where a cluster's apiservers listen unless they are told otherwise. */
#define APISERVER_PORT 6443
#define HTTPS_PORT 443
#define PRIVILEGED_MAX 1023

static bool has_port(const struct config *file, unsigned int port)
{
	for (unsigned int i = 0; i < file->n_backends; i++)
		if (file->backends[i].endpoint.port == port)
			return true;
	return false;
}

/* Others of the same machines: etcd, the kubelet, kube-proxy, and the managers. */
static bool is_of_another_component(unsigned int port)
{
	static const unsigned int ports[] = { 2379,  2380,  2381,  4194,  10248, 10249,
					      10250, 10255, 10256, 10257, 10259 };

	for (size_t i = 0; i < ARRAY_SIZE(ports); i++)
		if (ports[i] == port)
			return true;
	return false;
}

/* 0/8, "this network", and ::/96 are nobody's addresses. */
static bool is_nobodys(const struct klb_endpoint *ep)
{
	static const __u8 zero[12];

	return endpoint_is_ipv4(ep) ? !ep->addr[12] : !memcmp(ep->addr, zero, sizeof(zero));
}

static bool is_plausible(const struct config *file, const struct klb_endpoint *ep, bool local)
{
	if (config_has_backend(file, ep))
		return true;
	if (is_nobodys(ep))
		return false;
	if (has_port(file, ep->port))
		return true;
	if (local)
		return ep->port == APISERVER_PORT;
	return (ep->port > PRIVILEGED_MAX || ep->port == HTTPS_PORT) &&
	       !is_of_another_component(ep->port);
}

unsigned int plausible_keep(const struct config *file, local_list_fn is_local,
			    struct klb_endpoint *list, unsigned int n)
{
	bool local[KLB_MAX_BACKENDS];
	unsigned int kept = 0;

	is_local(list, n, local);
	for (unsigned int i = 0; i < n; i++)
		if (is_plausible(file, &list[i], local[i]))
			list[kept++] = list[i];
	return kept;
}

unsigned int plausible_admit(struct ration *p, const struct klb_endpoint *list, const bool *known,
			     unsigned int n, __u64 now_ns, struct klb_endpoint *ret)
{
	static const struct ration_rules rules = { .burst = PLAUSIBLE_NEW_MAX,
						   .every_ms = PLAUSIBLE_NEW_EVERY_MS };
	unsigned int admitted = 0;

	for (unsigned int i = 0; i < n; i++)
		if (known[i] || ration_take(p, &rules, now_ns))
			ret[admitted++] = list[i];
	return admitted;
}
