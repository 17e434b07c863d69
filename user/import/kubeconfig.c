/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A kubeconfig: the current context's cluster, and other entries for the same cluster,
 * told by the same CA; the current context's user. Its keys are client-go's
 * (k8s.io/client-go/tools/clientcmd/api/v1), of which all that do not matter here are
 * allowed and passed over.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "config/internal.h"
#include "net/endpoint.h"
#include "import/internal.h"
#include "config/yaml_doc.h"

/* What a URL of https has when it names no port. */
#define HTTPS_PORT 443

/* A mapping of the document, or nothing. */
struct map {
	yaml_document_t *document;
	const yaml_node_t *node; /* NULL: not there */
};

/* --- finding things ----------------------------------------------------------- */

/* The value of a key; NULL when the mapping, the key or the value is missing. */
static const yaml_node_t *get(const struct map *map, const char *key)
{
	const yaml_node_pair_t *pair;
	const yaml_node_t *value;

	if (!map->node || map->node->type != YAML_MAPPING_NODE)
		return NULL;
	pair = yamldoc_pair(map->document, map->node, key, NULL);
	if (!pair)
		return NULL;
	value = yaml_document_get_node(map->document, pair->value);
	return yamldoc_is_null(value) ? NULL : value;
}

/* The text of a key, and where it is; "" when there is none. */
static const char *get_text(const struct map *map, const char *key, unsigned int *ret_line)
{
	const yaml_node_t *node = get(map, key);

	if (!node || node->type != YAML_SCALAR_NODE)
		return "";
	*ret_line = yamldoc_line(node);
	return (const char *)node->data.scalar.value;
}

static struct map get_map(const struct map *map, const char *key)
{
	return (struct map){ map->document, get(map, key) };
}

/* Entry n of a list of mappings; false after the last. */
static bool get_entry(const struct map *map, const char *list, size_t n, struct map *ret)
{
	const yaml_node_t *node = get(map, list);

	if (!node || node->type != YAML_SEQUENCE_NODE)
		return false;
	*ret = (struct map){ map->document, yamldoc_item(map->document, node, n) };
	return ret->node;
}

/* The entry of that name: what stands under `under` in it. */
static struct map get_named(const struct map *root, const char *list, const char *name,
			    const char *under)
{
	unsigned int line;
	struct map entry;

	for (size_t n = 0; get_entry(root, list, n, &entry); n++)
		if (strcmp(get_text(&entry, "name", &line), name) == 0)
			return get_map(&entry, under);
	return (struct map){ root->document, NULL };
}

/* --- a cluster ---------------------------------------------------------------- */

/* Takes https://HOST[:PORT][/] apart into HOST[:PORT], which it writes to buf. */
static int split_url(const struct migrate *m, unsigned int line, const char *url, char *buf,
		     size_t size)
{
	static const char scheme[] = "https://";
	const char *host = url + strlen(scheme);
	size_t length;

	if (strncmp(url, scheme, strlen(scheme)) != 0)
		return migrate_fail(m, line,
				    "server: '%.64s' is no https:// URL; apiservers speak TLS: "
				    "write https://ADDRESS:6443",
				    url);
	length = strcspn(host, "/?#");
	if (host[length] && strcmp(host + length, "/") != 0)
		return migrate_fail(m, line,
				    "server: '%.64s' has a path, so this is a proxy that serves "
				    "several clusters; give the apiservers' own addresses",
				    url);
	if (length >= size)
		return migrate_fail(m, line,
				    "server: '%.64s' is too long for an address; write "
				    "https://ADDRESS:6443",
				    url);
	memcpy(buf, host, length);
	buf[length] = '\0';
	return 0;
}

static bool is_local(const char *host, const struct klb_endpoint *ep)
{
	return (strncmp(host, "localhost", 9) == 0 && (!host[9] || host[9] == ':')) ||
	       migrate_is_loopback(ep);
}

