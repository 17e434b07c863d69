/* SPDX-License-Identifier: BSD-2-Clause */
/* Measures what `kubelbctl top` shows. */
#include "ctl/top_sample.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "ctl/brief.h"
#include "ctl/snapshot.h"

/* --- backends ------------------------------------------------------------------------------ */

static void copy_text(const json_t *object, const char *key, char *ret, size_t size)
{
	const char *text = json_string_value(json_object_get(object, key));

	snprintf(ret, size, "%s", text ? text : "");
	/* In the agent's document as well: whatever it is, it reaches a terminal. */
	err_make_printable(ret);
}

static long long number_of(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static long long sum_of(const json_t *object, const char *key)
{
	json_t *numbers = json_object_get(object, key), *number;
	const char *name;
	long long n = 0;

	json_object_foreach(numbers, name, number)
		n += json_integer_value(number);
	return n;
}

static void read_backend(const json_t *b, struct top_backend *ret)
{
	*ret = (struct top_backend){
		.id = number_of(b, "id"),
		.generation = number_of(b, "generation"),
		.weight = number_of(b, "weight"),
		.overridden = json_is_integer(json_object_get(b, "weightOverride")),
		.active = number_of(b, "active"),
		.connecting = number_of(b, "connecting"),
		.opened = number_of(b, "opened"),
		.failed = sum_of(b, "failed"),
		.rtt_s = json_number_value(json_object_get(b, "rttSeconds")),
		.rate = -1,
		.failed_rate = -1,
	};
	copy_text(b, "address", ret->address, sizeof(ret->address));
	copy_text(b, "state", ret->state, sizeof(ret->state));
	copy_text(b, "why", ret->why, sizeof(ret->why));
}

void top_read_backends(const json_t *document, struct top_sample *ret)
{
	json_t *list = json_object_get(document, "backends"), *b;
	size_t i;

	ret->n_backends = 0;
	json_array_foreach(list, i, b)
		if (ret->n_backends < KLB_MAX_IDS)
			read_backend(b, &ret->backends[ret->n_backends++]);
}

static const struct top_backend *find_same(const struct top_sample *s, const struct top_backend *b)
{
	for (unsigned int i = 0; i < s->n_backends; i++)
		if (s->backends[i].id == b->id && s->backends[i].generation == b->generation &&
		    !strcmp(s->backends[i].address, b->address))
			return &s->backends[i];
	return NULL;
}

void top_set_rates(const struct top_sample *before, double seconds, struct top_sample *ret)
{
	for (unsigned int i = 0; i < ret->n_backends; i++) {
		struct top_backend *b = &ret->backends[i];
		const struct top_backend *was = find_same(before, b);

		/* Another attachment counts from 0. */
		if (!was || seconds <= 0 || b->opened < was->opened || b->failed < was->failed)
			continue;
		b->rate = (double)(b->opened - was->opened) / seconds;
		b->failed_rate = (double)(b->failed - was->failed) / seconds;
	}
}

/* --- processes ----------------------------------------------------------------------------- */

static int by_process(const void *a, const void *b)
{
	const struct top_connection *x = a, *y = b;
	int r = memcmp(x->comm, y->comm, sizeof(x->comm));

	if (x->pid != y->pid)
		return x->pid < y->pid ? -1 : 1;
	return r ? r : (x->backend > y->backend) - (x->backend < y->backend);
}

static int by_connections(const void *a, const void *b)
{
	const struct top_process *x = a, *y = b;

	if (x->connections != y->connections)
		return x->connections > y->connections ? -1 : 1;
	return strcmp(x->name, y->name);
}

static bool is_same_process(const struct top_connection *x, const struct top_connection *y)
{
	return x->pid == y->pid && !memcmp(x->comm, y->comm, sizeof(x->comm));
}

/* list: n connections of one process, by backend. */
static void describe_process(const struct top_connection *list, size_t n, __u64 younger_ns,
			     struct top_process *ret)
{
	unsigned int measured = 0;
	double rtt_s = 0;

	*ret = (struct top_process){ .connections = (unsigned int)n };
	format_process(list->comm, list->pid, ret->name);
	for (size_t i = 0; i < n; i++) {
		ret->backends += !i || list[i].backend != list[i - 1].backend;
		ret->fresh += list[i].age_ns < younger_ns;
		measured += list[i].srtt_us != 0;
		rtt_s += list[i].srtt_us / 1e6;
	}
	ret->rtt_s = measured ? rtt_s / measured : 0;
}

/* Takes the place of the one with the fewest connections, once all places are taken. */
static struct top_process *place_for(struct top_sample *s, size_t connections)
{
	struct top_process *least = s->processes;

	if (s->n_processes < TOP_PROCESSES_MAX)
		return &s->processes[s->n_processes++];
	s->more_processes++;
	for (unsigned int i = 1; i < s->n_processes; i++)
		if (s->processes[i].connections < least->connections)
			least = &s->processes[i];
	return least->connections < connections ? least : NULL;
}

void top_count_processes(struct top_connection *list, size_t n, __u64 younger_ns,
			 struct top_sample *ret)
{
	ret->n_processes = ret->more_processes = 0;
	if (n)
		qsort(list, n, sizeof(*list), by_process);
	for (size_t i = 0, end; i < n; i = end) {
		struct top_process *p;

		for (end = i + 1; end < n && is_same_process(&list[i], &list[end]);)
			end++;
		p = place_for(ret, end - i);
		if (p)
			describe_process(&list[i], end - i, younger_ns, p);
	}
	if (ret->n_processes)
		qsort(ret->processes, ret->n_processes, sizeof(ret->processes[0]), by_connections);
}

/* --- who lists the connections ---------------------------------------------------------------- */

struct connections {
	struct top_connection *list;
	size_t n;
};

/* They return 0, or a negative errno with e. */
static int list_kernels(const struct ctl_options *o, struct connections *ret,
			struct top_sample *sample, struct err *e)
{
	struct snapshot *snapshot = NULL;
	int r = snapshot_take(o->pin_dir, true, &snapshot, e);
	__u64 now_ns = clock_now_ns();

	if (r)
		return r;
	ret->list = calloc(snapshot->n + 1, sizeof(*ret->list));
	for (unsigned int i = 0; ret->list && i < snapshot->n; i++) {
		const struct klb_socket *record = &snapshot->list[i].record;
		struct top_connection *c = &ret->list[ret->n++];

		*c = (struct top_connection){ .pid = record->pid,
					      .backend = record->id,
					      .srtt_us = snapshot->list[i].srtt_us };
		c->age_ns = now_ns > record->connect_ns ? now_ns - record->connect_ns : 0;
		memcpy(c->comm, record->comm, sizeof(c->comm));
	}
	if (!snapshot->all)
		snprintf(sample->unlisted, sizeof(sample->unlisted),
			 "some are in network namespaces that are not to be seen from here");
	snapshot_free(snapshot);
	return ret->list ? 0 : err_no_memory(e);
}

static void read_connection(const json_t *c, struct top_connection *ret)
{
	const json_t *process = json_object_get(c, "process");
	char comm[sizeof(ret->comm) + 1] = "";

	*ret = (struct top_connection){ .backend = number_of(c, "backendId") };
	ret->pid = (__u32)number_of(process, "pid");
	copy_text(process, "name", comm, sizeof(comm));
	memcpy(ret->comm, comm, sizeof(ret->comm));
	ret->age_ns = (__u64)(json_number_value(json_object_get(c, "ageSeconds")) * NS_PER_S);
	ret->srtt_us = (__u32)(json_number_value(json_object_get(c, "rttSeconds")) * 1e6);
}

static int list_agents(const struct ctl_options *o, struct connections *ret,
		       struct top_sample *sample, struct err *e)
{
	struct ask_body body = { 0 };
	json_t *document, *list, *c;
	size_t i;
	int r = ctl_relayed_ask(o, ASK_PRIVATE, "/connections.json", &body, e);

	if (r)
		return r > 0 ? err_set(e, ENOENT,
				       "the agent tells them only to root, at its Unix "
				       "socket")
			     : r;
	document = json_loadb(body.text, body.length, 0, NULL);
	free(body.text);
	list = json_object_get(document, "connections");
	ret->list = calloc(json_array_size(list) + 1, sizeof(*ret->list));
	json_array_foreach(list, i, c) {
		if (!ret->list)
			break;
		read_connection(c, &ret->list[ret->n]);
		if (!ret->list[ret->n++].pid)
			snprintf(sample->unlisted, sizeof(sample->unlisted),
				 "-: the relay does not know whose they are");
	}
	json_decref(document);
	return ret->list ? 0 : err_no_memory(e);
}

static void take_processes(const struct ctl_options *o, const struct top_sample *before,
			   struct top_sample *ret)
{
	__u64 younger_ns = before->time_ns ? ret->time_ns - before->time_ns : 0;
	struct connections all = { 0 };
	struct err e = { "" };
	int r = ret->relayed ? list_agents(o, &all, ret, &e) : list_kernels(o, &all, ret, &e);

	if (r)
		snprintf(ret->unlisted, sizeof(ret->unlisted), "%s", e.text);
	else
		top_count_processes(all.list, all.n, younger_ns, ret);
	free(all.list);
}

/* --- all ----------------------------------------------------------------------------------------
 */

static void summarize(const json_t *document, struct top_sample *ret)
{
	FILE *to = fmemopen(ret->summary, sizeof(ret->summary), "w");
	enum brief b = to ? brief_print_text(document, to) : BRIEF_UNKNOWN;

	if (to)
		fclose(to);
	ret->summary[sizeof(ret->summary) - 1] = '\0';
	err_make_printable(ret->summary);
	ret->verdict = b == BRIEF_OK ? TOP_GOOD : b == BRIEF_CRITICAL ? TOP_BAD : TOP_WARN;
}

int top_take(const struct ctl_options *o, struct take_memory *memory,
	     const struct top_sample *before, struct top_sample *ret, struct err *e)
{
	json_t *document = NULL;
	const char *path;
	int r = take_json(o, memory, 0, &document, e);

	*ret = (struct top_sample){ .time_ns = clock_now_ns() };
	if (r)
		return r;
	path = json_string_value(json_object_get(document, "dataPath"));
	ret->relayed = path && !strcmp(path, "relay");
	top_read_backends(document, ret);
	top_set_rates(before, clock_seconds(before->time_ns, ret->time_ns), ret);
	summarize(document, ret);
	json_decref(document);
	take_processes(o, before, ret);
	return 0;
}
