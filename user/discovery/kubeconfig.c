/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A kubeconfig, as far as discovery needs it: the current context's cluster and user.
 * Keys that change as whom or through what a client talks, and that we do not do, are
 * refused: going ahead without them would be somebody else's request.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "discovery/internal.h"
#include "base/file.h"
#include "base/redact.h"
#include "config/yaml_doc.h"

/* An administrator's file has a dozen values for each cluster. */
#define DEPTH_MAX 32
#define NODES_MAX 16384

#define KEY_TEXT_MAX 160

/* A place in the document: a value, and what messages call it. */
struct place {
	yaml_node_t *node; /* NULL: absent, or null */
	unsigned int line;
	char key[KEY_TEXT_MAX];
};

struct reading {
	const char *path; /* of the file */
	yaml_document_t *document;
	struct credentials *credentials;
	struct err *e;
};

#define fail(r, at, format, ...)                                                           \
	((at)->line ? err_set((r)->e, EINVAL, "%s:%u: %s: " format, (r)->path, (at)->line, \
			      (at)->key, ##__VA_ARGS__)                                    \
		    : err_set((r)->e, EINVAL, "%s: %s: " format, (r)->path, (at)->key,     \
			      ##__VA_ARGS__))

static int fail_memory(const struct reading *r)
{
	return err_no_memory_for(r->e, r->path);
}

/* --- walking ------------------------------------------------------------------------- */

/* Finds a mapping's value: ret->node is NULL when there is none. */
static int find(const struct reading *r, const struct place *mapping, const char *name,
		struct place *ret)
{
	struct place found = { .line = mapping->line };
	const yaml_node_pair_t *pair = NULL;
	bool seen = false;

	snprintf(found.key, sizeof(found.key), "%.110s%s%.40s", mapping->key,
		 mapping->key[0] ? "." : "", name);
	*ret = found;
	if (!mapping->node)
		return 0;
	if (mapping->node->type != YAML_MAPPING_NODE)
		return fail(r, mapping, "not a mapping; write key: value");
	while ((pair = yamldoc_pair(r->document, mapping->node, name, pair))) {
		found.line = yamldoc_line(yaml_document_get_node(r->document, pair->key));
		if (seen)
			return fail(r, &found,
				    "is there already (on line %u); remove one of the two",
				    ret->line);
		seen = true;
		found.node = yaml_document_get_node(r->document, pair->value);
		*ret = found;
	}
	if (ret->node && yamldoc_is_null(ret->node))
		ret->node = NULL;
	return 0;
}

/* A mapping's text, owned by the document; NULL when it is absent or empty. */
static int find_text(const struct reading *r, const struct place *mapping, const char *name,
		     struct place *at, const char **ret)
{
	const yaml_node_t *node;
	int rc = find(r, mapping, name, at);

	*ret = NULL;
	if (rc || !at->node)
		return rc;
	node = at->node;
	if (node->type != YAML_SCALAR_NODE)
		return fail(r, at, "not a string; write one");
	if (strlen((const char *)node->data.scalar.value) != node->data.scalar.length)
		return fail(r, at, "a NUL in the value; remove it");
	if (node->data.scalar.length)
		*ret = (const char *)node->data.scalar.value;
	return 0;
}

/* The value that the entry called name has for key, in the root's list. */
static int find_named(const struct reading *r, const struct place *root, const char *list,
		      const char *name, const char *key, struct place *ret)
{
	struct place at, entry = { .node = NULL };
	bool seen = false;
	int rc = find(r, root, list, &at);

	if (rc)
		return rc;
	if (at.node && at.node->type != YAML_SEQUENCE_NODE)
		return fail(r, &at, "not a list; write entries with name and %s", key);
	for (size_t n = 0; at.node && (entry.node = yamldoc_item(r->document, at.node, n)); n++) {
		const char *text = NULL;
		struct place of;

		entry.line = yamldoc_line(entry.node);
		snprintf(entry.key, sizeof(entry.key), "%s[%.60s]", list, name);
		rc = find_text(r, &entry, "name", &of, &text);
		if (rc)
			return rc;
		if (!text || strcmp(text, name) != 0)
			continue;
		if (seen)
			return fail(r, &of, "another entry of this name; remove one of the two");
		seen = true;
		rc = find(r, &entry, key, ret);
		if (rc)
			return rc;
	}
	if (!seen)
		return fail(r, &at, "no entry named '%.64s'; add it, or correct the name", name);
	if (!ret->node)
		return fail(r, ret, "is missing; add it");
	return 0;
}

/* --- values -------------------------------------------------------------------------- */

static int read_bool(const struct reading *r, const struct place *mapping, const char *name,
		     bool *ret)
{
	struct place at;
	const char *text;
	int rc = find_text(r, mapping, name, &at, &text);

	if (rc || !text)
		return rc;
	*ret = strcmp(text, "true") == 0;
	if (!*ret && strcmp(text, "false") != 0)
		return fail(r, &at, "not a boolean; write true or false");
	return 0;
}

static int base64_digit(char c)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				     "0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* RFC 4648, 4; blanks anywhere. Returns how many bytes, or -1. ret: as long as text. */
static long base64_decode(const char *text, char *ret)
{
	unsigned int bits = 0, n_bits = 0, digits = 0, padding = 0;
	long n = 0;

	for (; *text; text++) {
		int digit = base64_digit(*text);

		if (strchr(" \t\r\n", *text))
			continue;
		if (*text == '=' && padding < 2) {
			padding++;
			continue;
		}
		if (digit < 0 || padding)
			return -1;
		digits++;
		bits = (bits << 6 | (unsigned int)digit) & 0xffff;
		n_bits += 6;
		if (n_bits >= 8) {
			n_bits -= 8;
			ret[n++] = (char)(bits >> n_bits);
		}
	}
	return (digits + padding) % 4 == 0 && digits % 4 != 1 ? n : -1;
}

static int set_data(const struct reading *r, const struct place *at, const char *text,
		    struct credential *c)
{
	size_t room = strlen(text) + 1;
	long n;

	c->data = calloc(1, room);
	if (!c->data)
		return fail_memory(r);
	n = base64_decode(text, c->data);
	c->length = room; /* in the case of failure: what there is to forget */
	if (n <= 0)
		return fail(r, at, "not base64; write what base64 -w0 FILE prints");
	c->length = (size_t)n;
	return 0;
}

/* Relative to the kubeconfig, as kubectl does it. */
static int set_file(const struct reading *r, const struct place *at, const char *file,
		    struct credential *c)
{
	const char *slash = strrchr(r->path, '/');
	int dir = file[0] == '/' || !slash ? 0 : (int)(slash - r->path) + 1;

	/* "FILE: no such file" would show it. */
	if (secret_is_likely(file))
		return fail(r, at,
			    "the thing itself, where a file's name should be; write the name, or "
			    "use token, client-key-data or the like");
	if (asprintf(&c->file, "%.*s%s", dir, r->path, file) >= 0)
		return 0;
	c->file = NULL;
	return fail_memory(r);
}

static int set_key(const struct reading *r, const struct place *at, struct credential *c)
{
	if (asprintf(&c->key, "%s:%u: %s", r->path, at->line, at->key) >= 0)
		return 0;
	c->key = NULL;
	return fail_memory(r);
}

/* name-data goes before name, as with kubectl. */
static int read_pem(const struct reading *r, const struct place *mapping, const char *name,
		    struct credential *c)
{
	char data_name[48];
	struct place at;
	const char *text;
	int rc;

	snprintf(data_name, sizeof(data_name), "%s-data", name);
	rc = find_text(r, mapping, data_name, &at, &text);
	if (!rc && text) {
		rc = set_key(r, &at, c);
		return rc ? rc : set_data(r, &at, text, c);
	}
	if (!rc)
		rc = find_text(r, mapping, name, &at, &text);
	if (rc || !text)
		return rc;
	rc = set_key(r, &at, c);
	return rc ? rc : set_file(r, &at, text, c);
}

/* tokenFile goes before token, as with kubectl: it is the one that is kept fresh. */
static int read_token(const struct reading *r, const struct place *user)
{
	struct credential *c = &r->credentials->token;
	struct place at;
	const char *text;
	int rc = find_text(r, user, "tokenFile", &at, &text);

	if (!rc && text) {
		rc = set_key(r, &at, c);
		return rc ? rc : set_file(r, &at, text, c);
	}
	if (!rc)
		rc = find_text(r, user, "token", &at, &text);
	if (rc || !text)
		return rc;
	rc = set_key(r, &at, c);
	if (rc)
		return rc;
	c->data = strdup(text);
	if (!c->data)
		return fail_memory(r);
	c->length = strlen(text);
	return 0;
}

/* --- cluster and user ---------------------------------------------------------------- */

struct refusal {
	const char *name, *why;
};

static int refuse(const struct reading *r, const struct place *mapping,
		  const struct refusal *refusals)
{
	for (; refusals->name; refusals++) {
		struct place at;
		int rc = find(r, mapping, refusals->name, &at);

		if (!rc && at.node && !yamldoc_is(at.node, ""))
			rc = fail(r, &at, "%s", refusals->why);
		if (rc)
			return rc;
	}
	return 0;
}

static int read_server(const struct reading *r, const struct place *cluster)
{
	struct place at;
	const char *text;
	struct err why;
	int rc = find_text(r, cluster, "server", &at, &text);

	if (rc)
		return rc;
	if (!text)
		return fail(r, &at, "is missing; write https://HOST:PORT");
	if (credentials_set_server(r->credentials, text, &why) < 0)
		return fail(r, &at, "%s", why.text);
	return 0;
}

/* What the certificate must name also goes into SNI. */
static int read_server_name(const struct reading *r, const struct place *cluster)
{
	struct place at;
	const char *text;
	int rc = find_text(r, cluster, "tls-server-name", &at, &text);

	if (rc || !text)
		return rc;
	if (!credentials_is_header_text(text) || strlen(text) > 253)
		return fail(r, &at,
			    "not a DNS name or an address; write one that the "
			    "certificate has");
	r->credentials->server_name = strdup(text);
	return r->credentials->server_name ? 0 : fail_memory(r);
}

static int read_cluster(const struct reading *r, const struct place *cluster)
{
	static const struct refusal refusals[] = {
		{ "proxy-url", "discovery goes to the apiserver directly; give it a kubeconfig "
			       "without a proxy" },
		{ NULL, NULL },
	};
	struct credentials *c = r->credentials;
	int rc = refuse(r, cluster, refusals);

	if (!rc)
		rc = read_server(r, cluster);
	if (!rc)
		rc = read_server_name(r, cluster);
	if (!rc)
		rc = read_bool(r, cluster, "insecure-skip-tls-verify", &c->insecure);
	if (!rc)
		rc = read_pem(r, cluster, "certificate-authority", &c->ca);
	if (!rc && c->insecure && c->ca.key)
		rc = fail(r, cluster,
			  "insecure-skip-tls-verify and a certificate-authority; "
			  "remove one of the two");
	return rc;
}

static int read_user(const struct reading *r, const struct place *user)
{
	static const char impersonation[] = "discovery does not impersonate; give it a "
					    "kubeconfig of its own";
	static const char plugin[] = "discovery runs no credential plugins; give it a kubeconfig "
				     "with a client certificate, a token or a tokenFile";
	static const char basic[] = "Kubernetes has no passwords since 1.19; use a client "
				    "certificate, a token or a tokenFile";
	static const struct refusal refusals[] = {
		{ "exec", plugin },
		{ "auth-provider", plugin },
		{ "username", basic },
		{ "password", basic },
		{ "as", impersonation },
		{ "as-uid", impersonation },
		{ "as-groups", impersonation },
		{ "as-user-extra", impersonation },
		{ NULL, NULL },
	};
	struct credentials *c = r->credentials;
	int rc = refuse(r, user, refusals);

	if (!rc)
		rc = read_pem(r, user, "client-certificate", &c->cert);
	if (!rc)
		rc = read_pem(r, user, "client-key", &c->key);
	if (!rc && !c->cert.key != !c->key.key)
		rc = fail(r, user, "%s is missing, and the two go together; add it, or remove both",
			  c->cert.key ? "client-key" : "client-certificate");
	return rc ? rc : read_token(r, user);
}

static int read_context(const struct reading *r, const struct place *root, const char *name)
{
	struct place context, of, cluster, user;
	const char *cluster_name, *user_name;
	int rc = find_named(r, root, "contexts", name, "context", &context);

	if (!rc)
		rc = find_text(r, &context, "cluster", &of, &cluster_name);
	if (rc)
		return rc;
	if (!cluster_name)
		return fail(r, &of, "is missing; name an entry of clusters");
	rc = find_named(r, root, "clusters", cluster_name, "cluster", &cluster);
	if (!rc)
		rc = read_cluster(r, &cluster);
	if (!rc)
		rc = find_text(r, &context, "user", &of, &user_name);
	/* Without a user it is anonymous, which a cluster may allow. */
	if (rc || !user_name)
		return rc;
	rc = find_named(r, root, "users", user_name, "user", &user);
	return rc ? rc : read_user(r, &user);
}

static int read_root(const struct reading *r)
{
	struct place root = { .node = yaml_document_get_root_node(r->document) }, at;
	const char *name;
	int rc;

	if (!root.node || root.node->type != YAML_MAPPING_NODE)
		return err_set(r->e, EINVAL, "%s: this is no kubeconfig; name one", r->path);
	rc = find_text(r, &root, "current-context", &at, &name);
	if (rc)
		return rc;
	if (!name)
		return fail(r, &at, "is missing; name an entry of contexts");
	return read_context(r, &root, name);
}

int kubeconfig_parse(const char *text, size_t length, const char *path, struct credentials **ret,
		     struct err *e)
{
	static const struct yamldoc_limits limits = {
		.depth = DEPTH_MAX,
		.nodes = NODES_MAX,
		.advice = "check quotes and indentation (no tabs)",
	};
	struct reading r = { .path = path, .e = e };
	yaml_document_t document;
	int rc = yamldoc_load(path, text, length, &limits, &document, e);

	if (rc)
		return rc;
	r.document = &document;
	r.credentials = calloc(1, sizeof(*r.credentials));
	rc = r.credentials ? read_root(&r) : fail_memory(&r);
	yaml_document_delete(&document);
	if (rc) {
		credentials_free(r.credentials);
		return rc;
	}
	*ret = r.credentials;
	return 0;
}
