/* SPDX-License-Identifier: BSD-2-Clause */
/* The doctor looks who listens where KubeLB's addresses are. */
#include "ctl/doctor.h"

#include <string.h>

#include "host/port_owner.h"
#include "net/endpoint.h"

#define AGENT "kubelb-agent"

/* Who listens on an address. */
struct holder {
	bool any; /* somebody does */
	bool agent; /* it is the agent */
	bool hidden; /* who it is takes root, or the host's processes, to see */
	char name[PORT_OWNER_MAX];
};

static void look(const struct klb_endpoint *at, struct holder *ret)
{
	char comm[PORT_OWNER_COMM_MAX];
	struct port_owner who;

	*ret = (struct holder){ .any = port_owner_find(at, &who) };
	if (!ret->any)
		return;
	ret->hidden = !port_owner_process(&who, comm);
	ret->agent = !strcmp(comm, AGENT);
	port_owner_name(&who, ret->name);
}

/* --- frontends --- */

/* Connects that KubeLB leaves alone reach it, and those from before. */
static void say_second(struct doctor *d, const char *at, unsigned int port, const struct holder *h)
{
	doctor_say(d, DOCTOR_WARN, "frontend",
		   "%s: %s listens there as well: it gets the connects that KubeLB leaves alone, "
		   "and keeps the connections from before",
		   at, h->name);
	doctor_next(d,
		    "if it is a local proxy that KubeLB has taken the place of, remove it when "
		    "ss -tn sport = :%u shows no connection through it",
		    port);
}

static void say_taken(struct doctor *d, const char *at, const struct holder *h)
{
	doctor_say(d, DOCTOR_FAULT, "frontend",
		   "%s is taken: %s listens there, so the agent cannot serve it", at, h->name);
	doctor_next(d, "end that, or choose another frontend");
}

static void check_frontend(struct doctor *d, const struct klb_endpoint *frontend)
{
	char at[ENDPOINT_TEXT_MAX];
	struct holder h;

	endpoint_format(frontend, at);
	look(frontend, &h);
	if (!h.any && doctor_is_relayed(d)) {
		doctor_say(d, DOCTOR_FAULT, "frontend", "%s: the agent does not listen there", at);
		doctor_next(d, "start the agent; if it runs, kubelbctl status says why");
	} else if (!h.any) {
		doctor_say(d, DOCTOR_OK, "frontend", "%s: nobody listens there, as it should be",
			   at);
	} else if (h.agent) {
		doctor_say(d, DOCTOR_OK, "frontend", "%s: the agent listens there", at);
	} else if (h.hidden) {
		doctor_say(d, DOCTOR_SKIP, "frontend",
			   "%s: who listens there takes root, outside of a container, to see", at);
	} else if (doctor_is_relayed(d)) {
		say_taken(d, at, &h);
	} else if (doctor_has_own_backend(d)) {
		doctor_say(d, DOCTOR_OK, "frontend", "%s: %s, on a node with a backend of its own",
			   at, h.name);
	} else {
		say_second(d, at, frontend->port, &h);
	}
}

/* --- the agent's pages --- */

static void check_http(struct doctor *d)
{
	char at[ENDPOINT_TEXT_MAX];
	struct holder h;

	if (!d->config->http_enabled)
		return;
	endpoint_format(&d->config->http, at);
	look(&d->config->http, &h);
	if (!h.any) {
		doctor_say(d, d->agent_alive ? DOCTOR_FAULT : DOCTOR_OK, "http", "%s: %s", at,
			   d->agent_alive ? "the agent runs, and does not serve there"
					  : "free for the agent");
		if (d->agent_alive)
			doctor_next(d,
				    "journalctl -u " AGENT " says why (no metrics for now); is "
				    "http of %s what it uses?",
				    d->config_path);
	} else if (h.agent) {
		doctor_say(d, DOCTOR_OK, "http", "%s: the agent serves there", at);
	} else if (h.hidden) {
		doctor_say(d, DOCTOR_SKIP, "http",
			   "%s: who listens there takes root, outside of a container, to see", at);
	} else {
		doctor_say(d, DOCTOR_FAULT, "http",
			   "%s is taken: %s listens there, and /metrics and /healthz are not the "
			   "agent's",
			   at, h.name);
		doctor_next(d, "end that, or choose another address for the key http");
	}
}

void doctor_check_ports(struct doctor *d)
{
	struct doctor_endpoints frontends;

	doctor_frontends(d, &frontends);
	for (unsigned int i = 0; i < frontends.n; i++)
		check_frontend(d, &frontends.list[i]);
	check_http(d);
}
