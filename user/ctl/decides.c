/* SPDX-License-Identifier: BSD-2-Clause */
/* Shows who decides where connects go. */
#include "ctl/decides.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "net/endpoint.h"

/* For `status -w`, which reads everything each second. */
#define KEEP_NS (10 * NS_PER_S)

#define KEEPER_MAX 320

void decides_take(struct decides *d, const struct datapath *dp, const struct datapath_state *s,
		  const struct datapath_link *links, int n_links, __u64 now_ns)
{
	bool another = false;

	if (d->taken_ns && d->serial == s->control.config_serial && now_ns < d->taken_ns + KEEP_NS)
		return;
	d->n_trials =
		datapath_try_frontends(dp, s, links, n_links, true, d->trials, KLB_MAX_FRONTENDS);
	d->n_others = datapath_others(links, n_links, true, d->others, DECIDES_OTHERS_MAX);
	for (int i = 0; i < d->n_others; i++)
		another |= d->others[i].kubelb;
	d->n_running = another ? datapath_running(d->running, DATAPATH_RUNNING_MAX) : 0;
	d->serial = s->control.config_serial;
	d->taken_ns = now_ns;
}

enum decides_result decides_result(const struct decides *d)
{
	enum decides_result result = d->n_trials ? DECIDES_KUBELB : DECIDES_UNKNOWN;

	for (unsigned int i = 0; i < d->n_trials; i++) {
		if (d->trials[i].result == DATAPATH_TRIAL_NOT_MADE)
			result = DECIDES_UNKNOWN;
		else if (d->trials[i].result != DATAPATH_TRIAL_BALANCED)
			return DECIDES_ANOTHER;
	}
	return result;
}

/* --- text --- */

static void print_trials(const struct decides *d, FILE *to)
{
	char text[DATAPATH_TRIAL_TEXT], frontend[ENDPOINT_TEXT_MAX];

	if (decides_result(d) == DECIDES_KUBELB)
		fprintf(to, "connects  end at a backend, from each of %u frontend%s\n", d->n_trials,
			d->n_trials == 1 ? "" : "s");
	else
		for (unsigned int i = 0; i < d->n_trials; i++)
			fprintf(to, "connects  %s %s\n",
				endpoint_format(&d->trials[i].frontend, frontend),
				datapath_trial_text(&d->trials[i], text));
}

static const struct datapath_running *find_running(const struct decides *d, __u32 prog_id)
{
	for (unsigned int i = 0; i < d->n_running; i++)
		if (d->running[i].prog_id == prog_id)
			return &d->running[i];
	return NULL;
}

/* What keeps it: the directory of the pins, or a process; "" when neither is to be seen. */
static void keeper_of(const struct decides *d, const struct datapath_other *o, char *ret,
		      size_t size)
{
	const struct datapath_running *p = find_running(d, o->prog_id);
	const char *links = p ? strstr(p->pin, "/links/") : NULL;

	if (links)
		snprintf(ret, size, "pinned in %.*s", (int)(links - p->pin), p->pin);
	else
		snprintf(ret, size, "%s%s", p && p->process[0] ? "held by " : "",
			 p ? p->process : "");
}

/* Both belong to one attachment of KubeLB. */
static bool is_same_attachment(const struct decides *d, const struct datapath_other *x,
			       const struct datapath_other *y)
{
	char keeper_x[KEEPER_MAX], keeper_y[KEEPER_MAX];

	keeper_of(d, x, keeper_x, sizeof(keeper_x));
	keeper_of(d, y, keeper_y, sizeof(keeper_y));
	return x->kubelb && y->kubelb && x->before == y->before && !strcmp(keeper_x, keeper_y) &&
	       !strcmp(x->cgroup, y->cgroup);
}

