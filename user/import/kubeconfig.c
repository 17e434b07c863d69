/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Imports a kubeconfig as client-go reads it: the current context's cluster and user. Others with
 * the same CA may be the same cluster: a hint names them.
 */
#include "config/kubeconfig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "config/yaml_doc.h"
#include "import/internal.h"
#include "net/endpoint.h"
#include "net/url.h"

/* --- a cluster ---------------------------------------------------------------- */

/* Reads https://HOST[:PORT][/], and nothing behind it. */
static int split_url(const struct import *m, unsigned int line, const char *url, struct url *ret)
{
	int r = url_split(url, ret);

	if (r == -ENAMETOOLONG)
		return import_fail(m, line,
				   "server: '%.64s' is too long for an address; write "
				   "https://ADDRESS:6443",
				   url);
	if (r < 0)
		return import_fail(m, line,
				   "server: '%.64s' is no https:// URL; apiservers speak TLS: "
				   "write https://ADDRESS:6443",
				   url);
	if (*ret->rest && strcmp(ret->rest, "/") != 0)
		return import_fail(m, line,
				   "server: '%.64s' has a path, so this is a proxy that serves "
				   "several clusters; give the apiservers' own addresses",
				   url);
	return 0;
}

static bool is_local(const char *host, const struct klb_endpoint *ep)
{
	return (strncmp(host, "localhost", 9) == 0 && (!host[9] || host[9] == ':')) ||
	       endpoint_is_loopback(ep);
}

static int fail_local(const struct import *m, unsigned int line, const char *url)
{
	return import_fail(
		m, line,
		"server: %.64s is on this node: the apiserver itself (a control-plane "
		"node, k3s, RKE2), or a local proxy already; give the proxy's own file "
		"with --from-nginx or --from-haproxy, or write the apiservers' addresses, "
		"which kubectl get endpoints kubernetes lists, into a copy",
		url);
}

/*
 * The server's address. Returns 1 for a name, which no address is known of: why says so. Otherwise
 * 0, or a negative errno.
 */
static int parse_server(struct import *m, struct kubeconfig *k,
			const struct kubeconfig_value *cluster, const char *name,
			struct import_backend *ret, struct url *parts, struct err *why)
{
	struct kubeconfig_value server = kubeconfig_text(k, cluster, "server");
	const char *url = server.text;
	bool bad;
	int r;

	*ret = (struct import_backend){ .weight = 1, .line = server.line };
	ret->endpoint.port = URL_HTTPS_PORT;
	if (k->r)
		return k->r;
	if (!url)
		return import_fail(m, yamldoc_line(cluster->node),
				   "cluster '%.64s' has no server; add server: "
				   "https://ADDRESS:6443",
				   name);
	r = split_url(m, ret->line, url, parts);
	if (r < 0)
		return r;
	if (strchr(parts->authority, '$'))
		return import_fail(
			m, ret->line,
			"server: %.64s has a variable: a template that was not rendered; "
			"give the file of a node",
			url);
	bad = endpoint_parse(parts->authority, URL_HTTPS_PORT, &ret->endpoint, why) < 0;
	if (is_local(parts->authority, &ret->endpoint))
		return fail_local(m, ret->line, url);
	import_ascii(name, ret->label, sizeof(ret->label));
	return bad;
}

static void note_key(struct import *m, struct kubeconfig *k, const struct kubeconfig_value *mapping,
		     const char *key, const char *why)
{
	struct kubeconfig_value at = kubeconfig_get(k, mapping, key);

	if (at.node)
		import_note(m, at.line, "%s: %s", key, why);
}

/* A file's name, unless the file's content is there as well: clients prefer that. */
static int set_file(struct import *m, struct import_text *field, struct kubeconfig *k,
		    const struct kubeconfig_value *mapping, const char *key)
{
	struct kubeconfig_value at = kubeconfig_text(k, mapping, key);
	char data[64], *full;
	int r;

	snprintf(data, sizeof(data), "%s-data", key);
	if (at.text && kubeconfig_get(k, mapping, data).node) {
		import_note(m, at.line, "%s: clients prefer %s, which is there as well", key, data);
		return k->r;
	}
	if (!at.text)
		return k->r;
	/* Without a directory, a relative name stays one, which import_set_file refuses. */
	if (!k->directory)
		return import_set_file(m, field, at.line, key, at.text);
	full = kubeconfig_file(k, at.text);
	r = full ? import_set_file(m, field, at.line, key, full) : k->r;
	free(full);
	return r;
}

