/* SPDX-License-Identifier: BSD-2-Clause */
/* The doctor makes test connects, and looks for other owners' programs at the same hooks. */
#include "ctl/doctor.h"

#include "net/endpoint.h"

static bool all_run(const struct doctor *d)
{
	for (int i = 0; i < d->n_links; i++)
		if (!d->links[i].effective)
			return false;
	return d->n_links > 0;
}

/* The program that is the likely cause; NULL: none is to be seen. Others than KubeLB's first. */
static const struct datapath_other *suspect(const struct decides *d)
{
	for (int i = 0; i < d->n_others; i++)
		if (!d->others[i].kubelb)
			return &d->others[i];
	return d->n_others > 0 ? &d->others[0] : NULL;
}

static void name_suspect(struct doctor *d)
{
	const struct datapath_other *o = suspect(d->decides);

	if (!o) {
		doctor_next(d, "bpftool cgroup tree lists the programs; run kubelb-load again if "
			       "none of another owner is among them");
		return;
	}
	doctor_next(d,
		    "program %s (id %u) at %s runs %s KubeLB's%s%s: have its owner leave these "
		    "addresses alone, or detach it (bpftool cgroup tree, bpftool cgroup detach "
		    "CGROUP %s id %u)",
		    o->name[0] ? o->name : "of unknown name", o->prog_id,
		    datapath_hook_name(o->hook), o->before ? "before" : "after",
		    o->cgroup[0] ? " for " : "", o->cgroup, datapath_hook_name(o->hook),
		    o->prog_id);
}

static void check_trials(struct doctor *d)
{
	char text[DATAPATH_TRIAL_TEXT], frontend[ENDPOINT_TEXT_MAX];
	const struct decides *all = d->decides;

	if (decides_result(all) == DECIDES_KUBELB) {
		doctor_say(d, DOCTOR_OK, "connects", "end at a backend, from each of %u frontends",
			   all->n_trials);
		return;
	}
	for (unsigned int i = 0; i < all->n_trials; i++) {
		const struct datapath_trial *t = &all->trials[i];
		bool unknown = t->result == DATAPATH_TRIAL_NOT_MADE;

		if (t->result == DATAPATH_TRIAL_BALANCED)
			continue;
		doctor_say(d, unknown ? DOCTOR_SKIP : DOCTOR_FAULT, "connects", "%s %s",
			   endpoint_format(&t->frontend, frontend), datapath_trial_text(t, text));
		if (!unknown)
			name_suspect(d);
	}
}

static void check_others(struct doctor *d)
{
	const struct klb_counters *c = &d->state->counters;
	char text[ENDPOINT_TEXT_MAX];

	if (d->decides->n_others < 0)
		doctor_say(d, DOCTOR_SKIP, "others",
			   "listing programs takes CAP_NET_ADMIN, and below the root "
			   "CAP_DAC_READ_SEARCH");
	else
		doctor_say(d, DOCTOR_OK, "others", "%d programs of other owners at the same hooks",
			   d->decides->n_others);
	if (!c->diverted)
		return;
	doctor_say(d, DOCTOR_WARN, "others",
		   "%llu connects went elsewhere after KubeLB had chosen, the last one to %s",
		   c->diverted, endpoint_format(&c->diverted_to, text));
	name_suspect(d);
}

void doctor_check_connects(struct doctor *d)
{
	if (!d->dp)
		return;
	if (!all_run(d)) {
		doctor_say(d, DOCTOR_SKIP, "connects", "not tried: not all programs run");
		return;
	}
	if (!datapath_is_host_netns(&d->state->control)) {
		doctor_say(d, DOCTOR_SKIP, "connects",
			   "not tried: another network namespace is balanced");
		return;
	}
	decides_take(d->decides, d->dp, d->state, d->links, d->n_links, d->now_ns);
	check_trials(d);
	check_others(d);
}
