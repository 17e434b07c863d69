/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What probe.c (one backend's connection and its probes) and probe_request.c (what they need of the
 * configuration) share. No other file includes this.
 */
#ifndef KUBELB_PROBE_INTERNAL_H
#define KUBELB_PROBE_INTERNAL_H

#include "net/https_conn.h"
#include "net/endpoint.h"
#include "agent/probe.h"
#include "net/tls.h"

struct probe_tls {
	struct tls *tls;
};

/* Makes the GET for path; false when memory is short. Free with probe_get_free in any case. */
bool probe_get_make(const char *path, const struct tls_peer *peer, struct https_get *ret);
void probe_get_free(struct https_get *get);

/*
 * Why it answers 401 or 403, and what to do, into detail (TLS_DETAIL_MAX). certificate: the probe
 * has one.
 */
void probe_explain_refusal(unsigned int status, bool certificate, char *detail);

#endif
