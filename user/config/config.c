/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The public functions: make a snapshot from a file, from memory or from arguments; copy and free
 * it.
 */
#include "config/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/internal.h"
#include "net/endpoint.h"
#include "base/file.h"

static int set_defaults(struct config_build *b)
{
	struct config *c = b->config;
	int r;

	c->policy = KLB_POLICY_LEAST_CONN;
	c->local = KLB_LOCAL_PREFER;
	c->data_path = CONFIG_DATA_PATH_AUTO;
	c->connect_timeout_ms = 1000;
	c->dead_peer_timeout_ms = 10000;
	c->slow_start_ms = 30000;
	c->probe.interval_ms = 5000;
	c->probe.timeout_ms = 3000;
	c->probe.ping_ms = 1000;
	c->probe.ping_timeout_ms = 1000;
	c->probe.rise = 2;
	c->probe.fall = 2;
	c->probe.anonymous_auth = true;
	config_relay_defaults(&c->relay);
	c->http_enabled = true;
	r = endpoint_parse("127.0.0.1:8081", 0, &c->http, b->e);
	if (r == 0)
		r = config_set_string(b, &c->probe.path, "/readyz");
	if (r == 0)
		r = config_set_string(b, &c->probe.live_path, "/livez");
	return r;
}

static void build_free(struct config_build *b)
{
	if (!b)
		return;
	config_free(b->config);
	free(b);
}

static int build_new(const char *source, struct err *e, struct config_build **ret)
{
	struct config_build *b = calloc(1, sizeof(*b));
	int r;

	if (!b || !(b->config = calloc(1, sizeof(*b->config))) ||
	    !(b->config->source = strdup(source))) {
		build_free(b);
		err_no_memory_for(e, source);
		return -ENOMEM;
	}
	b->e = e;
	r = set_defaults(b);
	if (r < 0) {
		build_free(b);
		return r;
	}
	*ret = b;
	return 0;
}

/* Returns the snapshot if everything went well, and frees the rest. */
static int build_end(struct config_build *b, int r, bool host_has_ipv6, struct config **ret)
{
	if (r == 0)
		r = config_finish(b, host_has_ipv6);
	if (r == 0) {
		*ret = b->config;
		b->config = NULL;
	}
	build_free(b);
	return r;
}

int config_parse(const char *text, size_t length, const char *source, bool host_has_ipv6,
		 struct config **ret, struct err *e)
{
	struct config_build *b;
	int r;

	if (length > (size_t)CONFIG_BYTES_MAX)
		return err_set(e, EINVAL,
			       "%s: larger than %d bytes, so it is no configuration; name another",
			       source, CONFIG_BYTES_MAX);
	r = build_new(source, e, &b);
	if (r < 0)
		return r;
	r = config_read_yaml(b, text, length);
	return build_end(b, r, host_has_ipv6, ret);
}

static void identify_named(struct config_probe *probe)
{
	if (probe->ca)
		file_identify(probe->ca, &probe->ca_seen);
	if (probe->client_cert)
		file_identify(probe->client_cert, &probe->client_cert_seen);
	if (probe->client_key)
		file_identify(probe->client_key, &probe->client_key_seen);
}

int config_load(const char *path, bool host_has_ipv6, struct config **ret, struct err *e)
{
	struct file_identity seen;
	char *text = NULL;
	size_t length = 0;
	int r;

	file_identify(path, &seen);
	r = file_read_named(path, "-c FILE", CONFIG_BYTES_MAX, &text, &length, e);
	if (r < 0)
		return r == -EFBIG ? -EINVAL : r;
	r = config_parse(text, length, path, host_has_ipv6, ret, e);
	free(text);
	if (r < 0)
		return r;
	(*ret)->source_seen = seen;
	identify_named(&(*ret)->probe);
	return 0;
}

/* Parses what follows the address: nothing, or ",weight=N". */
static int parse_weight(struct config_build *b, const struct config_where *at, const char *text,
			unsigned int *ret)
{
	static const char prefix[] = ",weight=";
	unsigned int weight;

	if (!*text) {
		*ret = KLB_WEIGHT_DEFAULT;
		return 0;
	}
	if (strncmp(text, prefix, strlen(prefix)) != 0)
		return config_fail(b, at, "'%.64s' is unknown; write ADDR[:PORT][,weight=N]", text);
	text += strlen(prefix);
	if (config_uint(text, &weight) < 0 || weight > KLB_WEIGHT_MAX)
		return config_fail(b, at, "weight '%.64s' is no number in range; write 0..%d", text,
				   KLB_WEIGHT_MAX);
	*ret = weight;
	return 0;
}

