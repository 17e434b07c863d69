/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads a document into a snapshot. The tables below say which keys may stand where. They also
 * limit the depth, so that a document whose aliases form a circle does no harm.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "config/internal.h"
#include "config/yaml_doc.h"

#define SECOND_MS 1000
#define MINUTE_MS (60 * SECOND_MS)
#define HOUR_MS (60 * MINUTE_MS)

#define CACHE_DEFAULT "/var/lib/kubelb/backends.json"

/* The largest number of keys in a table. */
#define KEYS_MAX 16

/* With every list full and every key given, a document has depth 4 and about 1,000 values. */
#define DEPTH_MAX 16
#define NODES_MAX 4096

/* An entry of frontends or backends: a string, or a mapping for more than the address. */
struct item {
	const char *address; /* owned by the document */
	struct config_where where; /* of address */
	enum klb_scope scope;
	struct config_access access;
	struct config_where allow; /* line 0: the key is not there */
	unsigned int weight;
};

static int read_frontends(struct config_build *b, const struct config_node *at,
			  const struct config_key *key, void *base);
static int read_backends(struct config_build *b, const struct config_node *at,
			 const struct config_key *key, void *base);
static int read_probe(struct config_build *b, const struct config_node *at,
		      const struct config_key *key, void *base);
static int read_discovery(struct config_build *b, const struct config_node *at,
			  const struct config_key *key, void *base);
static int read_relay(struct config_build *b, const struct config_node *at,
		      const struct config_key *key, void *base);
static int read_http(struct config_build *b, const struct config_node *at,
		     const struct config_key *key, void *base);
static int read_item_address(struct config_build *b, const struct config_node *at,
			     const struct config_key *key, void *base);
static int read_allow(struct config_build *b, const struct config_node *at,
		      const struct config_key *key, void *base);

/* clang-format off */
#define KEY(key_name, reader, type, field, ...) \
	{ .name = key_name, .read = reader, .offset = offsetof(struct type, field), __VA_ARGS__ }
/* clang-format on */

static const struct config_key root_keys[] = {
	KEY("frontends", read_frontends, config, frontends),
	KEY("backends", read_backends, config, backends),
	KEY("policy", config_read_policy, config, policy),
	KEY("local", config_read_local, config, local),
	KEY("preferLocal", config_read_prefer_local, config, local),
	KEY("dataPath", config_read_data_path, config, data_path),
	KEY("connectTimeout", config_read_duration, config, connect_timeout_ms, .min = 10,
	    .max = MINUTE_MS),
	KEY("deadPeerTimeout", config_read_duration, config, dead_peer_timeout_ms, .min = SECOND_MS,
	    .max = HOUR_MS, .or_off = true),
	KEY("slowStart", config_read_duration, config, slow_start_ms, .min = SECOND_MS,
	    .max = HOUR_MS, .or_off = true),
	KEY("rebalance", config_read_bool, config, rebalance),
	KEY("probe", read_probe, config, probe),
	KEY("relay", read_relay, config, relay),
	KEY("discovery", read_discovery, config, discovery),
	KEY("http", read_http, config, http),
	KEY("cgroup", config_read_file, config, cgroup, .or_off = true),
	{ .name = NULL },
};

static const struct config_key probe_keys[] = {
	KEY("path", config_read_http_path, config_probe, path),
	KEY("livePath", config_read_http_path, config_probe, live_path),
	KEY("interval", config_read_duration, config_probe, interval_ms, .min = 100,
	    .max = HOUR_MS),
	KEY("timeout", config_read_duration, config_probe, timeout_ms, .min = 10,
	    .max = 5 * MINUTE_MS),
	KEY("ping", config_read_duration, config_probe, ping_ms, .min = 500, .max = 30 * SECOND_MS),
	KEY("pingTimeout", config_read_duration, config_probe, ping_timeout_ms, .min = 100,
	    .max = 30 * SECOND_MS),
	KEY("rise", config_read_uint, config_probe, rise, .min = 1, .max = 100),
	KEY("fall", config_read_uint, config_probe, fall, .min = 1, .max = 100),
	KEY("ca", config_read_file, config_probe, ca),
	KEY("insecureSkipVerify", config_read_bool, config_probe, insecure_skip_verify),
	KEY("serverName", config_read_server_name, config_probe, server_name),
	KEY("clientCert", config_read_file, config_probe, client_cert),
	KEY("clientKey", config_read_file, config_probe, client_key),
	KEY("anonymousAuth", config_read_bool, config_probe, anonymous_auth),
	{ .name = NULL },
};

