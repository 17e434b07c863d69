/* SPDX-License-Identifier: BSD-2-Clause */
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

/* Far more than any health check's path, far less than a request line may have. */
#define HTTP_PATH_MAX 1024

/* Indexed by the enums' values; slot 0 is none. */
static const char *const policies[] = {
	[KLB_POLICY_LEAST_CONN] = "least-conn",
	[KLB_POLICY_RANDOM] = "random",
	[KLB_POLICY_RENDEZVOUS] = "rendezvous",
	[KLB_POLICY_LATENCY] = "latency",
};
static const char *const scopes[] = {
	[KLB_SCOPE_HOST] = "host",
	[KLB_SCOPE_ALL] = "all",
};

#define N_POLICIES (ARRAY_SIZE(policies))
#define N_SCOPES (ARRAY_SIZE(scopes))

const char *config_policy_name(enum klb_policy policy)
{
	return policy && (unsigned int)policy < N_POLICIES ? policies[policy] : "invalid";
}

const char *config_scope_name(enum klb_scope scope)
{
	return scope && (unsigned int)scope < N_SCOPES ? scopes[scope] : "invalid";
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

/* A "\0" or "\n" in quotes has no business in an address or a path. */
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
	int rc;

	rc = config_read_text(b, at, "a number", &text);
	if (rc < 0)
		return rc;
	if (!is_plain(at->node) || config_uint(text, &value) < 0)
		return config_fail(b, &at->where,
				   "'%.64s' is not a number; write %u..%u in digits, unquoted",
				   text, key->min, key->max);
	if (value < key->min || value > key->max)
		return config_fail(b, &at->where, "%u is out of range; write %u..%u", value,
				   key->min, key->max);
	*field = value;
	return 0;
}

int config_read_bool(struct config_build *b, const struct config_node *at,
		     const struct config_key *key, void *base)
{
	bool *field = field_of(key, base);
	const char *text;
	bool yes;
	int rc;

	rc = config_read_text(b, at, "true or false", &text);
	if (rc < 0)
		return rc;
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
	int rc;

	rc = config_read_text(b, at, "a duration such as 5s", &text);
	if (rc < 0)
		return rc;
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

/* Whether it exists is for those to find out who open it. */
int config_read_file(struct config_build *b, const struct config_node *at,
		     const struct config_key *key, void *base)
{
	char **field = field_of(key, base);
	const char *text;
	int rc;

	rc = config_read_text(b, at, "an absolute path", &text);
	if (rc < 0)
		return rc;
	if (!*text && key->or_off) {
		free(*field);
		*field = NULL;
		return 0;
	}
	/* Not repeated: it may be the key itself that somebody has put here. */
	if (text[0] != '/' || secret_is_likely(text))
		return config_fail(
			b, &at->where,
			"not an absolute path; write a file's name that begins with '/'");
	if (strlen(text) >= PATH_MAX)
		return config_fail(b, &at->where, "longer than %d bytes; write a shorter path",
				   PATH_MAX - 1);
	return config_set_string(b, field, text);
}

/* It goes into a request line as it stands: RFC 9112, 3.2. */
int config_read_http_path(struct config_build *b, const struct config_node *at,
			  const struct config_key *key, void *base)
{
	const char *text;
	int rc;

	rc = config_read_text(b, at, "a path such as /readyz", &text);
	if (rc < 0)
		return rc;
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
	int rc;

	rc = config_read_text(b, at, "a DNS name or an address", &text);
	if (rc < 0)
		return rc;
	if (!config_is_server_name(text))
		return config_fail(b, &at->where,
				   "'%.64s' is not a DNS name or an address; write one that the "
				   "certificate has",
				   text);
	return config_set_string(b, field_of(key, base), text);
}

/* The index of text in names, or 0. */
static unsigned int find_name(const char *const *names, unsigned int n, const char *text)
{
	unsigned int i;

	for (i = n - 1; i > 0; i--)
		if (strcmp(names[i], text) == 0)
			break;
	return i;
}

int config_read_policy(struct config_build *b, const struct config_node *at,
		       const struct config_key *key, void *base)
{
	enum klb_policy *field = field_of(key, base);
	unsigned int found;
	const char *text;
	int rc;

	rc = config_read_text(b, at, "least-conn, random, rendezvous or latency", &text);
	if (rc < 0)
		return rc;
	found = find_name(policies, N_POLICIES, text);
	if (!found)
		return config_fail(b, &at->where,
				   "'%.64s' is not a policy; write least-conn, random, rendezvous "
				   "or latency",
				   text);
	*field = (enum klb_policy)found;
	return 0;
}

int config_read_scope(struct config_build *b, const struct config_node *at,
		      const struct config_key *key, void *base)
{
	enum klb_scope *field = field_of(key, base);
	unsigned int found;
	const char *text;
	int rc;

	rc = config_read_text(b, at, "host or all", &text);
	if (rc < 0)
		return rc;
	found = find_name(scopes, N_SCOPES, text);
	if (!found)
		return config_fail(b, &at->where, "'%.64s' is not a scope; write host or all",
				   text);
	*field = (enum klb_scope)found;
	return 0;
}

int config_read_http(struct config_build *b, const struct config_node *at,
		     const struct config_key *key, void *base)
{
	struct config *c = base;
	struct klb_endpoint ep;
	const char *text;
	struct err why;
	int rc;

	(void)key;
	rc = config_read_text(b, at, "an address:port, or \"\" to turn it off", &text);
	if (rc < 0)
		return rc;
	b->http = at->where;
	c->http_enabled = *text;
	if (!*text)
		return 0;
	if (endpoint_parse(text, 0, &ep, &why) < 0)
		return config_fail(b, &at->where, "%s", why.text);
	if (endpoint_is_multicast(&ep) || endpoint_is_link_local_v6(&ep))
		return config_fail(b, &at->where,
				   "'%.64s' cannot be listened on; write an address of this host",
				   text);
	c->http = ep;
	return 0;
}
