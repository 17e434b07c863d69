/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What probe.c (one backend's connection and its probes) and probe_request.c (what they need of the
 * configuration) share. No other file includes this.
 */
#ifndef KUBELB_PROBE_INTERNAL_H
#define KUBELB_PROBE_INTERNAL_H

#include "agent/probe.h"
#include "net/tls.h"

struct probe_tls {
	struct tls *tls;
	unsigned int owners;
};

#endif
