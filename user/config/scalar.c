/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads one scalar of a document into one field of the snapshot. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/ascii.h"
#include "config/internal.h"
#include "net/endpoint.h"
#include "net/url.h"
#include "base/redact.h"
#include "config/yaml_doc.h"

/* Far longer than the path of any health check, far shorter than a request line may be. */
#define HTTP_PATH_MAX 1024

/* Indexed by the values of the enums. Slot 0 is unused. */
static const char *const policies[] = {
	[KLB_POLICY_LEAST_CONN] = "least-conn",
	[KLB_POLICY_RANDOM] = "random",
	[KLB_POLICY_RENDEZVOUS] = "rendezvous",
	[KLB_POLICY_LATENCY] = "latency",
};
static const char *const scopes[] = {
	[KLB_SCOPE_HOST] = "host",
	[KLB_SCOPE_ALL] = "all",
	[KLB_SCOPE_NETWORK] = "network",
};
static const char *const data_paths[] = {
	[CONFIG_DATA_PATH_AUTO] = "auto",
	[CONFIG_DATA_PATH_KERNEL] = "kernel",
	[CONFIG_DATA_PATH_RELAY] = "relay",
};
static const char *const locals[] = {
	[KLB_LOCAL_PREFER] = "prefer",
	[KLB_LOCAL_ONLY] = "only",
	[KLB_LOCAL_IGNORE] = "ignore",
};

#define N_POLICIES (ARRAY_SIZE(policies))
#define N_SCOPES (ARRAY_SIZE(scopes))
#define N_LOCALS (ARRAY_SIZE(locals))
#define N_DATA_PATHS (ARRAY_SIZE(data_paths))

const char *config_policy_name(enum klb_policy policy)
{
	return policy && (unsigned int)policy < N_POLICIES ? policies[policy] : "invalid";
}

const char *config_scope_name(enum klb_scope scope)
{
	return scope && (unsigned int)scope < N_SCOPES ? scopes[scope] : "invalid";
}

const char *config_local_name(enum klb_local local)
{
	return local && (unsigned int)local < N_LOCALS ? locals[local] : "invalid";
}

const char *config_data_path_name(enum config_data_path data_path)
{
	return data_path && (unsigned int)data_path < N_DATA_PATHS ? data_paths[data_path]
								   : "invalid";
}

static void *field_of(const struct config_key *key, void *base)
{
	return (char *)base + key->offset;
}

int config_set_string(const struct config_build *b, char **field, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return config_fail_memory(b);
	free(*field);
	*field = copy;
	return 0;
}

