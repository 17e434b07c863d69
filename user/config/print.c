/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Prints a snapshot as a configuration file, with all defaults. Each key is in schema.c's tables as
 * well; the unit tests print every key and read it again.
 */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/internal.h"
#include "net/endpoint.h"

/* The column in which comments begin. */
#define COMMENT_COLUMN 32
/* An address in quotes. */
#define ADDRESS_MAX (ENDPOINT_TEXT_MAX + 2)

/* A file that sets nothing, to compare with. With discovery no backend is needed. */
#define NOTHING_SET "discovery: {}\n"

static void put(FILE *out, bool is_default, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* A line, and behind it whether it could as well be left out. */
static void put(FILE *out, bool is_default, const char *format, ...)
{
	va_list ap;
	int length;

	va_start(ap, format);
	length = vfprintf(out, format, ap);
	va_end(ap);
	if (is_default)
		fprintf(out, "%*s # default", length < COMMENT_COLUMN ? COMMENT_COLUMN - length : 0,
			"");
	fputc('\n', out);
}

static void put_number(FILE *out, const char *key, unsigned int value, unsigned int by_default)
{
	put(out, value == by_default, "%s: %u", key, value);
}

static void put_bool(FILE *out, const char *key, bool value, bool by_default)
{
	put(out, value == by_default, "%s: %s", key, value ? "true" : "false");
}

static void put_duration(FILE *out, const char *key, unsigned int ms, unsigned int by_default)
{
	char text[CONFIG_DURATION_TEXT_MAX];

	put(out, ms == by_default, "%s: %s", key, config_duration_format(ms, text));
}

static void put_name(FILE *out, const char *key, const char *name, const char *by_default)
{
	put(out, !strcmp(name, by_default), "%s: %s", key, name);
}

/* or_off: NULL is printed as "", which turns the default off; otherwise the key is left out. */
static void put_text(FILE *out, const char *key, const char *text, const char *by_default,
		     bool or_off)
{
	bool same = text == by_default || (text && by_default && !strcmp(text, by_default));
	int length;

	if (!text && !or_off)
		return;
	length = fprintf(out, "%s: ", key);
	length += config_put_string(out, text ? text : "");
	if (same)
		fprintf(out, "%*s # default", length < COMMENT_COLUMN ? COMMENT_COLUMN - length : 0,
			"");
	fputc('\n', out);
}

/* As a scalar: brackets without quotes would begin a list. */
static const char *address(const struct klb_endpoint *ep, char *buf)
{
	char text[ENDPOINT_TEXT_MAX];

	endpoint_format(ep, text);
	snprintf(buf, ADDRESS_MAX, text[0] == '[' ? "\"%s\"" : "%s", text);
	return buf;
}

static void put_frontend(FILE *out, const struct config_frontend *f,
			 const struct config_access *access, bool is_default)
{
	char text[ADDRESS_MAX], network[CIDR_TEXT_MAX];

	if (f->scope == KLB_SCOPE_HOST) {
		put(out, is_default, "  - %s", address(&f->endpoint, text));
		return;
	}
	put(out, false, "  - address: %s", address(&f->endpoint, text));
	put(out, false, "    scope: %s", config_scope_name(f->scope));
	if (f->scope == KLB_SCOPE_NETWORK)
		fputs("    allow:\n", out);
	for (unsigned int i = 0; f->scope == KLB_SCOPE_NETWORK && i < access->n_allow; i++)
		put(out, false, "      - \"%s\"", cidr_format(&access->allow[i], network));
}

static bool are_default_frontends(const struct config *c, const struct config *d)
{
	if (c->n_frontends != d->n_frontends)
		return false;
	for (unsigned int i = 0; i < c->n_frontends; i++)
		if (c->frontends[i].scope != d->frontends[i].scope ||
		    !endpoint_equal(&c->frontends[i].endpoint, &d->frontends[i].endpoint))
			return false;
	return true;
}

static void put_addresses(FILE *out, const struct config *c, const struct config *d)
{
	bool is_default = are_default_frontends(c, d);
	char text[ADDRESS_MAX];

	fputs("frontends:\n", out);
	for (unsigned int i = 0; i < c->n_frontends; i++)
		put_frontend(out, &c->frontends[i], &c->access[i], is_default);
	fputs(c->n_backends ? "backends:\n" : "backends: []\n", out);
	for (unsigned int i = 0; i < c->n_backends; i++) {
		put(out, false, "  - address: %s", address(&c->backends[i].endpoint, text));
		put_number(out, "    weight", c->backends[i].weight, KLB_WEIGHT_DEFAULT);
	}
}

static void put_probe(FILE *out, const struct config_probe *p, const struct config_probe *d)
{
	fputs("probe:\n", out);
	if (!p->ca)
		fputs("  # ca: the system's trust store\n", out);
	put_text(out, "  ca", p->ca, NULL, false);
	put_bool(out, "  insecureSkipVerify", p->insecure_skip_verify, d->insecure_skip_verify);
	if (!p->server_name)
		fputs("  # serverName: each backend's address\n", out);
	put_text(out, "  serverName", p->server_name, NULL, false);
	put_text(out, "  clientCert", p->client_cert, NULL, false);
	put_text(out, "  clientKey", p->client_key, NULL, false);
	put_bool(out, "  anonymousAuth", p->anonymous_auth, d->anonymous_auth);
	put_text(out, "  path", p->path, d->path, false);
	put_text(out, "  livePath", p->live_path, d->live_path, false);
	put_duration(out, "  interval", p->interval_ms, d->interval_ms);
	put_duration(out, "  timeout", p->timeout_ms, d->timeout_ms);
	put_duration(out, "  ping", p->ping_ms, d->ping_ms);
	put_duration(out, "  pingTimeout", p->ping_timeout_ms, d->ping_timeout_ms);
	put_number(out, "  rise", p->rise, d->rise);
	put_number(out, "  fall", p->fall, d->fall);
}

static void put_relay(FILE *out, const struct config_relay *r, const struct config_relay *d)
{
	fputs("relay:\n", out);
	put_bool(out, "  rescue", r->rescue, d->rescue);
	put_bool(out, "  detour", r->detour, d->detour);
	put(out, r->mark == d->mark && r->mask == d->mask, "  mark: 0x%x/0x%x", r->mark, r->mask);
	put_number(out, "  table", r->table, d->table);
	put_number(out, "  connections", r->connections, d->connections);
	put_number(out, "  connectionsPerSource", r->per_source, d->per_source);
	put_duration(out, "  drain", r->drain_ms, d->drain_ms);
}

static void put_discovery(FILE *out, const struct config *c, const struct config *d)
{
	if (!c->discovery) {
		fputs("# discovery: off\n", out);
		return;
	}
	fputs("discovery:\n", out);
	if (!c->discovery_kubeconfig)
		fputs("  # kubeconfig: none; the credentials of a pod\n", out);
	put_text(out, "  kubeconfig", c->discovery_kubeconfig, NULL, false);
	put_text(out, "  cache", c->discovery_cache, d->discovery_cache, true);
}

static void put_http(FILE *out, const struct config *c, const struct config *d)
{
	char text[ADDRESS_MAX], socket[PATH_MAX + sizeof("unix:")];

	if (c->http_enabled && !c->http_socket) {
		put(out, endpoint_equal(&c->http, &d->http), "http: %s", address(&c->http, text));
		return;
	}
	if (!c->http_socket) {
		fputs("http: \"\"\n", out);
		return;
	}
	fputs("http:\n", out);
	if (c->http_enabled)
		put(out, false, "  - %s", address(&c->http, text));
	snprintf(socket, sizeof(socket), "unix:%s", c->http_socket);
	fputs("  - ", out);
	config_put_string(out, socket);
	fputc('\n', out);
}

static void put_all(FILE *out, const struct config *c, const struct config *d)
{
	fputs("# What is in effect: every key of kubelb.yaml(5) with its value.\n", out);
	put_addresses(out, c, d);
	put_name(out, "policy", config_policy_name(c->policy), config_policy_name(d->policy));
	put_name(out, "local", config_local_name(c->local), config_local_name(d->local));
	put_name(out, "dataPath", config_data_path_name(c->data_path),
		 config_data_path_name(d->data_path));
	put_duration(out, "connectTimeout", c->connect_timeout_ms, d->connect_timeout_ms);
	put_duration(out, "deadPeerTimeout", c->dead_peer_timeout_ms, d->dead_peer_timeout_ms);
	put_duration(out, "slowStart", c->slow_start_ms, d->slow_start_ms);
	put_bool(out, "rebalance", c->rebalance, d->rebalance);
	put_probe(out, &c->probe, &d->probe);
	put_relay(out, &c->relay, &d->relay);
	put_discovery(out, c, d);
	put_http(out, c, d);
	put_text(out, "cgroup", c->cgroup, NULL, true);
}

int config_print(const struct config *c, bool host_has_ipv6, char **ret, struct err *e)
{
	struct config *d = NULL;
	size_t length = 0;
	FILE *out;
	int r = config_parse(NOTHING_SET, strlen(NOTHING_SET), c->source, host_has_ipv6, &d, e);

	if (r)
		return r;
	out = open_memstream(ret, &length);
	if (out)
		put_all(out, c, d);
	config_free(d);
	if (!out || fclose(out)) {
		if (out)
			free(*ret);
		return err_no_memory_for(e, c->source);
	}
	return 0;
}