static const struct config_key relay_keys[] = {
	KEY("drain", config_read_duration, config_relay, drain_ms, .min = 100, .max = MINUTE_MS,
	    .or_off = true),
	KEY("connections", config_read_uint, config_relay, connections, .min = 1,
	    .max = CONFIG_RELAY_CONNECTIONS_MAX),
	KEY("connectionsPerSource", config_read_uint, config_relay, per_source, .min = 1,
	    .max = CONFIG_RELAY_CONNECTIONS_MAX, .or_off = true),
	KEY("rescue", config_read_bool, config_relay, rescue),
	KEY("detour", config_read_bool, config_relay, detour),
	KEY("mark", config_read_mark, config_relay, mark),
	KEY("table", config_read_table, config_relay, table),
	{ .name = NULL },
};

static const struct config_key discovery_keys[] = {
	KEY("kubeconfig", config_read_file, config, discovery_kubeconfig),
	KEY("cache", config_read_file, config, discovery_cache, .or_off = true),
	{ .name = NULL },
};

static const struct config_key frontend_keys[] = {
	KEY("address", read_item_address, item, address),
	KEY("scope", config_read_scope, item, scope),
	KEY("allow", read_allow, item, access),
	{ .name = NULL },
};

static const struct config_key address_keys[] = {
	KEY("address", read_item_address, item, address),
	{ .name = NULL },
};

static const struct config_key backend_keys[] = {
	KEY("address", read_item_address, item, address),
	KEY("weight", config_read_uint, item, weight, .min = 0, .max = KLB_WEIGHT_MAX),
	{ .name = NULL },
};

static void set_where(struct config_where *where, unsigned int line, const char *parent,
		      const char *name)
{
	where->line = line;
	snprintf(where->key, sizeof(where->key), "%.48s%s%.40s", parent, *parent ? "." : "", name);
}

/*
 * Says that name is not a key of this mapping. The caller returns the error, so that compilers see
 * it.
 */
static void explain_unknown(const struct config_build *b, const struct config_where *at,
			    const struct config_key *keys, const char *name)
{
	const char *suggestion = config_suggest(keys, name);
	char known[256] = "";
	size_t length = 0;

	if (suggestion) {
		config_explain(b, at, "unknown key; did you mean %s?", suggestion);
		return;
	}
	for (; keys->name && length < sizeof(known); keys++)
		length += (size_t)snprintf(known + length, sizeof(known) - length, "%s%s",
					   length ? ", " : "", keys->name);
	config_explain(b, at, "unknown key; remove it, or write one of %s", known);
}

/* Looks up a pair's key in the table, and returns it with the pair's value. */
static int read_key(const struct config_build *b, const struct config_node *mapping,
		    const yaml_node_pair_t *pair, const struct config_key *keys,
		    const struct config_key **ret_key, struct config_node *ret_value)
{
	yaml_node_t *node = yaml_document_get_node(mapping->document, pair->key);
	struct config_node value = { .document = mapping->document };
	const struct config_key *key = keys;
	const char *name = "";

	if (node->type == YAML_SCALAR_NODE)
		name = (const char *)node->data.scalar.value;
	/* The line of the key, not of the value: an alias has the line of its anchor. */
	set_where(&value.where, yamldoc_line(node), mapping->where.key, name);
	if (node->type != YAML_SCALAR_NODE)
		return config_fail(b, &value.where, "a key that is not a string; remove it");
	while (key->name && strcmp(key->name, name) != 0)
		key++;
	if (!key->name || strlen(name) != node->data.scalar.length) {
		explain_unknown(b, &value.where, keys, name);
		return -EINVAL;
	}
	value.node = yaml_document_get_node(mapping->document, pair->value);
	*ret_key = key;
	*ret_value = value;
	return 0;
}

static int expect(const struct config_build *b, const struct config_node *at, yaml_node_type_t type,
		  const char *want)
{
	const char *tag = type == YAML_MAPPING_NODE ? YAML_MAP_TAG : YAML_SEQ_TAG;

	if (yamldoc_is_null(at->node))
		return config_fail(b, &at->where, "no value; write %s, or remove the key", want);
	if (at->node->type != type)
		return config_fail(b, &at->where, "a %s; write %s", config_kind(at->node), want);
	if (strcmp((const char *)at->node->tag, tag) != 0)
		return config_fail(b, &at->where,
				   "a tag, as YAML takes a word that begins with '!'; remove it");
	return 0;
}

/* Reads every pair of a mapping into base, as the table says. */
static int read_mapping(struct config_build *b, const struct config_node *at,
			const struct config_key *keys, void *base)
{
	unsigned int lines[KEYS_MAX] = { 0 };
	const yaml_node_pair_t *pair;
	int r;

	r = expect(b, at, YAML_MAPPING_NODE, "a mapping, key: value");
	for (pair = at->node->data.mapping.pairs.start;
	     r == 0 && pair < at->node->data.mapping.pairs.top; pair++) {
		const struct config_key *key = NULL;
		struct config_node value = { 0 };
		unsigned int *line;

		r = read_key(b, at, pair, keys, &key, &value);
		if (r < 0)
			return r;
		line = &lines[key - keys];
		if (*line)
			return config_fail(b, &value.where,
					   "is there already (on line %u); remove one of the two",
					   *line);
		*line = value.where.line;
		r = key->read(b, &value, key, base);
	}
	return r;
}