static bool is_plain(const yaml_node_t *node)
{
	return node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

const char *config_kind(const yaml_node_t *node)
{
	switch (node->type) {
	case YAML_SEQUENCE_NODE:
		return "list";
	case YAML_MAPPING_NODE:
		return "mapping";
	default:
		return "string";
	}
}

/* An address or a path contains no "\0" or "\n", not even in quotes. */
static bool has_control(const yaml_node_t *node)
{
	size_t i;

	for (i = 0; i < node->data.scalar.length; i++)
		if (ascii_is_control(node->data.scalar.value[i]))
			return true;
	return false;
}

int config_read_text(struct config_build *b, const struct config_node *at, const char *want,
		     const char **ret)
{
	const yaml_node_t *node = at->node;

	if (yamldoc_is_null(node))
		return config_fail(b, &at->where, "no value; write %s", want);
	if (node->type != YAML_SCALAR_NODE)
		return config_fail(b, &at->where, "a %s; write %s", config_kind(node), want);
	if (strcmp((const char *)node->tag, YAML_STR_TAG) != 0)
		return config_fail(b, &at->where,
				   "a tag, as YAML takes a word that begins with '!'; quote it, or "
				   "remove it");
	if (has_control(node))
		return config_fail(b, &at->where, "control character in the value; write %s", want);
	*ret = (const char *)node->data.scalar.value;
	return 0;
}

int config_read_uint(struct config_build *b, const struct config_node *at,
		     const struct config_key *key, void *base)
{
	unsigned int *field = field_of(key, base);
	unsigned int value;
	const char *text;
	int r;

	r = config_read_text(b, at, "a number", &text);
	if (r < 0)
		return r;
	if (!is_plain(at->node) || config_uint(text, &value) < 0)
		return config_fail(b, &at->where,
				   "'%.64s' is not a number; write %u..%u in digits, unquoted",
				   text, key->min, key->max);
	if ((value < key->min || value > key->max) && !(key->or_off && value == 0))
		return config_fail(b, &at->where, "%u is out of range; write %s%u..%u", value,
				   key->or_off ? "0 or " : "", key->min, key->max);
	*field = value;
	return 0;
}

int config_read_bool(struct config_build *b, const struct config_node *at,
		     const struct config_key *key, void *base)
{
	bool *field = field_of(key, base);
	const char *text;
	bool yes;
	int r;

	r = config_read_text(b, at, "true or false", &text);
	if (r < 0)
		return r;
	yes = strcmp(text, "true") == 0;
	if (!is_plain(at->node) || (!yes && strcmp(text, "false") != 0))
		return config_fail(b, &at->where,
				   "'%.64s' is not a boolean; write true or false, unquoted", text);
	*field = yes;
	return 0;
}

int config_read_duration(struct config_build *b, const struct config_node *at,
			 const struct config_key *key, void *base)
{
	char min[CONFIG_DURATION_TEXT_MAX], max[CONFIG_DURATION_TEXT_MAX];
	unsigned int *field = field_of(key, base);
	unsigned int value;
	const char *text;
	int r;

	r = config_read_text(b, at, "a duration such as 5s", &text);
	if (r < 0)
		return r;
	if (config_duration_ms(text, &value) < 0)
		return config_fail(b, &at->where,
				   "'%.64s' is not a duration; write one such as 500ms or 1m30s",
				   text);
	if ((value < key->min || value > key->max) && !(key->or_off && value == 0))
		return config_fail(b, &at->where, "'%.64s' is out of range; write %s%s..%s", text,
				   key->or_off ? "0 or " : "",
				   config_duration_format(key->min, min),
				   config_duration_format(key->max, max));
	*field = value;
	return 0;
}

/* Does not check whether the file exists: the program that opens it does. */
int config_read_file(struct config_build *b, const struct config_node *at,
		     const struct config_key *key, void *base)
{
	char **field = field_of(key, base);
	const char *text;
	int r;

	r = config_read_text(b, at, "an absolute path", &text);
	if (r < 0)
		return r;
	if (!*text && key->or_off) {
		free(*field);
		*field = NULL;
		return 0;
	}
	/* The message does not repeat the text: somebody may have put the key itself here. */
	if (text[0] != '/' || secret_is_likely(text))
		return config_fail(
			b, &at->where,
			"not an absolute path; write a file's name that begins with '/'");
	if (strlen(text) >= PATH_MAX)
		return config_fail(b, &at->where, "longer than %d bytes; write a shorter path",
				   PATH_MAX - 1);
	return config_set_string(b, field, text);
}

/* The path is copied into a request line unchanged: RFC 9112, 3.2. */
int config_read_http_path(struct config_build *b, const struct config_node *at,
			  const struct config_key *key, void *base)
{
	const char *text;
	int r;

	r = config_read_text(b, at, "a path such as /readyz", &text);
	if (r < 0)
		return r;
	if (text[0] != '/')
		return config_fail(b, &at->where, "'%.64s' does not begin with '/'; write /%.64s",
				   text, text);
	if (!ascii_all_graph(text))
		return config_fail(b, &at->where,
				   "'%.64s' has a space or a character that is not ASCII; "
				   "percent-encode it",
				   text);
	if (strlen(text) > HTTP_PATH_MAX)
		return config_fail(b, &at->where, "longer than %d bytes; write a shorter path",
				   HTTP_PATH_MAX);
	return config_set_string(b, field_of(key, base), text);
}

bool config_is_server_name(const char *text)
{
	const char *colon = strchr(text, ':');
	struct klb_endpoint ep;

	if (colon)
		return text[0] != '[' && strchr(colon + 1, ':') &&
		       endpoint_parse(text, KLB_PORT_DEFAULT, &ep, NULL) == 0;
	return url_is_dns_name(text);
}

int config_read_server_name(struct config_build *b, const struct config_node *at,
			    const struct config_key *key, void *base)
{
	const char *text;
	int r;

	r = config_read_text(b, at, "a DNS name or an address", &text);
	if (r < 0)
		return r;
	if (!config_is_server_name(text))
		return config_fail(b, &at->where,
				   "'%.64s' is not a DNS name or an address; write one that the "
				   "certificate has",
				   text);
	return config_set_string(b, field_of(key, base), text);
}

/*
 * Reads one of the names of an enum: names is indexed by its values, and slot 0 is unused. kind and
 * words are for messages: what it is, and the names in a sentence. Returns the value, or a negative
 * errno.
 */
static int read_enum(struct config_build *b, const struct config_node *at, const char *const *names,
		     unsigned int n, const char *kind, const char *words)
{
	const char *text;
	int r;

	r = config_read_text(b, at, words, &text);
	if (r < 0)
		return r;
	for (unsigned int i = 1; i < n; i++)
		if (!strcmp(names[i], text))
			return (int)i;
	return config_fail(b, &at->where, "'%.64s' is not a %s; write %s", text, kind, words);
}

int config_read_policy(struct config_build *b, const struct config_node *at,
		       const struct config_key *key, void *base)
{
	int r = read_enum(b, at, policies, N_POLICIES, "policy",
			  "least-conn, random, rendezvous or latency");

	if (r < 0)
		return r;
	*(enum klb_policy *)field_of(key, base) = (enum klb_policy)r;
	return 0;
}

int config_read_scope(struct config_build *b, const struct config_node *at,
		      const struct config_key *key, void *base)
{
	int r = read_enum(b, at, scopes, N_SCOPES, "scope", "host, all or network");

	if (r < 0)
		return r;
	*(enum klb_scope *)field_of(key, base) = (enum klb_scope)r;
	return 0;
}

int config_read_local(struct config_build *b, const struct config_node *at,
		      const struct config_key *key, void *base)
{
	int r = read_enum(b, at, locals, N_LOCALS, "mode", "prefer, only or ignore");

	if (r < 0)
		return r;
	b->local = at->where;
	*(enum klb_local *)field_of(key, base) = (enum klb_local)r;
	return 0;
}

int config_read_data_path(struct config_build *b, const struct config_node *at,
			  const struct config_key *key, void *base)
{
	int r = read_enum(b, at, data_paths, N_DATA_PATHS, "data path", "auto, kernel or relay");

	if (r < 0)
		return r;
	*(enum config_data_path *)field_of(key, base) = (enum config_data_path)r;
	return 0;
}

/* read_root compares it with the new key, which may come later. */
int config_read_prefer_local(struct config_build *b, const struct config_node *at,
			     const struct config_key *key, void *base)
{
	const struct config_key as_bool = { .name = key->name };
	bool value;
	int r = config_read_bool(b, at, &as_bool, &value);

	(void)base;
	if (r < 0)
		return r;
	b->prefer_local = at->where;
	b->preferred = value ? KLB_LOCAL_PREFER : KLB_LOCAL_IGNORE;
	return 0;
}

#define HTTP_SOCKET "unix:"
/* sun_path, without its NUL. */
#define HTTP_SOCKET_MAX 107

static int add_http_socket(struct config_build *b, const struct config_where *at, const char *path)
{
	if (b->config->http_socket)
		return config_fail(b, at, "a second socket; remove one of the two");
	if (path[0] != '/' || path[strlen(path) - 1] == '/')
		return config_fail(
			b, at, "'%.64s' is not an absolute path; write unix:/path/to/socket", path);
	if (strlen(path) > HTTP_SOCKET_MAX)
		return config_fail(b, at, "the path of a socket has at most %d bytes",
				   HTTP_SOCKET_MAX);
	return config_set_string(b, &b->config->http_socket, path);
}

int config_add_http(struct config_build *b, const struct config_where *at, const char *text)
{
	struct config *c = b->config;
	struct klb_endpoint ep;
	struct err why;

	if (strncmp(text, HTTP_SOCKET, strlen(HTTP_SOCKET)) == 0)
		return add_http_socket(b, at, text + strlen(HTTP_SOCKET));
	if (c->http_enabled)
		return config_fail(b, at, "a second address; remove one of the two");
	if (endpoint_parse(text, 0, &ep, &why) < 0)
		return config_fail(b, at, "%s", why.text);
	if (endpoint_is_multicast(&ep) || endpoint_is_link_local_v6(&ep))
		return config_fail(b, at,
				   "'%.64s' cannot be listened on; write an address of this host",
				   text);
	b->http = *at;
	c->http_enabled = true;
	c->http = ep;
	return 0;
}