/* One line for another attachment of KubeLB, with its first program. */
static void print_attachment(const struct decides *d, int first, FILE *to)
{
	const struct datapath_other *o = &d->others[first];
	char keeper[KEEPER_MAX];
	int more = 0;

	for (int i = 0; i < first; i++)
		if (is_same_attachment(d, &d->others[i], o))
			return;
	for (int i = first + 1; i < d->n_others; i++)
		more += is_same_attachment(d, &d->others[i], o);
	keeper_of(d, o, keeper, sizeof(keeper));
	fprintf(to, "other     %s (id %u) and %d more of KubeLB run %s%s%s; %s\n", o->name,
		o->prog_id, more, o->before ? "before" : "after", o->cgroup[0] ? " for " : "",
		o->cgroup, keeper[0] ? keeper : "no pin of them is to be seen");
}

static void print_other(const struct decides *d, int i, FILE *to)
{
	const struct datapath_other *o = &d->others[i];

	if (o->kubelb) {
		print_attachment(d, i, to);
		return;
	}
	fprintf(to, "other     %s %s (id %u", datapath_hook_name(o->hook),
		o->name[0] ? o->name : "of unknown name", o->prog_id);
	if (o->name[0]) {
		fputs(", tag ", to);
		for (size_t j = 0; j < sizeof(o->tag); j++)
			fprintf(to, "%02x", o->tag[j]);
	}
	fprintf(to, ") runs %s%s%s\n", o->before ? "before" : "after", o->cgroup[0] ? " for " : "",
		o->cgroup);
}

void decides_print(const struct decides *d, FILE *to)
{
	print_trials(d, to);
	if (d->n_others < 0)
		fprintf(to, "other     not checked: listing programs takes CAP_NET_ADMIN, and "
			    "below the "
			    "root CAP_DAC_READ_SEARCH\n");
	for (int i = 0; i < d->n_others; i++)
		print_other(d, i, to);
}

/* --- JSON --- */

static const char *result_name(enum datapath_trial_result result)
{
	static const char *const names[] = {
		[DATAPATH_TRIAL_BALANCED] = "balanced",
		[DATAPATH_TRIAL_UNTOUCHED] = "untouched",
		[DATAPATH_TRIAL_ELSEWHERE] = "elsewhere",
		[DATAPATH_TRIAL_NOT_MADE] = "not_checked",
	};

	return names[result];
}

json_t *decides_json_trials(const struct decides *d)
{
	json_t *list = json_array();
	char frontend[ENDPOINT_TEXT_MAX], found[ENDPOINT_TEXT_MAX];

	for (unsigned int i = 0; i < d->n_trials; i++) {
		const struct datapath_trial *t = &d->trials[i];
		bool elsewhere = t->result == DATAPATH_TRIAL_ELSEWHERE;

		json_array_append_new(
			list, json_pack("{s:s, s:s, s:s?, s:s?}", "frontend",
					endpoint_format(&t->frontend, frontend), "result",
					result_name(t->result), "found",
					elsewhere ? endpoint_format(&t->found, found) : NULL, "why",
					t->result == DATAPATH_TRIAL_NOT_MADE ? t->why : NULL));
	}
	return list;
}

static json_t *json_other(const struct decides *d, const struct datapath_other *o)
{
	const struct datapath_running *p = find_running(d, o->prog_id);
	char tag[2 * sizeof(o->tag) + 1];

	for (size_t i = 0; i < sizeof(o->tag); i++)
		snprintf(tag + 2 * i, 3, "%02x", o->tag[i]);
	return json_pack("{s:s, s:i, s:s?, s:s?, s:b, s:b, s:s?, s:s?}", "hook",
			 datapath_hook_name(o->hook), "programId", (int)o->prog_id, "name",
			 o->name[0] ? o->name : NULL, "tag", o->name[0] ? tag : NULL, "kubelb",
			 o->kubelb, "before", o->before, "cgroup", o->cgroup[0] ? o->cgroup : NULL,
			 "pin", p && p->pin[0] ? p->pin : NULL);
}

json_t *decides_json_others(const struct decides *d)
{
	json_t *list;

	if (d->n_others < 0)
		return json_null();
	list = json_array();
	for (int i = 0; i < d->n_others; i++)
		json_array_append_new(list, json_other(d, &d->others[i]));
	return list;
}
