/* SPDX-License-Identifier: BSD-2-Clause */
/* Adds frontends and backends to a snapshot, and checks the rules about several keys. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "config/internal.h"
#include "net/endpoint.h"

#define WHERE_TEXT_MAX (CONFIG_KEY_MAX + 8)

void config_explain(const struct config_build *b, const struct config_where *at, const char *format,
		    ...)
{
	const char *source = b->config->source;
	const char *colon = at->key[0] ? ": " : "";
	char what[ERR_TEXT_MAX];
	va_list ap;

	va_start(ap, format);
	vsnprintf(what, sizeof(what), format, ap);
	va_end(ap);
	if (at->line)
		err_set(b->e, EINVAL, "%s:%u: %s%s%s", source, at->line, at->key, colon, what);
	else
		err_set(b->e, EINVAL, "%s: %s%s%s", source, at->key, colon, what);
}

int config_fail_memory(const struct config_build *b)
{
	return err_no_memory_for(b->e, b->config->source);
}

/* Says where an entry stands, for a message about another entry. */
static const char *where_text(const struct config_where *at, char *buf)
{
	if (at->line)
		snprintf(buf, WHERE_TEXT_MAX, "on line %u", at->line);
	else
		snprintf(buf, WHERE_TEXT_MAX, "%s", at->key[0] ? at->key : "by default");
	return buf;
}

static int fail_duplicate(const struct config_build *b, const struct config_where *at,
			  const struct klb_endpoint *ep, const struct config_where *first)
{
	char address[ENDPOINT_TEXT_MAX], where[WHERE_TEXT_MAX];

	return config_fail(b, at, "%s is there already (%s); remove one of the two",
			   endpoint_format(ep, address), where_text(first, where));
}

/* Checks what applies to every address that is connected to. */
static int parse_address(const struct config_build *b, const struct config_where *at,
			 const char *text, unsigned int default_port, struct klb_endpoint *ret)
{
	struct err why;

	if (endpoint_parse(text, default_port, ret, &why) < 0)
		return config_fail(b, at, "%s", why.text);
	if (endpoint_is_unspecified(ret))
		return config_fail(b, at, "'%.64s' is no address to connect to; write a host's own",
				   text);
	if (endpoint_is_multicast(ret))
		return config_fail(
			b, at, "'%.64s' is for multicast or broadcast; write a host's own", text);
	return 0;
}

/* Returns where the frontend with this address stands, or NULL. */
static const struct config_where *find_frontend(const struct config_build *b,
						const struct klb_endpoint *ep)
{
	unsigned int i;

	for (i = 0; i < b->config->n_frontends; i++)
		if (endpoint_equal(ep, &b->config->frontends[i].endpoint))
			return &b->frontends[i];
	return NULL;
}

static const struct config_where *find_backend(const struct config_build *b,
					       const struct klb_endpoint *ep)
{
	for (unsigned int i = 0; i < b->config->n_backends; i++)
		if (endpoint_equal(ep, &b->config->backends[i].endpoint))
			return &b->backends[i];
	return NULL;
}

/*
 * Parses an address that is added to the frontends or backends. find looks for it among those that
 * are there.
 */
static int parse_new(const struct config_build *b, const struct config_where *at, const char *text,
		     unsigned int default_port,
		     const struct config_where *(*find)(const struct config_build *b,
							const struct klb_endpoint *ep),
		     struct klb_endpoint *ret)
{
	const struct config_where *first;
	int r = parse_address(b, at, text, default_port, ret);

	if (r < 0)
		return r;
	first = find(b, ret);
	return first ? fail_duplicate(b, at, ret, first) : 0;
}

int config_add_frontend(struct config_build *b, const struct config_where *at, const char *text,
			enum klb_scope scope, const struct config_access *access)
{
	struct config *c = b->config;
	struct klb_endpoint ep;
	int r;

