/* SPDX-License-Identifier: BSD-2-Clause */
/* The relay in text and in JSON. */
#include "ctl/relay_status.h"

#include "net/endpoint.h"

static const struct {
	const char *key, *text;
} offs[KLB_RELAY_OFFS] = {
	[KLB_RELAY_ON] = { "", "" },
	[KLB_RELAY_OFF_CONFIG] = { "config", "the configuration says so" },
	[KLB_RELAY_OFF_KERNEL] = { "kernel", "the kernel has no policy routing, or has refused "
					     "klb_sockops" },
	[KLB_RELAY_OFF_TAKEN] = { "taken", "somebody else uses its mark or its routing table; the "
					   "agent's log says what to change" },
	[KLB_RELAY_OFF_PRIVILEGE] = { "privilege", "the agent has no CAP_NET_ADMIN" },
	[KLB_RELAY_OFF_LOCAL] = { "local", "this node's own backend has the others' port" },
	[KLB_RELAY_OFF_NETNS] = { "netns", "the agent is in another network namespace" },
	[KLB_RELAY_OFF_ADDRESS] = { "address", "somebody else listens where the relay has to; the "
					       "agent's log says who" },
	[KLB_RELAY_OFF_ALONE] = { "alone", "there is no other backend that could take a connect" },
	[KLB_RELAY_OFF_OTHER] = { "other", "see the agent's log" },
};

static unsigned int off_index(__u16 off)
{
	return off < KLB_RELAY_OFFS ? off : KLB_RELAY_OFF_OTHER;
}

const char *relay_status_off_text(__u16 off)
{
	return offs[off_index(off)].text;
}

static bool stands_in(const struct klb_relay *r, __u32 id)
{
	return r->stands_in[id / 64] >> id % 64 & 1;
}

/* --- text --- */

/* A part that works partly (an address that is taken) is on, with what it lacks. */
static void print_part(const char *name, bool on, __u16 off, FILE *to)
{
	fprintf(to, "%s %s", name, on ? "on" : off ? "OFF" : "starting");
	if (off)
		fprintf(to, " (%s)", relay_status_off_text(off));
}

static void print_stands_in(const struct datapath_state *s, FILE *to)
{
	char text[ENDPOINT_TEXT_MAX];
	unsigned int n = 0;

	for (unsigned int i = 0; i < s->applied.n_backends; i++)
		if (stands_in(&s->control.relay, s->applied.backends[i].id))
			fprintf(to, "%s %s", n++ ? "," : "; stands in for",
				endpoint_format(&s->applied.backends[i].value.endpoint, text));
}

void relay_status_print(const struct datapath_state *s, bool alive, FILE *to)
{
	const struct klb_relay *r = &s->control.relay;

	if (!alive)
		return;
	fprintf(to, "relay     ");
	print_part("rescue", r->mark, r->rescue_off, to);
	print_part(", detour", r->port4 || r->port6, r->detour_off, to);
	fprintf(to, ", %u connection%s", r->active, r->active == 1 ? "" : "s");
	print_stands_in(s, to);
	fputc('\n', to);
}

/* --- JSON --- */

static json_t *json_part(bool on, __u16 off)
{
	return json_pack("{s:b, s:s?}", "on", on, "off", off ? offs[off_index(off)].key : NULL);
}

json_t *relay_status_json(const struct datapath_state *s, bool alive)
{
	const struct klb_relay *r = &s->control.relay;
	json_t *list = json_array();
	char text[ENDPOINT_TEXT_MAX];

	if (!alive) {
		json_decref(list);
		return json_null();
	}
	for (unsigned int i = 0; i < s->applied.n_backends; i++)
		if (stands_in(r, s->applied.backends[i].id))
			json_array_append_new(
				list, json_string(endpoint_format(
					      &s->applied.backends[i].value.endpoint, text)));
	return json_pack("{s:o, s:o, s:I, s:o}", "rescue", json_part(r->mark, r->rescue_off),
			 "detour", json_part(r->port4 || r->port6, r->detour_off), "connections",
			 (json_int_t)r->active, "standsInFor", list);
}
