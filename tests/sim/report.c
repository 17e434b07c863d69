/* SPDX-License-Identifier: BSD-2-Clause */
/* What was seen, as JSON. Nothing of it depends on the machine. */
#include <stdio.h>
#include <string.h>

#include "sim.h"

#define MARKS_MAX 16
#define WATCHES_MAX 24
#define SAMPLES_MAX 400
#define BEFORE_S 60
/* Of the series. */
#define BUCKET_S 10

struct mark {
	const char *what;
	unsigned int at_s, n;
	unsigned int open[SIM_SERVERS];
	__u64 moved, evicted, failed;
};

struct watch {
	const char *what;
	unsigned int at_s, after_s;
	bool served[SIM_SERVERS]; /* before */
	bool counts[SIM_SERVERS]; /* after: not the one that goes */
};

static struct mark marks[MARKS_MAX];
static struct watch watches[WATCHES_MAX];
static unsigned int samples[SAMPLES_MAX][SIM_SERVERS];
static unsigned int n_marks, n_watches, n_samples;

/* Serves, and is used: one that nobody has in the list has no connections. */
static bool is_part(const struct server *s)
{
	return server_serves(s) && (s->index < options.n_servers || s->open);
}

static __u64 ended_in(struct agent_backend *const *list, unsigned int n, enum metrics_ended why)
{
	__u64 sum = 0;

	for (unsigned int i = 0; i < n; i++)
		sum += list[i]->metrics.ended[why];
	return sum;
}

static __u64 ended_for(enum metrics_ended why)
{
	__u64 sum = 0;

	for (unsigned int k = 0; k < n_nodes; k++) {
		const struct agent *a = &nodes[k].agent;

		if (nodes[k].runs)
			sum += ended_in(a->backends, a->config->n_backends, why) +
			       ended_in(a->removed, a->n_removed, why) +
			       ended_in(a->resting, a->n_resting, why);
	}
	return sum;
}

void report_mark(const char *what)
{
	struct mark *m = &marks[n_marks++];

	m->what = what;
	m->at_s = (unsigned int)(sim_now() / NS_PER_S);
	for (unsigned int i = 0; i < SIM_SERVERS; i++)
		if (is_part(&servers[i]))
			m->open[m->n++] = servers[i].open;
	m->moved = ended_for(METRICS_ENDED_REBALANCE);
	m->evicted = ended_for(METRICS_ENDED_DEAD);
	m->failed = failed_connects;
}

void report_watch(const char *what, unsigned int after_s, int goes, int comes)
{
	struct watch *w = &watches[n_watches++];

	w->what = what;
	w->at_s = (unsigned int)(sim_now() / NS_PER_S);
	w->after_s = after_s;
	for (int i = 0; i < SIM_SERVERS; i++) {
		w->served[i] = is_part(&servers[i]) && i != comes;
		w->counts[i] = (w->served[i] && i != goes) || i == comes;
	}
}

void report_sample(void)
{
	for (unsigned int i = 0; n_samples < SAMPLES_MAX && i < SIM_SERVERS; i++)
		samples[n_samples][i] = servers[i].open;
	n_samples++;
}

/* --- writing ------------------------------------------------------------------------------- */

static double imbalance(const struct mark *m)
{
	unsigned int most = 0, sum = 0;

	for (unsigned int i = 0; i < m->n; i++) {
		sum += m->open[i];
		most = m->open[i] > most ? m->open[i] : most;
	}
	return sum ? (double)most * m->n / sum : 0;
}

static void write_marks(void)
{
	printf(" \"marks\": [\n");
	for (unsigned int k = 0; k < n_marks; k++) {
		const struct mark *m = &marks[k];

		printf("  {\"what\": \"%s\", \"second\": %u, \"max_over_mean\": %.4f, "
		       "\"rebalanced\": %llu, \"evicted\": %llu, \"failed\": %llu, \"open\": [",
		       m->what, m->at_s, imbalance(m), m->moved, m->evicted, m->failed);
		for (unsigned int i = 0; i < m->n; i++)
			printf("%s%u", i ? ", " : "", m->open[i]);
		printf("]}%s\n", k + 1 < n_marks ? "," : "");
	}
	printf(" ],\n");
}

typedef const unsigned int *(*rates_fn)(const struct server *s);

static const unsigned int *connects_of(const struct server *s)
{
	return s->rates.connects;
}

static const unsigned int *handshakes_of(const struct server *s)
{
	return s->rates.handshakes;
}

