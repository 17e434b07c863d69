/* SPDX-License-Identifier: BSD-2-Clause */
/* What the configuration says about the TLS of probes. */
#ifndef KUBELB_CONFIG_PROBE_TLS_H
#define KUBELB_CONFIG_PROBE_TLS_H

#include "config/config.h"
#include "net/tls.h"

/* What tls_new takes; it keeps pointers into c. */
void config_probe_tls(const struct config_probe *c, struct tls_options *ret);

/*
 * Why a backend answers 401 or 403 to a probe, and what to do, into detail (TLS_DETAIL_MAX).
 * certificate: the probe has one.
 */
void config_explain_refusal(unsigned int status, bool certificate, char *detail);

#endif
