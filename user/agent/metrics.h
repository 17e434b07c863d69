/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints counters in Prometheus' text format (version 0.0.4). */
#ifndef KUBELB_METRICS_H
#define KUBELB_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "datapath/datapath.h"

/* The number of values of enum klb_reason. */
#define METRICS_RESULTS 12
#define METRICS_BUCKETS 10
/* More than there are programs. */
#define METRICS_LINKS 16

/* Why the agent has ended connections. */
enum metrics_ended {
	METRICS_ENDED_DEAD,
	METRICS_ENDED_REBALANCE,
	METRICS_ENDED_LOCAL, /* failback */
	METRICS_ENDED
};

/* "dead", as in kubelb_connections_ended_total{reason}. */
const char *metrics_ended_name(enum metrics_ended why);

/* The agent's counters for one backend. */
struct metrics_probe {
	struct klb_endpoint backend;
	__u64 results[METRICS_RESULTS]; /* by enum klb_reason */
	__u64 buckets[METRICS_BUCKETS]; /* not cumulated; longer ones are only in count */
	__u64 count;
	double sum_seconds;
	__u64 skipped; /* probes that were skipped because of answers to clients */
	__u64 pings, pings_unanswered; /* HTTP/2 PINGs sent, and those without an answer in time */
	__u64 handshakes; /* TLS handshakes made for probes */
	__u64 ended[METRICS_ENDED];
	__u64 destroyed; /* those of them that no reset has ended */
	__s64 certificate_expires_s; /* the last one seen: Unix time; 0: none */
};

/* Counts one probe. duration_ns includes connecting. */
void metrics_probe_observe(struct metrics_probe *m, enum klb_reason result, __u64 duration_ns);

/* So many pairs are told apart. */
#define METRICS_FAILOVERS 256

/* Clients of `from`, which has not answered them, that `to` serves. */
struct metrics_failover {
	struct klb_endpoint from, to;
	__u64 count;
};

struct relay_counts;

struct metrics_input {
	const struct datapath_state *state; /* NULL: nothing is attached */
	bool relaying; /* the agent is the data path, and state is its own */
	const struct datapath_link *links; /* the pinned ones */
	unsigned int n_links;
	const struct datapath_trial *trials;
	unsigned int n_trials;
	const struct datapath_other *others;
	int n_others; /* negative: not known */
	const struct datapath_feature *features; /* of what is attached */
	unsigned int n_features;
	const struct metrics_probe *probes;
	unsigned int n_probes;
	__u64 now_ns; /* of the clock of the maps */
	__u64 wall_ns; /* the same moment in Unix time */
	__u64 reloads_ok, reloads_failed;
	double reload_time; /* of the last that succeeded, Unix time */
	bool reload_refused; /* the last one was */
	__s64 own_expires_s; /* of the client certificate of the probes, Unix time; 0: none */
	const struct relay_counts *relay; /* NULL: nothing is relayed */
	const struct metrics_failover *failovers;
	unsigned int n_failovers;
	const __u64 *discovery_results; /* by enum discovery_result; NULL: there is none */
	__u64 log_dropped; /* lines of the log */
	double start_time; /* of the process, Unix time */
};

/* The lines before those of one metric. */
static inline void metrics_print_head(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* metrics_relay.c: what is relayed. */
void metrics_print_relay(FILE *f, const struct metrics_input *in);

/* Returns a text, which the caller frees, and its length; NULL without memory. */
char *metrics_format(const struct metrics_input *in, size_t *ret_length);

#endif
