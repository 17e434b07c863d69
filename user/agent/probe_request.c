/* SPDX-License-Identifier: BSD-2-Clause */
/* Makes what every probe needs of the configuration: TLS, and the request. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/probe_internal.h"
#include "net/http_header.h"

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

/* As in a Host header: with the port, unless it is in an address already. */
static char *make_authority(const struct tls_peer *peer)
{
	char address[ENDPOINT_TEXT_MAX];
	char *authority;

	if (!peer->dns)
		return strdup(endpoint_format(&peer->address, address));
	if (asprintf(&authority, "%s:%u", peer->dns, peer->address.port & 0xffff) < 0)
		return NULL;
	return authority;
}

bool probe_get_make(const char *path, const struct tls_peer *peer, struct https_get *ret)
{
	char *request = NULL;

	ret->path = strdup(path);
	ret->authority = make_authority(peer);
	if (!ret->path || !ret->authority)
		return false;
	if (asprintf(&request,
		     "GET %s HTTP/1.1\r\n"
		     "Host: %s\r\n"
		     "User-Agent: " HTTP_USER_AGENT "\r\n"
		     "Accept: */*\r\n"
		     "Connection: keep-alive\r\n"
		     "\r\n",
		     path, ret->authority) < 0)
		return false;
	ret->request = request;
	return true;
}

void probe_get_free(struct https_get *get)
{
	free((char *)get->request);
	free((char *)get->path);
	free((char *)get->authority);
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