static bool has_ca(struct kubeconfig *k, const struct kubeconfig_value *cluster)
{
	return kubeconfig_get(k, cluster, "certificate-authority").node ||
	       kubeconfig_get(k, cluster, "certificate-authority-data").node;
}

/* What applies to all backends comes from the current context's cluster. */
static int read_trust(struct import *m, struct kubeconfig *k,
		      const struct kubeconfig_value *cluster)
{
	struct kubeconfig_value name = kubeconfig_text(k, cluster, "tls-server-name");
	struct kubeconfig_value insecure = kubeconfig_text(k, cluster, "insecure-skip-tls-verify");
	int r = 0;

	if (name.text)
		r = import_set_name(m, name.line, "tls-server-name", name.text);
	if (r == 0)
		r = set_file(m, &m->ca, k, cluster, "certificate-authority");
	if (insecure.text && strcmp(insecure.text, "true") == 0)
		m->insecure_line = insecure.line;
	if (r == 0 && m->insecure_line && has_ca(k, cluster))
		return import_fail(m, insecure.line,
				   "insecure-skip-tls-verify beside a certificate-authority, which "
				   "clients refuse; remove one of the two in a copy");
	if (!m->insecure_line && !m->ca.value)
		note_key(m, k, cluster, "certificate-authority-data",
			 "probe.ca names a file: see that the one below is the same");
	note_key(m, k, cluster, "proxy-url", "backends are dialled directly");
	return r;
}

/* --- the clusters, the user --------------------------------------------------- */

/* Whether both trust the same CA, and so belong to one cluster. */
static bool same_cluster(struct kubeconfig *k, const struct kubeconfig_value *x,
			 const struct kubeconfig_value *y)
{
	static const char *const keys[] = { "certificate-authority-data", "certificate-authority" };

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		const char *ca = kubeconfig_text(k, x, keys[i]).text;
		const char *other = kubeconfig_text(k, y, keys[i]).text;

		if (ca && other && strcmp(ca, other) == 0)
			return true;
	}
	return false;
}

/* Another entry that has the same CA: of the same cluster, or of one that has the CA too. */
static int read_same(struct import *m, struct kubeconfig *k, const struct kubeconfig_value *cluster,
		     const char *name, bool take)
{
	char text[ENDPOINT_TEXT_MAX];
	struct import_backend b;
	struct url parts;
	struct err why;
	int r;

	/* What is wrong with another cluster's entry is no reason to refuse this one. */
	m->e = NULL;
	r = parse_server(m, k, cluster, name, &b, &parts, &why);
	m->e = k->e;
	if (k->r)
		return k->r;
	if (r) {
		import_note(m, yamldoc_line(cluster->node),
			    "cluster %s: no address of an apiserver", name);
		return 0;
	}
	if (take)
		return import_add_backend(m, &b);
	import_hint(m, b.line,
		    "cluster %s has the same certificate-authority: if it is the same cluster, add "
		    "%s to backends",
		    name, endpoint_format(&b.endpoint, text));
	return 0;
}

static int read_others(struct import *m, struct kubeconfig *k, const struct kubeconfig_value *main,
		       bool take)
{
	struct kubeconfig_value cluster;
	const char *name;
	int r = 0;

	for (size_t n = 0; r == 0; n++) {
		cluster = kubeconfig_nth(k, "clusters", n, &name);
		if (!name)
			break;
		if (!cluster.node || cluster.node == main->node)
			continue;
		if (same_cluster(k, main, &cluster))
			r = read_same(m, k, &cluster, name, take);
		else
			import_note(m, yamldoc_line(cluster.node),
				    "cluster %s: another one, by its certificate-authority", name);
	}
	return r;
}

/* A name as the current server: the addresses of other entries for the same cluster stand in. */
static int read_named(struct import *m, struct kubeconfig *k, const struct kubeconfig_value *main,
		      const struct import_backend *named, const struct url *parts,
		      const struct err *why)
{
	size_t host = strcspn(parts->authority, ":");
	char name[sizeof(parts->authority)];
	int r = read_others(m, k, main, true);

	if (r < 0)
		return r;
	if (!m->n_backends)
		return import_fail(m, named->line,
				   "server: %s (a backend has to be reached without asking DNS; "
				   "kubectl get endpoints kubernetes lists the apiservers)",
				   why->text);
	snprintf(name, sizeof(name), "%.*s", (int)host, parts->authority);
	import_hint(m, named->line,
		    "server %s is a name, and backends are addresses: those below are of the "
		    "entries with the same certificate-authority; see that they are this cluster's",
		    name);
	return m->server_name.value ? 0 : import_set_name(m, named->line, "server", name);
}

