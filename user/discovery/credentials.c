/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loads the credentials: those of a kubeconfig, or those of a pod. They are loaded again for each
 * connection, because kubelets and projected tokens rotate their files.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "discovery/internal.h"
#include "net/endpoint.h"
#include "base/file.h"

#define SERVICE_ACCOUNT "/var/run/secrets/kubernetes.io/serviceaccount"
#define KUBECONFIG_BYTES_MAX ((size_t)1024 * 1024)
/* Signed tokens are a kilobyte or two. */
#define TOKEN_BYTES_MAX ((size_t)16 * 1024)

/* --- the token ----------------------------------------------------------------------- */

/* Removes the line end of a file, which is not part of the token. */
static void trim(struct credential *token)
{
	while (token->length && strchr(" \t\r\n", token->data[token->length - 1]))
		token->data[--token->length] = '\0';
}

static int check_token(const struct credential *token, struct err *e)
{
	if (!token->length)
		return err_set(e, EINVAL, "%s: the token is empty", token->key);
	if (strlen(token->data) != token->length || !credentials_is_header_text(token->data))
		return err_set(e, EINVAL,
			       "%s: the token has a blank or a character that no token has",
			       token->key);
	return 0;
}

static int load_token(struct credential *token, struct err *e)
{
	struct err why;
	int r;

	if (!token->file && !token->data)
		return 0;
	if (token->file) {
		file_forget(token->data, token->length);
		token->data = NULL;
		r = file_read(token->file, TOKEN_BYTES_MAX, &token->data, &token->length, &why);
		if (r < 0)
			return err_set(e, -r, "%s: %s", token->key, why.text);
	}
	trim(token);
	return check_token(token, e);
}

/* --- in a pod ------------------------------------------------------------------------ */

static bool set_file(struct credential *c, const char *dir, const char *name)
{
	return asprintf(&c->file, "%s/%s", dir, name) >= 0 &&
	       asprintf(&c->key, "in-cluster credentials") >= 0;
}

/* The server is where Kubernetes' environment variables say, or has its usual name. */
static int set_in_cluster_server(struct credentials *c, struct err *e)
{
	const char *host = getenv("KUBERNETES_SERVICE_HOST");
	const char *port = getenv("KUBERNETES_SERVICE_PORT");
	bool bare_v6 = host && strchr(host, ':');
	char url[512];

	if (!host || !*host)
		return credentials_set_server(c, "https://kubernetes.default.svc", e);
	snprintf(url, sizeof(url), "https://%s%.300s%s:%.16s", bare_v6 ? "[" : "", host,
		 bare_v6 ? "]" : "", port && *port ? port : "443");
	if (credentials_set_server(c, url, e) < 0)
		return err_set(e, EINVAL, "KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT: %s",
			       e ? e->text : "");
	return 0;
}

static int load_in_cluster(struct credentials *c, const char *dir, struct err *e)
{
	if (!set_file(&c->token, dir, "token") || !set_file(&c->ca, dir, "ca.crt"))
		return err_no_memory(e);
	return set_in_cluster_server(c, e);
}

/* --- loading ------------------------------------------------------------------------- */

static int load_kubeconfig(const char *path, struct credentials **ret, struct err *e)
{
	size_t length = 0;
	char *text = NULL;
	int r = file_read(path, KUBECONFIG_BYTES_MAX, &text, &length, e);

	if (r < 0)
		return r;
	r = kubeconfig_parse(text, length, path, ret, e);
	file_forget(text, length);
	return r;
}

int credentials_load(const char *kubeconfig, const char *service_account, struct credentials **ret,
		     struct err *e)
{
	struct credentials *c = NULL;
	int r;

	if (kubeconfig) {
		r = load_kubeconfig(kubeconfig, &c, e);
	} else {
		c = calloc(1, sizeof(*c));
		r = c ? load_in_cluster(c, service_account ? service_account : SERVICE_ACCOUNT, e)
		      : err_no_memory(e);
	}
	if (!r)
		r = load_token(&c->token, e);
	if (r) {
		credentials_free(c);
		return r;
	}
	*ret = c;
	return 0;
}
