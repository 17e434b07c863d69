/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Makes credentials of a kubeconfig's current context. Keys that change as whom or through what
 * a client talks, and that discovery does not support, are refused: without them it would send
 * a different request from the one that the file describes.
 */
#include "config/kubeconfig.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/file.h"
#include "base/redact.h"
#include "discovery/internal.h"

/* Fills a credential from a string. */
typedef void set_function(struct kubeconfig *k, const struct kubeconfig_value *at,
			  struct credential *c);

/* --- values -------------------------------------------------------------------------- */

/* Takes blanks out of text, and returns the length of the rest. */
static size_t strip(char *text)
{
	char *to = text;

	for (const char *at = text; *at; at++)
		if (!strchr(" \t\r\n", *at))
			*to++ = *at;
	*to = '\0';
	return (size_t)(to - text);
}

/*
 * Decodes base64 (RFC 4648, 4) with blanks anywhere. text is changed; ret has as many bytes as
 * text. Returns how many bytes there are, or -1.
 */
static int base64_decode(char *text, char *ret)
{
	size_t length = strip(text), digits = strcspn(text, "="), padding = length - digits;
	int n;

	/* These are what OpenSSL lets pass: padding in any place, and a "-" at the end. */
	if (length > INT_MAX || length % 4 || padding > 2 ||
	    strspn(text + digits, "=") != padding || strchr(text, '-'))
		return -1;
	n = EVP_DecodeBlock((unsigned char *)ret, (const unsigned char *)text, (int)length);
	return n < 0 ? -1 : n - (int)padding;
}

static void set_data(struct kubeconfig *k, const struct kubeconfig_value *at, struct credential *c)
{
	size_t size = strlen(at->text) + 1;
	char *copy = strdup(at->text);
	int n;

	c->data = calloc(1, size);
	if (!copy || !c->data) {
		file_forget(copy, size);
		kubeconfig_fail_memory(k);
		return;
	}
	n = base64_decode(copy, c->data);
	file_forget(copy, size);
	c->length = n > 0 ? (size_t)n : size;
	if (n <= 0)
		kubeconfig_fail(k, at, "not base64; write what base64 -w0 FILE prints");
}

static void set_file(struct kubeconfig *k, const struct kubeconfig_value *at, struct credential *c)
{
	/* A message "FILE: no such file" would show the secret. */
	if (secret_is_likely(at->text))
		kubeconfig_fail(
			k, at,
			"the thing itself, where a file's name should be; write the name, or "
			"use token, client-key-data or the like");
	else
		c->file = kubeconfig_file(k, at->text);
}

static void set_text(struct kubeconfig *k, const struct kubeconfig_value *at, struct credential *c)
{
	c->data = strdup(at->text);
	if (c->data)
		c->length = strlen(at->text);
	else
		kubeconfig_fail_memory(k);
}

/* Reads a credential from its first key, or if that is absent from its second. */
static void read_either(struct kubeconfig *k, const struct kubeconfig_value *mapping,
			const char *first, set_function *set_first, const char *second,
			set_function *set_second, struct credential *c)
{
	struct kubeconfig_value at = kubeconfig_text(k, mapping, first);
	set_function *set = set_first;

	if (!at.text) {
		at = kubeconfig_text(k, mapping, second);
		set = set_second;
	}
	if (!at.text)
		return;
	if (asprintf(&c->key, "%s:%u: %s", k->path, at.line, at.key) >= 0) {
		set(k, &at, c);
		return;
	}
	c->key = NULL;
	kubeconfig_fail_memory(k);
}

/* name-data goes before name, as with kubectl. */
static void read_pem(struct kubeconfig *k, const struct kubeconfig_value *mapping, const char *name,
		     struct credential *c)
{
	char data_name[48];

	snprintf(data_name, sizeof(data_name), "%s-data", name);
	read_either(k, mapping, data_name, set_data, name, set_file, c);
}

static void refuse(struct kubeconfig *k, const struct kubeconfig_value *mapping, const char *name,
		   const char *why)
{
	struct kubeconfig_value at = kubeconfig_get(k, mapping, name);

	if (at.node)
		kubeconfig_fail(k, &at, "%s", why);
}

/* --- cluster and user ---------------------------------------------------------------- */

static void read_server(struct kubeconfig *k, const struct kubeconfig_value *cluster,
			struct credentials *c)
{
	struct kubeconfig_value at = kubeconfig_text(k, cluster, "server");
	struct err why;

	if (!at.text)
		kubeconfig_fail(k, &at, "is missing; write https://HOST:PORT");
	else if (credentials_set_server(c, at.text, &why) < 0)
		kubeconfig_fail(k, &at, "%s", why.text);
}