static int read_clusters(struct import *m, struct kubeconfig *k, const char *current,
			 const struct kubeconfig_value *main)
{
	struct import_backend b;
	struct url parts;
	struct err why;
	int named = parse_server(m, k, main, current, &b, &parts, &why), r = 0;

	if (named < 0)
		return named;
	if (!named)
		r = import_add_backend(m, &b);
	if (r == 0)
		r = read_trust(m, k, main);
	if (r < 0)
		return r;
	return named ? read_named(m, k, main, &b, &parts, &why) : read_others(m, k, main, false);
}

static int read_user(struct import *m, struct kubeconfig *k, const struct kubeconfig_value *user)
{
	static const char *const others[] = { "token",
					      "tokenFile",
					      "exec",
					      "auth-provider",
					      "username",
					      "client-key-data",
					      "client-certificate-data" };
	int r = set_file(m, &m->client_cert, k, user, "client-certificate");

	if (r == 0)
		r = set_file(m, &m->client_key, k, user, "client-key");
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		note_key(m, k, user, others[i],
			 "probes know client certificates in files, or need none");
	return r;
}

/* Finds the names of the current context's cluster and user. */
static int read_context(const struct import *m, struct kubeconfig *k,
			const struct kubeconfig_value *current, const char **ret_cluster,
			const char **ret_user)
{
	struct kubeconfig_value context = kubeconfig_named(k, "contexts", current->text, false);

	*ret_cluster = kubeconfig_text(k, &context, "cluster").text;
	*ret_user = kubeconfig_text(k, &context, "user").text;
	if (!*ret_cluster && !k->r)
		return import_fail(m, current->line,
				   "current-context: no context '%.64s' that names a "
				   "cluster; set one that is there",
				   current->text);
	return k->r;
}

/* The same without a current context: the only cluster, and the first user. */
static int read_only_names(const struct import *m, struct kubeconfig *k, const char **ret_cluster,
			   const char **ret_user)
{
	const char *second;

	kubeconfig_nth(k, "clusters", 0, ret_cluster);
	kubeconfig_nth(k, "clusters", 1, &second);
	kubeconfig_nth(k, "users", 0, ret_user);
	if (k->r)
		return k->r;
	if (!*ret_cluster)
		return import_fail(m, 1, "no clusters; is this a kubeconfig?");
	if (second)
		return import_fail(m, kubeconfig_get(k, &k->root, "clusters").line,
				   "several clusters and no current-context; set it, with "
				   "kubectl config use-context in a copy, say");
	return 0;
}

static void note_next(struct import *m)
{
	bool ipv4 = false;

	for (unsigned int i = 0; i < m->n_backends; i++)
		ipv4 = ipv4 || endpoint_is_ipv4(&m->backends[i].endpoint);
	if (m->n_backends == 1)
		import_hint(m, m->backends[0].line,
			    "one apiserver, as a kubeconfig names no more: add the others to "
			    "backends, and if this is a load balancer's address, replace it; "
			    "kubectl get endpoints kubernetes lists them");
	import_hint(m, m->backends[0].line,
		    "once KubeLB is loaded, write server: https://%s:6443 there",
		    ipv4 ? "127.0.0.1" : "[::1]");
}

static int read_root(struct import *m, struct kubeconfig *k)
{
	struct kubeconfig_value current = kubeconfig_text(k, &k->root, "current-context");
	struct kubeconfig_value cluster, user;
	const char *cluster_name, *user_name;
	int r;

	if (!k->root.node)
		return import_fail(m, 1,
				   "no mapping of clusters and contexts; is this a "
				   "kubeconfig?");
	r = current.text ? read_context(m, k, &current, &cluster_name, &user_name)
			 : read_only_names(m, k, &cluster_name, &user_name);
	if (r < 0)
		return r;
	cluster = kubeconfig_named(k, "clusters", cluster_name, false);
	if (!cluster.node && !k->r)
		return import_fail(
			m, current.line,
			"current-context: its cluster '%.64s' is not in clusters; is the "
			"file complete?",
			cluster_name);
	user = kubeconfig_named(k, "users", user_name ? user_name : "", false);
	r = read_clusters(m, k, cluster_name, &cluster);
	if (r == 0)
		r = read_user(m, k, &user);
	if (r == 0)
		note_next(m);
	return r ? r : k->r;
}

int import_read_kubeconfig(struct import *m, const char *text, size_t length)
{
	struct kubeconfig k;
	int r = kubeconfig_open(&k, text, length, m->source, m->e);

	if (r < 0)
		return r;
	k.directory = m->directory;
	r = read_root(m, &k);
	kubeconfig_close(&k);
	return r;
}