static int read_server(struct migrate *m, const struct map *cluster, const char *name)
{
	struct migrate_backend b = { .weight = 1 };
	const char *url = get_text(cluster, "server", &b.line);
	struct klb_endpoint ep = { .port = HTTPS_PORT };
	char host[128];
	struct err why;
	int rc, bad;

	if (!*url)
		return migrate_fail(m, cluster->node ? yamldoc_line(cluster->node) : 0,
				    "cluster '%.64s' has no server; add server: "
				    "https://ADDRESS:6443",
				    name);
	rc = split_url(m, b.line, url, host, sizeof(host));
	if (rc < 0)
		return rc;
	bad = endpoint_parse(host, HTTPS_PORT, &ep, &why);
	if (is_local(host, &ep))
		return migrate_fail(m, b.line,
				    "server: %.64s points at a local proxy already; give that "
				    "proxy's own file with --from-nginx or --from-haproxy",
				    url);
	if (bad)
		return migrate_fail(m, b.line,
				    "server: %s (a backend has to be reached without asking DNS)",
				    why.text);
	b.endpoint = ep;
	migrate_ascii(name, b.label, sizeof(b.label));
	return migrate_add_backend(m, &b);
}

/* The files of a kubeconfig may be relative to it: found by its own name. */
static int set_file(struct migrate *m, struct migrate_text *field, const struct map *map,
		    const char *key)
{
	const char *slash = strrchr(m->source, '/');
	unsigned int line = 0;
	const char *path = get_text(map, key, &line);
	size_t size = strlen(m->source) + strlen(path) + 2;
	char *full;
	int rc;

	if (!*path)
		return 0;
	if (path[0] == '/' || m->source[0] != '/' || !slash)
		return migrate_set_file(m, field, line, key, path);
	full = malloc(size);
	if (!full)
		return migrate_fail_memory(m);
	snprintf(full, size, "%.*s/%s", (int)(slash - m->source), m->source, path);
	rc = migrate_set_file(m, field, line, key, full);
	free(full);
	return rc;
}

static void note_key(struct migrate *m, const struct map *map, const char *key, const char *why)
{
	const yaml_node_t *node = get(map, key);

	if (node)
		migrate_note(m, yamldoc_line(node), "%s%s%s", key, *why ? ": " : "", why);
}

/* What goes for all backends is taken from the current context's cluster. */
static int read_trust(struct migrate *m, const struct map *cluster)
{
	unsigned int line = 0;
	const char *name = get_text(cluster, "tls-server-name", &line);
	int rc = *name ? migrate_set_name(m, line, "tls-server-name", name) : 0;

	if (rc == 0)
		rc = set_file(m, &m->ca, cluster, "certificate-authority");
	if (strcmp(get_text(cluster, "insecure-skip-tls-verify", &line), "true") == 0)
		m->insecure_line = line;
	if (!m->insecure_line && !m->ca.value)
		note_key(m, cluster, "certificate-authority-data",
			 "probe.ca names a file: see that the one below is the same");
	note_key(m, cluster, "proxy-url", "backends are dialled directly");
	return rc;
}

/* --- the clusters, the user --------------------------------------------------- */

/* Whether both trust the same CA, and so belong to one cluster. */
static bool same_cluster(const struct map *a, const struct map *b)
{
	static const char *const keys[] = { "certificate-authority-data", "certificate-authority" };

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		unsigned int line;
		const char *ca = get_text(a, keys[i], &line);

		if (*ca && strcmp(ca, get_text(b, keys[i], &line)) == 0)
			return true;
	}
	return false;
}