/* The name that the certificate must have also goes into SNI. */
static void read_server_name(struct kubeconfig *k, const struct kubeconfig_value *cluster,
			     struct credentials *c)
{
	struct kubeconfig_value at = kubeconfig_text(k, cluster, "tls-server-name");

	if (!at.text)
		return;
	if (!credentials_is_header_text(at.text) || strlen(at.text) > 253) {
		kubeconfig_fail(k, &at,
				"not a DNS name or an address; write one that the "
				"certificate has");
		return;
	}
	c->server_name = strdup(at.text);
	if (!c->server_name)
		kubeconfig_fail_memory(k);
}

static void read_insecure(struct kubeconfig *k, const struct kubeconfig_value *cluster,
			  struct credentials *c)
{
	struct kubeconfig_value at = kubeconfig_text(k, cluster, "insecure-skip-tls-verify");

	c->insecure = at.text && strcmp(at.text, "true") == 0;
	if (at.text && !c->insecure && strcmp(at.text, "false") != 0)
		kubeconfig_fail(k, &at, "not a boolean; write true or false");
}

static void read_cluster(struct kubeconfig *k, const struct kubeconfig_value *cluster,
			 struct credentials *c)
{
	refuse(k, cluster, "proxy-url",
	       "discovery goes to the apiserver directly; give it a kubeconfig without a proxy");
	read_server(k, cluster, c);
	read_server_name(k, cluster, c);
	read_insecure(k, cluster, c);
	read_pem(k, cluster, "certificate-authority", &c->ca);
	if (c->insecure && c->ca.key)
		kubeconfig_fail(k, cluster,
				"insecure-skip-tls-verify and a certificate-authority; "
				"remove one of the two");
}

static void read_user(struct kubeconfig *k, const struct kubeconfig_value *user,
		      struct credentials *c)
{
	static const char impersonation[] = "discovery does not impersonate; give it a "
					    "kubeconfig of its own";
	static const char plugin[] = "discovery runs no credential plugins; give it a kubeconfig "
				     "with a client certificate, a token or a tokenFile";
	static const char basic[] = "Kubernetes has no passwords since 1.19; use a client "
				    "certificate, a token or a tokenFile";

	refuse(k, user, "exec", plugin);
	refuse(k, user, "auth-provider", plugin);
	refuse(k, user, "username", basic);
	refuse(k, user, "password", basic);
	refuse(k, user, "as", impersonation);
	refuse(k, user, "as-uid", impersonation);
	refuse(k, user, "as-groups", impersonation);
	refuse(k, user, "as-user-extra", impersonation);
	read_pem(k, user, "client-certificate", &c->cert);
	read_pem(k, user, "client-key", &c->key);
	if (!c->cert.key != !c->key.key)
		kubeconfig_fail(k, user,
				"%s is missing, and the two go together; add it, or remove both",
				c->cert.key ? "client-key" : "client-certificate");
	/* The file goes before the token, as with kubectl: it is kept fresh. */
	read_either(k, user, "tokenFile", set_file, "token", set_text, &c->token);
}

static void read_context(struct kubeconfig *k, struct credentials *c)
{
	struct kubeconfig_value current = kubeconfig_text(k, &k->root, "current-context");
	struct kubeconfig_value context, cluster, user;

	if (!current.text) {
		kubeconfig_fail(k, &current, "is missing; name an entry of contexts");
		return;
	}
	context = kubeconfig_named(k, "contexts", current.text, true);
	cluster = kubeconfig_text(k, &context, "cluster");
	user = kubeconfig_text(k, &context, "user");
	if (!cluster.text) {
		kubeconfig_fail(k, &cluster, "is missing; name an entry of clusters");
		return;
	}
	cluster = kubeconfig_named(k, "clusters", cluster.text, true);
	read_cluster(k, &cluster, c);
	/* Without a user it is anonymous, which a cluster may allow. */
	if (!user.text)
		return;
	user = kubeconfig_named(k, "users", user.text, true);
	read_user(k, &user, c);
}

int kubeconfig_parse(const char *text, size_t length, const char *path, struct credentials **ret,
		     struct err *e)
{
	struct credentials *c;
	struct kubeconfig k;
	int r = kubeconfig_open(&k, text, length, path, e);

	if (r)
		return r;
	c = calloc(1, sizeof(*c));
	if (!c)
		kubeconfig_fail_memory(&k);
	else if (!k.root.node)
		k.r = err_set(e, EINVAL, "%s: this is no kubeconfig; name one", path);
	else
		read_context(&k, c);
	kubeconfig_close(&k);
	if (k.r) {
		credentials_free(c);
		return k.r;
	}
	*ret = c;
	return 0;
}
