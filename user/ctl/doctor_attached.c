/* SPDX-License-Identifier: BSD-2-Clause */
/* The doctor looks at what is attached: the programs, their pins, the network namespace. */
#include "ctl/doctor.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/format.h"
#include "host/cgroup.h"

/* --- is it there? --- */

static void say_relayed(struct doctor *d)
{
	const char *why = json_string_value(json_object_get(d->relayed, "dataPathReason"));

	if (d->config->data_path == CONFIG_DATA_PATH_RELAY) {
		doctor_say(d, DOCTOR_OK, "programs",
			   "none: the agent relays every connect, as dataPath says");
		return;
	}
	doctor_say(d, DOCTOR_WARN, "programs", "none: the agent relays every connect: %s",
		   why ? why : "it does not say why");
	doctor_next(d,
		    "give the kernel what it lacks (kubelb-load --check), and restart the agent");
}

/* Nothing is pinned, and no agent has said that it is the data path. */
static void say_absent(struct doctor *d)
{
	if (d->config->data_path == CONFIG_DATA_PATH_RELAY) {
		doctor_say(d, DOCTOR_FAULT, "programs",
			   "nobody serves the frontends: dataPath is relay, and no agent answers");
		doctor_next(d, "systemctl start kubelb-agent; journalctl -u kubelb-agent says why "
			       "it has ended");
		return;
	}
	doctor_say(d, DOCTOR_FAULT, "programs", "%s", d->open_error.text);
	doctor_next(d, "kubelb-load -n looks, systemctl restart kubelb-load attaches");
}

static void say_not_open(struct doctor *d)
{
	switch (d->open_result) {
	case -ENOENT:
		say_absent(d);
		return;
	case -EPROTO:
	case -EEXIST:
		doctor_say(d, DOCTOR_FAULT, "programs", "%s", d->open_error.text);
		doctor_next(d,
			    "run the kubelb-load of this version; what is no pin of KubeLB's in "
			    "%s has to be moved away by hand",
			    d->o->pin_dir);
		return;
	case -EBUSY:
		doctor_say(d, DOCTOR_FAULT, "programs", "%s", d->open_error.text);
		doctor_next(d, "wait for the kubelb-load that runs, or run it again");
		return;
	default:
		doctor_say(d, DOCTOR_FAULT, "programs", "%s", d->open_error.text);
		doctor_next(d, "run kubelb-load again, and keep what it says");
	}
}

/* --- do they run? --- */

static void say_ineffective(struct doctor *d, const struct datapath_link *l)
{
	if (!l->cgroup_id)
		doctor_say(d, DOCTOR_FAULT, "programs",
			   "the pin of %s is stale: it is detached, or its cgroup was removed, and "
			   "the kernel does not run it any more",
			   l->name);
	else
		doctor_say(d, DOCTOR_FAULT, "programs",
			   "%s is attached, and its cgroup does not run it", l->name);
	doctor_next(d, "run kubelb-load again: it attaches anew");
}

static void check_links(struct doctor *d)
{
	unsigned int effective = 0, hidden = 0;
	char cgroup[CGROUP_PATH_MAX] = "";

	for (int i = 0; i < d->n_links; i++) {
		effective += d->links[i].effective;
		hidden += d->links[i].hidden;
		if (!d->links[i].effective && !d->links[i].hidden)
			say_ineffective(d, &d->links[i]);
	}
	if (d->n_links <= 0) {
		doctor_say(d, DOCTOR_FAULT, "programs",
			   "%s: the pins of the maps are stale: none of a program is with them",
			   d->o->pin_dir);
		doctor_next(d, "run kubelb-load again: it attaches anew");
	} else if (hidden) {
		doctor_say(d, DOCTOR_SKIP, "programs",
			   "%d attached; whether they run takes CAP_SYS_ADMIN and "
			   "CAP_DAC_READ_SEARCH to see",
			   d->n_links);
	} else if (effective == (unsigned int)d->n_links) {
		cgroup_path_of(d->links[0].cgroup_id, cgroup);
		doctor_say(d, DOCTOR_OK, "programs", "%d attached to %s, and all run", d->n_links,
			   cgroup[0] ? cgroup : "a cgroup that is not to be seen");
	}
}

/* --- what is left of a load that was killed --- */

static bool is_left(const char *name)
{
	size_t n = strlen(name), suffix = strlen("_new");

	return n > suffix && !strcmp(name + n - suffix, "_new");
}

/* Counts the temporary names of a load in dir. */
static unsigned int count_left(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *entry;
	unsigned int n = 0;

	while (d && (entry = readdir(d)))
		n += is_left(entry->d_name);
	if (d)
		closedir(d);
	return n;
}

static void say_held(struct doctor *d, const struct datapath_lock_holder *l)
{
	char text[FORMAT_TIME_MAX];

	doctor_say(d, DOCTOR_WARN, "pins", "%s (PID %u), which runs for %s, is changing them",
		   l->name[0] ? l->name : "a process", l->pid, format_duration(l->age_ns, text));
	doctor_next(d, "wait for it; if it does not end, look at what it waits for, and end it");
}

static void check_pins(struct doctor *d)
{
	struct datapath_lock_holder holder = { .pid = 0 };
	char place[ERR_TEXT_MAX];
	unsigned int left;
	struct stat st;

	if (datapath_lock_holder(d->o->pin_dir, &holder)) {
		say_held(d, &holder);
		return;
	}
	snprintf(place, sizeof(place), "%s/links", d->o->pin_dir);
	left = count_left(d->o->pin_dir) + count_left(place);
	snprintf(place, sizeof(place), "%s_new", d->o->pin_dir);
	left += !stat(place, &st);
	if (!left) {
		if (d->dp)
			doctor_say(d, DOCTOR_OK, "pins", "%s", d->o->pin_dir);
		return;
	}
	doctor_say(d, DOCTOR_FAULT, "pins",
		   "%s: %u stale pins (..._new), left by a kubelb-load that was killed",
		   d->o->pin_dir, left);
	doctor_next(d, "run kubelb-load again: it removes them");
}

/* --- whose connects are balanced --- */

static void check_netns(struct doctor *d)
{
	char text[256];

	if (datapath_is_host_netns(&d->state->control)) {
		doctor_say(d, DOCTOR_OK, "netns",
			   "that of this command is the one that is "
			   "balanced");
		return;
	}
	datapath_describe_netns(&d->state->control, text, sizeof(text));
	doctor_say(d, DOCTOR_FAULT, "netns",
		   "the balancer belongs to another network namespace than this command's: %s",
		   text);
	doctor_next(d, "if this is the host's, kubelb-load --this-netns takes it back; if not, run "
		       "this on the host (a pod needs hostNetwork: true)");
}

void doctor_check_attached(struct doctor *d)
{
	if (d->relayed) {
		say_relayed(d);
		return;
	}
	if (doctor_is_blind(d)) {
		doctor_say(d, DOCTOR_SKIP, "programs", "%s", d->open_error.text);
		return;
	}
	if (d->dp)
		check_links(d);
	else
		say_not_open(d);
	check_pins(d);
	if (d->dp)
		check_netns(d);
}
