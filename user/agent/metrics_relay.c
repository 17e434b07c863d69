/* SPDX-License-Identifier: BSD-2-Clause */
/* The metrics of what is relayed. */
#include <stdio.h>

#include "agent/metrics.h"
#include "net/endpoint.h"
#include "relay/relay.h"

static void print_failovers(FILE *f, const struct metrics_input *in)
{
	static const char name[] = "kubelb_connect_failovers_total";
	char from[ENDPOINT_TEXT_MAX], to[ENDPOINT_TEXT_MAX];

	metrics_print_head(
		f, name, "counter",
		"Clients whose backend did not answer, and that the relay joined with another.");
	for (unsigned int i = 0; i < in->n_failovers; i++)
		fprintf(f, "%s{from=\"%s\",to=\"%s\"} %llu\n", name,
			endpoint_format(&in->failovers[i].from, from),
			endpoint_format(&in->failovers[i].to, to), in->failovers[i].count);
}

/* A line for each backend and reason; those that never were are left out. */
static void print_connections(FILE *f, const struct relay_counts *c, const char *name, bool total)
{
	char text[ENDPOINT_TEXT_MAX];

	for (unsigned int i = 0; c && i < c->n; i++)
		for (int from = 0; from < RELAY_FROMS; from++)
			if (c->at[i].total[from])
				fprintf(f, "%s{backend=\"%s\",from=\"%s\"} %llu\n", name,
					endpoint_format(&c->at[i].endpoint, text),
					relay_from_name((enum relay_from)from),
					total ? c->at[i].total[from] : c->at[i].active[from]);
}

static void print_refused(FILE *f, const struct relay_counts *c)
{
	static const char name[] = "kubelb_relay_refused_total";

	metrics_print_head(f, name, "counter", "Clients that the relay has refused, by reason.");
	if (!c)
		return;
	fprintf(f, "%s{reason=\"limit\"} %llu\n", name, c->refused_limit);
	fprintf(f, "%s{reason=\"source\"} %llu\n", name, c->refused_source);
	fprintf(f, "%s{reason=\"network\"} %llu\n", name, c->refused_network);
	fprintf(f, "%s{reason=\"unknown\"} %llu\n", name, c->refused_unknown);
}

static void print_failed(FILE *f, const struct relay_counts *c)
{
	static const char name[] = "kubelb_relay_failed_total";

	metrics_print_head(f, name, "counter",
			   "Clients that the relay has reset because no backend could be reached.");
	for (int from = 0; c && from < RELAY_FROMS; from++)
		fprintf(f, "%s{from=\"%s\"} %llu\n", name, relay_from_name((enum relay_from)from),
			c->failed[from]);
}

void metrics_print_relay(FILE *f, const struct metrics_input *in)
{
	print_failovers(f, in);
	metrics_print_head(f, "kubelb_relay_connections_active", "gauge",
			   "Connections that the relay holds open, by why they are relayed.");
	print_connections(f, in->relay, "kubelb_relay_connections_active", false);
	metrics_print_head(f, "kubelb_relay_connections_total", "counter",
			   "Connections that the relay has joined with a backend.");
	print_connections(f, in->relay, "kubelb_relay_connections_total", true);
	print_refused(f, in->relay);
	print_failed(f, in->relay);
}