static int read_item_address(struct config_build *b, const struct config_node *at,
			     const struct config_key *key, void *base)
{
	struct item *item = base;

	(void)key;
	item->where = at->where;
	return config_read_text(b, at, "an address", &item->address);
}

static int read_item(struct config_build *b, const struct config_node *at,
		     const struct config_key *keys, struct item *item)
{
	int r;

	if (at->node->type != YAML_MAPPING_NODE) {
		item->where = at->where;
		return config_read_text(b, at, "an address, or a mapping with one", &item->address);
	}
	r = read_mapping(b, at, keys, item);
	if (r < 0)
		return r;
	if (!item->address)
		return config_fail(b, &at->where, "no address; add address: a.b.c.d:port");
	return 0;
}

static int add_network(struct config_build *b, const struct config_node *at,
		       struct config_access *access)
{
	const char *text;
	struct err why;
	int r = config_read_text(b, at, "a network such as 192.168.17.0/24", &text);

	if (r < 0)
		return r;
	if (access->n_allow == CONFIG_ALLOW_MAX)
		return config_fail(b, &at->where, "more than %d networks; write larger ones",
				   CONFIG_ALLOW_MAX);
	if (cidr_parse(text, &access->allow[access->n_allow], &why))
		return config_fail(b, &at->where, "%s", why.text);
	access->n_allow++;
	return 0;
}

static int read_allow(struct config_build *b, const struct config_node *at,
		      const struct config_key *key, void *base)
{
	const yaml_node_item_t *start, *i;
	struct item *item = base;
	int r = expect(b, at, YAML_SEQUENCE_NODE, "a list of networks");

	(void)key;
	item->allow = at->where;
	if (r < 0)
		return r;
	start = at->node->data.sequence.items.start;
	for (i = start; r == 0 && i < at->node->data.sequence.items.top; i++) {
		struct config_node value = { .document = at->document };

		value.node = yaml_document_get_node(at->document, *i);
		value.where.line = yamldoc_line(value.node);
		snprintf(value.where.key, sizeof(value.where.key), "%.64s[%td]", at->where.key,
			 i - start);
		r = add_network(b, &value, &item->access);
	}
	return r;
}

/* Nobody shall open the apiservers to everybody by leaving something out. */
static int check_access(const struct config_build *b, const struct item *item)
{
	if (item->scope == KLB_SCOPE_NETWORK && !item->access.n_allow)
		return config_fail(b, item->allow.line ? &item->allow : &item->where,
				   "scope: network needs the networks of the machines that may "
				   "connect; write allow: [192.168.17.0/24], say");
	if (item->scope != KLB_SCOPE_NETWORK && item->allow.line)
		return config_fail(b, &item->allow,
				   "goes with scope: network alone; add that, or remove this");
	return 0;
}

static int add_frontend(struct config_build *b, const struct item *item)
{
	int r = check_access(b, item);

	if (r < 0)
		return r;
	return config_add_frontend(b, &item->where, item->address, item->scope,
				   item->scope == KLB_SCOPE_NETWORK ? &item->access : NULL);
}

static int add_backend(struct config_build *b, const struct item *item)
{
	return config_add_backend(b, &item->where, item->address, item->weight);
}

static int read_list(struct config_build *b, const struct config_node *at,
		     const struct config_key *item_keys,
		     int (*add)(struct config_build *b, const struct item *item))
{
	const yaml_node_item_t *start, *i;
	int r;

	r = expect(b, at, YAML_SEQUENCE_NODE, "a list of addresses");
	if (r < 0)
		return r;
	start = at->node->data.sequence.items.start;
	for (i = start; r == 0 && i < at->node->data.sequence.items.top; i++) {
		struct item item = { .scope = KLB_SCOPE_HOST, .weight = KLB_WEIGHT_DEFAULT };
		struct config_node value = { .document = at->document };

		value.node = yaml_document_get_node(at->document, *i);
		value.where.line = yamldoc_line(value.node);
		snprintf(value.where.key, sizeof(value.where.key), "%.32s[%td]", at->where.key,
			 i - start);
		r = read_item(b, &value, item_keys, &item);
		if (r == 0)
			r = add(b, &item);
	}
	return r;
}

static int read_frontends(struct config_build *b, const struct config_node *at,
			  const struct config_key *key, void *base)
{
	int r;

	(void)key;
	(void)base;
	r = read_list(b, at, frontend_keys, add_frontend);
	if (r == 0 && !b->config->n_frontends)
		return config_fail(b, &at->where, "empty; remove the key for the default");
	return r;
}