static int read_clusters(struct migrate *m, const struct map *root, const char *current,
			 const struct map *main)
{
	int rc = read_server(m, main, current);
	struct map entry;

	if (rc == 0)
		rc = read_trust(m, main);
	for (size_t n = 0; rc == 0 && get_entry(root, "clusters", n, &entry); n++) {
		struct map cluster = get_map(&entry, "cluster");
		unsigned int line = 0;
		const char *name = get_text(&entry, "name", &line);

		if (!cluster.node || cluster.node == main->node)
			continue;
		if (same_cluster(main, &cluster))
			rc = read_server(m, &cluster, name);
		else
			migrate_note(m, yamldoc_line(cluster.node),
				     "cluster %s: another one, by its certificate-authority", name);
	}
	return rc;
}

static int read_user(struct migrate *m, const struct map *user)
{
	static const char *const others[] = { "token",
					      "tokenFile",
					      "exec",
					      "auth-provider",
					      "username",
					      "client-key-data",
					      "client-certificate-data" };
	int rc = set_file(m, &m->client_cert, user, "client-certificate");

	if (rc == 0)
		rc = set_file(m, &m->client_key, user, "client-key");
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		note_key(m, user, others[i],
			 "probes know client certificates in files, or need none");
	return rc;
}

/* The cluster and the user that are named by the current context, or the only ones. */
static int read_names(const struct migrate *m, const struct map *root, const char **ret_cluster,
		      const char **ret_user)
{
	unsigned int line = 1;
	const char *current = get_text(root, "current-context", &line);
	struct map entry, context, second;

	if (*current) {
		context = get_named(root, "contexts", current, "context");
		*ret_cluster = get_text(&context, "cluster", &line);
		*ret_user = get_text(&context, "user", &line);
		if (!**ret_cluster)
			return migrate_fail(m, line,
					    "current-context: no context '%.64s' that names a "
					    "cluster; set one that is there",
					    current);
		return 0;
	}
	if (!get_entry(root, "clusters", 0, &entry))
		return migrate_fail(m, 1, "no clusters; is this a kubeconfig?");
	if (get_entry(root, "clusters", 1, &second))
		return migrate_fail(m, 1,
				    "several clusters and no current-context; set it, with "
				    "kubectl config use-context in a copy, say");
	*ret_cluster = get_text(&entry, "name", &line);
	*ret_user = get_entry(root, "users", 0, &entry) ? get_text(&entry, "name", &line) : "";
	return 0;
}

static void note_next(struct migrate *m)
{
	if (m->n_backends == 1)
		migrate_hint(m, m->backends[0].line,
			     "one apiserver, as a kubeconfig names no more: add the others to "
			     "backends");
	migrate_hint(m, m->backends[0].line,
		     "once KubeLB is loaded, write server: https://127.0.0.1:6443 there");
}

static int read_root(struct migrate *m, yaml_document_t *document)
{
	struct map root = { document, yaml_document_get_root_node(document) }, cluster, user;
	const char *cluster_name = "", *user_name = "";
	int rc;

	if (!root.node || root.node->type != YAML_MAPPING_NODE)
		return migrate_fail(m, 1,
				    "no mapping of clusters and contexts; is this a "
				    "kubeconfig?");
	rc = read_names(m, &root, &cluster_name, &user_name);
	if (rc < 0)
		return rc;
	cluster = get_named(&root, "clusters", cluster_name, "cluster");
	if (!cluster.node)
		return migrate_fail(m, yamldoc_line(root.node),
				    "no cluster '%.64s' in clusters; is the file complete?",
				    cluster_name);
	user = get_named(&root, "users", user_name, "user");
	rc = read_clusters(m, &root, cluster_name, &cluster);
	if (rc == 0)
		rc = read_user(m, &user);
	if (rc == 0)
		note_next(m);
	return rc;
}

int migrate_read_kubeconfig(struct migrate *m, const char *text, size_t length)
{
	yaml_document_t document;
	int rc = yamldoc_load(m->source, text, length, &config_limits, &document, m->e);

	if (rc < 0)
		return rc;
	rc = read_root(m, &document);
	yaml_document_delete(&document);
	return rc;
}
