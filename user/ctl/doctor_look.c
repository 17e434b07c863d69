/* SPDX-License-Identifier: BSD-2-Clause */
/* Collects what the doctor's checks read: configuration, maps, and the agent's own account. */
#include "ctl/doctor.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "balance/backend_status.h"
#include "base/clock.h"
#include "ctl/ask.h"
#include "discovery/discovery.h"
#include "host/node.h"
#include "net/endpoint.h"

/* What a configuration without a word says; the address is for documentation (RFC 5737). */
#define DEFAULTS "backends: [192.0.2.1]\n"

static int look_at_config(struct doctor *d)
{
	bool ipv6 = node_has_ipv6();

	d->config_path = d->o->config_path ? d->o->config_path : CONFIG_PATH_DEFAULT;
	d->config_result = config_load(d->config_path, ipv6, &d->config, &d->config_error);
	if (!d->config_result)
		return 0;
	d->config_is_default = true;
	return config_parse(DEFAULTS, strlen(DEFAULTS), "defaults", ipv6, &d->config, NULL);
}

static void look_at_maps(struct doctor *d)
{
	d->open_result = ctl_open(d->o->pin_dir, &d->dp, d->state, &d->open_error);
	if (d->open_result) {
		datapath_close(d->dp);
		d->dp = NULL;
		return;
	}
	d->n_links = datapath_links(d->o->pin_dir, d->links, DOCTOR_LINKS_MAX, NULL);
	d->agent_alive = backend_status_agent_alive(&d->state->control, d->now_ns);
}

/* Where there are no maps the agent may be the data path. */
static void ask_relay(struct doctor *d)
{
	struct ask_body body = { 0 };
	const char *kind;

	if (d->dp || datapath_is_pinned(d->o->pin_dir) ||
	    ask_body(d->config, ASK_PAGE, "/status.json", &body, NULL))
		return;
	d->relayed = json_loadb(body.text, body.length, 0, NULL);
	free(body.text);
	kind = json_string_value(json_object_get(d->relayed, "dataPath"));
	if (!kind || strcmp(kind, "relay") != 0) {
		json_decref(d->relayed);
		d->relayed = NULL;
	}
	d->agent_alive |= d->relayed != NULL;
}

int doctor_look(struct doctor *d, const struct ctl_options *o)
{
	*d = (struct doctor){ .o = o, .now_ns = clock_now_ns() };
	d->state = calloc(1, sizeof(*d->state));
	d->decides = calloc(1, sizeof(*d->decides));
	d->findings = calloc(DOCTOR_FINDINGS_MAX, sizeof(*d->findings));
	if (!d->state || !d->decides || !d->findings || look_at_config(d))
		return -ENOMEM;
	look_at_maps(d);
	ask_relay(d);
	return 0;
}

void doctor_forget(struct doctor *d)
{
	json_decref(d->relayed);
	datapath_close(d->dp);
	config_free(d->config);
	free(d->state);
	free(d->decides);
	free(d->findings);
}

bool doctor_is_relayed(const struct doctor *d)
{
	return !d->dp && (d->relayed || d->config->data_path == CONFIG_DATA_PATH_RELAY);
}

bool doctor_is_blind(const struct doctor *d)
{
	return d->open_result == -EACCES || d->open_result == -EPERM;
}

static void add(struct doctor_endpoints *to, const struct klb_endpoint *endpoint)
{
	if (to->n < KLB_MAX_BACKENDS && !endpoint_is_in(to->list, to->n, endpoint))
		to->list[to->n++] = *endpoint;
}

/* "address" of each object in a list of the agent's document. */
static void add_addresses(struct doctor_endpoints *to, const json_t *document, const char *key)
{
	struct klb_endpoint endpoint;
	json_t *entry;
	size_t i;

	json_array_foreach(json_object_get(document, key), i, entry) {
		const char *text = json_string_value(json_object_get(entry, "address"));

		if (text && !endpoint_parse(text, KLB_PORT_DEFAULT, &endpoint, NULL))
			add(to, &endpoint);
	}
}

void doctor_backends(const struct doctor *d, struct doctor_endpoints *ret)
{
	struct klb_endpoint cached[KLB_MAX_BACKENDS];
	unsigned int n = 0;

	ret->n = 0;
	add_addresses(ret, d->relayed, "backends");
	for (unsigned int i = 0; d->dp && i < d->state->applied.n_backends; i++)
		if (!d->state->applied.backends[i].removed)
			add(ret, &d->state->applied.backends[i].value.endpoint);
	if (ret->n || d->config_is_default)
		return;
	for (unsigned int i = 0; i < d->config->n_backends; i++)
		add(ret, &d->config->backends[i].endpoint);
	discovery_cached_list(d->config, cached, &n, NULL);
	for (unsigned int i = 0; i < n; i++)
		add(ret, &cached[i]);
}

void doctor_frontends(const struct doctor *d, struct doctor_endpoints *ret)
{
	ret->n = 0;
	add_addresses(ret, d->relayed, "frontends");
	for (unsigned int i = 0; d->dp && i < d->state->applied.n_frontends; i++)
		add(ret, &d->state->applied.frontends[i].endpoint);
	if (ret->n)
		return;
	for (unsigned int i = 0; i < d->config->n_frontends; i++)
		add(ret, &d->config->frontends[i].endpoint);
}

bool doctor_has_own_backend(const struct doctor *d)
{
	struct doctor_endpoints backends;
	bool local[KLB_MAX_BACKENDS], found = false;

	doctor_backends(d, &backends);
	node_is_local(backends.list, backends.n, local);
	for (unsigned int i = 0; i < backends.n; i++)
		found |= local[i];
	return found;
}