/* Accepts an empty list, which is valid with discovery: config_finish decides. */
static int read_backends(struct config_build *b, const struct config_node *at,
			 const struct config_key *key, void *base)
{
	(void)key;
	(void)base;
	b->no_backend = at->where;
	return read_list(b, at, backend_keys, add_backend);
}

static int fail_alone(const struct config_build *b, const struct config_node *mapping,
		      const char *name, const char *missing)
{
	struct config_where where = mapping->where;
	const yaml_node_pair_t *pair = mapping->node->data.mapping.pairs.start;

	for (; pair < mapping->node->data.mapping.pairs.top; pair++) {
		const yaml_node_t *node = yaml_document_get_node(mapping->document, pair->key);

		if (strcmp((const char *)node->data.scalar.value, name) == 0)
			set_where(&where, yamldoc_line(node), mapping->where.key, name);
	}
	return config_fail(b, &where, "given without %s; add %s, or remove both", missing, missing);
}

static int read_probe(struct config_build *b, const struct config_node *at,
		      const struct config_key *key, void *base)
{
	struct config_probe *probe = &((struct config *)base)->probe;
	int r;

	(void)key;
	r = read_mapping(b, at, probe_keys, probe);
	if (r < 0)
		return r;
	if (probe->client_cert && !probe->client_key)
		return fail_alone(b, at, "clientCert", "clientKey");
	if (probe->client_key && !probe->client_cert)
		return fail_alone(b, at, "clientKey", "clientCert");
	return 0;
}

static int read_relay(struct config_build *b, const struct config_node *at,
		      const struct config_key *key, void *base)
{
	(void)key;
	return read_mapping(b, at, relay_keys, &((struct config *)base)->relay);
}

static int read_discovery(struct config_build *b, const struct config_node *at,
			  const struct config_key *key, void *base)
{
	struct config *c = base;
	int r;

	(void)key;
	c->discovery = true;
	r = config_set_string(b, &c->discovery_cache, CACHE_DEFAULT);
	if (r < 0)
		return r;
	return read_mapping(b, at, discovery_keys, c);
}

static int add_http(struct config_build *b, const struct item *item)
{
	return config_add_http(b, &item->where, item->address);
}

/* One address, or a list; "" for none. What is given replaces the default. */
static int read_http(struct config_build *b, const struct config_node *at,
		     const struct config_key *key, void *base)
{
	const char *text;
	int r;

	(void)key;
	(void)base;
	b->config->http_enabled = false;
	if (at->node->type == YAML_SEQUENCE_NODE) {
		r = read_list(b, at, address_keys, add_http);
		if (r == 0 && !b->config->http_enabled && !b->config->http_socket)
			return config_fail(b, &at->where, "empty; write \"\" to serve nothing");
		return r;
	}
	r = config_read_text(
		b, at, "an address:port, unix:/path, a list of these, or \"\" for none", &text);
	if (r < 0 || !*text)
		return r;
	return config_add_http(b, &at->where, text);
}

/* preferLocal is the old key of local. */
static int take_prefer_local(const struct config_build *b)
{
	struct config *c = b->config;

	if (!b->prefer_local.line)
		return 0;
	if (b->local.line && c->local != b->preferred)
		return config_fail(b, &b->prefer_local,
				   "means local: %s, and local is %s (on line %u); remove "
				   "preferLocal, the old name of that key",
				   config_local_name(b->preferred), config_local_name(c->local),
				   b->local.line);
	c->local = b->preferred;
	return 0;
}

static int read_root(struct config_build *b, yaml_document_t *document)
{
	struct config_node root = { .document = document };
	int r;

	set_where(&b->no_backend, 1, "", "backends");
	root.node = yaml_document_get_root_node(document);
	/* An empty file has no backends. config_finish says so. */
	if (!root.node || yamldoc_is_null(root.node))
		return 0;
	root.where.line = yamldoc_line(root.node);
	r = read_mapping(b, &root, root_keys, b->config);
	return r < 0 ? r : take_prefer_local(b);
}

const struct yamldoc_limits config_limits = {
	.depth = DEPTH_MAX,
	.nodes = NODES_MAX,
	.advice = "check quotes and indentation (no tabs); IPv6 with a port is written in quotes, "
		  "\"[::1]:6443\"",
};

int config_read_yaml(struct config_build *b, const char *text, size_t length)
{
	yaml_document_t document;
	int r;

	r = yamldoc_load(b->config->source, text, length, &config_limits, &document, b->e);
	if (r < 0)
		return r;
	r = read_root(b, &document);
	yaml_document_delete(&document);
	return r;
}