static int add_backend_arg(struct config_build *b, const char *arg)
{
	struct config_where at = { .line = 0 };
	unsigned int weight = 0;
	char *address;
	int r;

	snprintf(at.key, sizeof(at.key), "-b %.64s", arg);
	r = parse_weight(b, &at, arg + strcspn(arg, ","), &weight);
	if (r < 0)
		return r;
	address = strndup(arg, strcspn(arg, ","));
	if (!address)
		return config_fail_memory(b);
	r = config_add_backend(b, &at, address, weight);
	free(address);
	return r;
}

static int add_frontend_arg(struct config_build *b, const char *arg)
{
	struct config_where at = { .line = 0 };

	snprintf(at.key, sizeof(at.key), "-f %.64s", arg);
	return config_add_frontend(b, &at, arg, KLB_SCOPE_HOST, NULL);
}

int config_from_args(const char *const *frontends, size_t n_frontends, const char *const *backends,
		     size_t n_backends, bool host_has_ipv6, struct config **ret, struct err *e)
{
	struct config_build *b;
	size_t i;
	int r;

	r = build_new("command line", e, &b);
	if (r < 0)
		return r;
	b->config->data_path = CONFIG_DATA_PATH_KERNEL;
	snprintf(b->no_backend.key, sizeof(b->no_backend.key), "-b");
	for (i = 0; r == 0 && i < n_frontends; i++)
		r = add_frontend_arg(b, frontends[i]);
	for (i = 0; r == 0 && i < n_backends; i++)
		r = add_backend_arg(b, backends[i]);
	return build_end(b, r, host_has_ipv6, ret);
}

/* The strings that a snapshot owns, for copying and for freeing. */
#define OWNED_MAX 11

static unsigned int owned_strings(struct config *c, char **ret[OWNED_MAX])
{
	unsigned int n = 0;

	ret[n++] = &c->source;
	ret[n++] = &c->probe.path;
	ret[n++] = &c->probe.live_path;
	ret[n++] = &c->probe.ca;
	ret[n++] = &c->probe.server_name;
	ret[n++] = &c->probe.client_cert;
	ret[n++] = &c->probe.client_key;
	ret[n++] = &c->discovery_kubeconfig;
	ret[n++] = &c->discovery_cache;
	ret[n++] = &c->http_socket;
	ret[n++] = &c->cgroup;
	return n;
}

static struct config *copy(const struct config *c)
{
	struct config *ret = malloc(sizeof(*ret));
	char **owned[OWNED_MAX];
	bool failed = false;
	unsigned int n;

	if (!ret)
		return NULL;
	*ret = *c;
	n = owned_strings(ret, owned);
	for (unsigned int i = 0; i < n; i++) {
		const char *text = *owned[i];

		*owned[i] = text && !failed ? strdup(text) : NULL;
		failed |= text && !*owned[i];
	}
	if (!failed)
		return ret;
	config_free(ret);
	return NULL;
}

static unsigned int weight_in(const struct config *c, const struct klb_endpoint *backend)
{
	for (unsigned int i = 0; i < c->n_backends; i++)
		if (endpoint_equal(&c->backends[i].endpoint, backend))
			return c->backends[i].weight;
	return KLB_WEIGHT_DEFAULT;
}

int config_with_backends(const struct config *c, const struct klb_endpoint *list, unsigned int n,
			 struct config **ret, struct err *e)
{
	struct config *made = copy(c);

	if (!made)
		return err_no_memory_for(e, c->source);
	for (unsigned int i = 0; i < n && i < KLB_MAX_BACKENDS; i++) {
		made->backends[i].endpoint = list[i];
		made->backends[i].weight = weight_in(c, &list[i]);
	}
	if (n)
		made->n_backends = n < KLB_MAX_BACKENDS ? n : KLB_MAX_BACKENDS;
	*ret = made;
	return 0;
}

void config_free(struct config *c)
{
	char **owned[OWNED_MAX];
	unsigned int n;

	if (!c)
		return;
	n = owned_strings(c, owned);
	for (unsigned int i = 0; i < n; i++)
		free(*owned[i]);
	free(c);
}

bool config_has_backend(const struct config *c, const struct klb_endpoint *endpoint)
{
	for (unsigned int i = 0; i < c->n_backends; i++)
		if (endpoint_equal(&c->backends[i].endpoint, endpoint))
			return true;
	return false;
}

void config_endpoints(const struct config *c, struct klb_endpoint *ret)
{
	for (unsigned int i = 0; i < c->n_backends; i++)
		ret[i] = c->backends[i].endpoint;
}
