/* SPDX-License-Identifier: BSD-2-Clause */
/* Makes what every probe needs of the configuration: TLS, and the request. */
#include <stdio.h>
#include <stdlib.h>

#include "agent/probe_internal.h"
#include "net/https_conn.h"

int probe_tls_new(const struct config_probe *cfg, struct probe_tls **ret, struct err *e)
{
	static const struct tls_words words = {
		.peer = "backend",
		.give_certificate = "set probe.clientCert and probe.clientKey",
	};
	const struct tls_options options = {
		.ca = { .key = "probe.ca", .file = cfg->ca },
		.cert = { .key = "probe.clientCert", .file = cfg->client_cert },
		.key = { .key = "probe.clientKey", .file = cfg->client_key },
		.insecure = cfg->insecure_skip_verify,
		.words = &words,
	};
	struct probe_tls *tls = calloc(1, sizeof(*tls));
	int r;

	if (!tls)
		return err_no_memory_for(e, "probe");
	r = tls_new(&options, &tls->tls, e);
	if (r) {
		free(tls);
		return r;
	}
	*ret = tls;
	return 0;
}

void probe_tls_free(struct probe_tls *tls)
{
	if (!tls)
		return;
	tls_free(tls->tls);
	free(tls);
}

bool probe_tls_is_same(const struct probe_tls *x, const struct probe_tls *y)
{
	return tls_is_same(x->tls, y->tls);
}

char *probe_request(const char *path, const struct tls_peer *peer)
{
	char address[ENDPOINT_TEXT_MAX], port[8] = "";
	char *request;

	endpoint_format(&peer->address, address);
	if (peer->dns)
		snprintf(port, sizeof(port), ":%u", peer->address.port & 0xffff);
	if (asprintf(&request,
		     "GET %s HTTP/1.1\r\n"
		     "Host: %s%s\r\n"
		     "User-Agent: " HTTPS_USER_AGENT "\r\n"
		     "Accept: */*\r\n"
		     "Connection: keep-alive\r\n"
		     "\r\n",
		     path, peer->dns ? peer->dns : address, port) < 0)
		return NULL;
	return request;
}

void probe_explain_refusal(unsigned int status, bool certificate, char *detail)
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
