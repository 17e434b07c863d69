/* SPDX-License-Identifier: BSD-2-Clause */
/* What the configuration says about the TLS of probes, and what it has to do with an answer. */
#include "config/probe_tls.h"

#include <stdio.h>

void config_probe_tls(const struct config_probe *c, struct tls_options *ret)
{
	static const struct tls_words words = {
		.peer = "backend",
		.give_certificate = "set probe.clientCert and probe.clientKey",
	};

	*ret = (struct tls_options){
		.ca = { .key = "probe.ca", .file = c->ca },
		.cert = { .key = "probe.clientCert", .file = c->client_cert },
		.key = { .key = "probe.clientKey", .file = c->client_key },
		.insecure = c->insecure_skip_verify,
		.words = &words,
	};
}

void config_explain_refusal(unsigned int status, bool certificate, char *detail)
{
	const char *why;

	if (certificate)
		why = status == 401
			      ? "probe.clientCert is not accepted; renew it, or give it the CA "
				"that the apiservers' --client-ca-file names"
			      : "the user of probe.clientCert may not get probe.path; bind it to "
				"the ClusterRole system:public-info-viewer";
	else
		why = status == 401
			      ? "it answers no anonymous probe; set probe.clientCert and "
				"probe.clientKey, or probe.anonymousAuth: false"
			      : "anonymous probes may not get probe.path, which is so for a moment "
				"while it starts; if it stays so, set probe.clientCert and "
				"probe.clientKey, or probe.anonymousAuth: false";
	snprintf(detail, TLS_DETAIL_MAX, "%u: %s", status, why);
}