static const unsigned int *pings_of(const struct server *s)
{
	return s->rates.pings;
}

static const unsigned int *gets_of(const struct server *s)
{
	return s->rates.gets;
}

/* A second's mean at one server, over the time before. */
static double mean_before(const struct watch *w, rates_fn rates)
{
	unsigned int sum = 0, n = 0;

	for (unsigned int i = 0; i < SIM_SERVERS; i++) {
		for (unsigned int t = w->at_s - BEFORE_S; w->served[i] && t < w->at_s; t++)
			sum += rates(&servers[i])[t];
		n += w->served[i] * BEFORE_S;
	}
	return (double)sum / n;
}

struct worst {
	unsigned int at_s, most; /* the second, and what came to one server in it */
	double even; /* the same, in the mean of all that count */
};

static unsigned int most_in(const struct watch *w, unsigned int second, rates_fn rates)
{
	unsigned int most = 0;

	for (unsigned int i = 0; i < SIM_SERVERS; i++)
		if (w->counts[i] && rates(&servers[i])[second] > most)
			most = rates(&servers[i])[second];
	return most;
}

static struct worst worst_after(const struct watch *w, rates_fn rates)
{
	struct worst ret = { .at_s = w->at_s };
	unsigned int sum = 0, n = 0;

	for (unsigned int t = w->at_s; t < w->at_s + w->after_s; t++)
		if (most_in(w, t, rates) > ret.most)
			ret = (struct worst){ .at_s = t, .most = most_in(w, t, rates) };
	for (unsigned int i = 0; i < SIM_SERVERS; i++) {
		sum += w->counts[i] ? rates(&servers[i])[ret.at_s] : 0;
		n += w->counts[i];
	}
	ret.even = sum ? (double)ret.most * n / sum : 0;
	return ret;
}

static void write_rates(const struct watch *w, const char *name, rates_fn rates)
{
	struct worst worst = worst_after(w, rates);

	printf(", \"%s\": {\"before\": %.2f, \"worst\": %u, \"even\": %.3f}", name,
	       mean_before(w, rates), worst.most, worst.even);
}

static void write_watches(void)
{
	static const struct {
		const char *name;
		rates_fn rates;
	} kinds[] = { { "connects", connects_of },
		      { "handshakes", handshakes_of },
		      { "pings", pings_of },
		      { "gets", gets_of } };

	printf(" \"rates\": [\n");
	for (unsigned int k = 0; k < n_watches; k++) {
		printf("  {\"what\": \"%s\", \"second\": %u", watches[k].what, watches[k].at_s);
		for (unsigned int i = 0; i < 4; i++)
			write_rates(&watches[k], kinds[i].name, kinds[i].rates);
		printf("}%s\n", k + 1 < n_watches ? "," : "");
	}
	printf(" ],\n");
}

static void write_open(void)
{
	printf(" \"every_s\": %u,\n \"open\": [", BUCKET_S);
	for (unsigned int k = 0; k < n_samples; k++) {
		printf("%s\n  [", k ? "," : "");
		for (unsigned int i = 0; i <= options.n_servers; i++)
			printf("%s%u", i ? ", " : "", samples[k][i]);
		printf("]");
	}
	printf("\n ],\n");
}

/* The worst second at any server. */
static void write_worst(const char *name, rates_fn rates, const char *after)
{
	printf(" \"worst_%s\": [", name);
	for (unsigned int k = 0; k < n_samples; k++) {
		const struct watch all = { .at_s = k * BUCKET_S,
					   .after_s = BUCKET_S,
					   .counts = { 1, 1, 1, 1, 1, 1, 1, 1, 1 } };

		printf("%s%u", k ? ", " : "", worst_after(&all, rates).most);
	}
	printf("]%s\n", after);
}

void report_write(void)
{
	printf("{\n \"nodes\": %u, \"apiservers\": %u, \"watches\": %u, \"short_per_second\": %g, "
	       "\"seed\": %llu,\n \"scenario\": \"%s\", \"policy\": \"%s\", \"slow_start\": %s, "
	       "\"rebalance\": %s, \"probe\": \"%s\",\n",
	       options.n_nodes, options.n_servers, options.watches, options.per_second,
	       options.seed, options.scenario, options.policy,
	       options.slow_start ? "true" : "false", options.rebalance ? "true" : "false",
	       options.probe);
	write_marks();
	write_watches();
	write_open();
	write_worst("connects", connects_of, ",");
	write_worst("handshakes", handshakes_of, "");
	printf("}\n");
}
