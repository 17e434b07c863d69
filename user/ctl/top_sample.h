/* SPDX-License-Identifier: BSD-2-Clause */
/* What `kubelbctl top` shows, measured at one time. */
#ifndef KUBELB_CTL_TOP_SAMPLE_H
#define KUBELB_CTL_TOP_SAMPLE_H

#include <jansson.h>

#include "base/format.h"
#include "ctl/take.h"
#include "net/endpoint.h"

/* More processes than any screen has lines; the others are counted. */
#define TOP_PROCESSES_MAX 256

struct top_backend {
	char address[ENDPOINT_TEXT_MAX], state[16], why[192];
	long long id, generation, weight;
	bool overridden; /* the weight, by the operator */
	long long active, connecting, opened, failed;
	/* A second; less than 0: not known, because there is no earlier sample. */
	double rate, failed_rate;
	double rtt_s; /* 0: not measured */
};

struct top_process {
	char name[FORMAT_PROCESS_MAX];
	unsigned int connections, backends;
	unsigned int fresh; /* of the connections: begun since the sample before */
	double rtt_s; /* the mean of those that have one; 0: none has */
};

struct top_sample {
	__u64 time_ns; /* 0: not taken */
	char summary[1024]; /* the line of `status --brief`, without its numbers */
	enum { TOP_GOOD, TOP_WARN, TOP_BAD } verdict;
	bool relayed;
	unsigned int n_backends, n_processes;
	unsigned int more_processes; /* than fit */
	struct top_backend backends[KLB_MAX_IDS];
	struct top_process processes[TOP_PROCESSES_MAX]; /* by connections, most first */
	char unlisted[ERR_TEXT_MAX]; /* why there are no processes, or not all; "": there are */
};

/* One connection, whoever has listed it. */
struct top_connection {
	__u32 pid;
	char comm[16];
	long long backend; /* id */
	__u64 age_ns;
	__u32 srtt_us; /* 0: not measured */
};

/*
 * Takes a sample; rates are those since before (time_ns 0: none). Returns 0, or a negative errno
 * with e, and *ret is of no use.
 */
int top_take(const struct ctl_options *o, struct take_memory *memory,
	     const struct top_sample *before, struct top_sample *ret, struct err *e);

/* The parts, pure. The document is that of `status -o json`. */
void top_read_backends(const json_t *document, struct top_sample *ret);
/* seconds: between the two. */
void top_set_rates(const struct top_sample *before, double seconds, struct top_sample *ret);
/* Sorts list. younger_ns: what is younger is fresh. */
void top_count_processes(struct top_connection *list, size_t n, __u64 younger_ns,
			 struct top_sample *ret);

#endif