	if (c->n_frontends == KLB_MAX_FRONTENDS)
		return config_fail(b, at, "more than %u frontends; remove some", KLB_MAX_FRONTENDS);
	r = parse_new(b, at, text, 0, find_frontend, &ep);
	if (r < 0)
		return r;
	if (access && endpoint_is_loopback(&ep))
		return config_fail(b, at,
				   "'%.64s' is of this host alone, and scope: network is for other "
				   "machines; write an address of the network",
				   text);
	b->frontends[c->n_frontends] = *at;
	if (access)
		c->access[c->n_frontends] = *access;
	c->frontends[c->n_frontends++] = (struct config_frontend){ .endpoint = ep, .scope = scope };
	return 0;
}

int config_add_backend(struct config_build *b, const struct config_where *at, const char *text,
		       unsigned int weight)
{
	struct config *c = b->config;
	struct klb_endpoint ep;
	int r;

	if (c->n_backends == KLB_MAX_BACKENDS)
		return config_fail(b, at, "more than %u backends; remove some", KLB_MAX_BACKENDS);
	r = parse_new(b, at, text, KLB_PORT_DEFAULT, find_backend, &ep);
	if (r < 0)
		return r;
	if (endpoint_is_link_local_v6(&ep))
		return config_fail(b, at,
				   "'%.64s' is link-local, it needs a zone; write a routable one",
				   text);
	b->backends[c->n_backends] = *at;
	c->backends[c->n_backends++] = (struct config_backend){ .endpoint = ep, .weight = weight };
	return 0;
}

static int add_default_frontends(struct config_build *b, bool host_has_ipv6)
{
	static const struct config_where by_default;
	int r;

	r = config_add_frontend(b, &by_default, "127.0.0.1:6443", KLB_SCOPE_HOST, NULL);
	if (r == 0 && host_has_ipv6)
		r = config_add_frontend(b, &by_default, "[::1]:6443", KLB_SCOPE_HOST, NULL);
	return r;
}

/* Refuses a backend that is also a frontend: its connects would be sent to itself. */
static int check_backends(const struct config_build *b)
{
	const struct config *c = b->config;
	char address[ENDPOINT_TEXT_MAX], where[WHERE_TEXT_MAX];
	unsigned int i;

	if (!c->n_backends && !c->discovery)
		return config_fail(b, &b->no_backend,
				   "no backend; give the address of at least one apiserver");
	for (i = 0; i < c->n_backends; i++) {
		const struct klb_endpoint *ep = &c->backends[i].endpoint;
		const struct config_where *frontend = find_frontend(b, ep);

		if (frontend)
			return config_fail(b, &b->backends[i],
					   "%s is also a frontend (%s), and would connect to "
					   "itself; write the apiserver's own address",
					   endpoint_format(ep, address),
					   where_text(frontend, where));
	}
	return 0;
}

/*
 * Refuses an http address that is also a frontend: who asks the agent there would reach an
 * apiserver. The command line has no http address, so there is nothing to compare.
 */
static int check_http(const struct config_build *b)
{
	const struct config_where *frontend;
	char where[WHERE_TEXT_MAX];

	frontend = b->config->http_enabled ? find_frontend(b, &b->config->http) : NULL;
	if (frontend && b->http.line)
		return config_fail(b, &b->http, "is also a frontend (%s); choose another port",
				   where_text(frontend, where));
	if (frontend && frontend->line)
		return config_fail(b, frontend,
				   "is where the agent serves http by default; choose another port "
				   "for one of the two");
	return 0;
}

int config_finish(struct config_build *b, bool host_has_ipv6)
{
	int r = 0;

	if (!b->config->n_frontends)
		r = add_default_frontends(b, host_has_ipv6);
	if (r == 0)
		r = check_backends(b);
	if (r == 0)
		r = check_http(b);
	b->config->probe.connect_timeout_ms = b->config->connect_timeout_ms;
	return r;
}
