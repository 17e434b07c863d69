/* SPDX-License-Identifier: BSD-2-Clause */
/* The doctor looks at the kernel, and at the file systems that KubeLB needs of it. */
#include "ctl/doctor.h"

#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "host/cgroup.h"
#include "host/mounts.h"
#include "host/node.h"

/* Without the kernel the agent has to do, and does where the configuration lets it. */
static enum doctor_level kernel_level(const struct doctor *d)
{
	return d->relayed ? DOCTOR_WARN : DOCTOR_FAULT;
}

static void check_kernel(struct doctor *d)
{
	struct utsname u;

	if (uname(&u)) {
		doctor_say(d, DOCTOR_SKIP, "kernel", "uname(2): %m");
		return;
	}
	if (node_kernel_is(5, 10)) {
		doctor_say(d, DOCTOR_OK, "kernel", "Linux %s %s", u.release, u.machine);
		return;
	}
	doctor_say(d, DOCTOR_WARN, "kernel", "Linux %s %s is older than what KubeLB is tested with",
		   u.release, u.machine);
	doctor_next(d, "use Linux 5.10 or later");
}

/* --- cgroup v2 --- */

static void say_no_cgroup(struct doctor *d, const struct err *e)
{
	doctor_say(d, kernel_level(d), "cgroup",
		   "%s: programs that see each connect attach to cgroup v2, and there is only v1",
		   e->text);
	doctor_next(d, "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none "
		       "/sys/fs/cgroup/unified, or boot with systemd.unified_cgroup_hierarchy=1; "
		       "until then dataPath: relay");
}

static void check_cgroup(struct doctor *d)
{
	const char *named = d->config->cgroup;
	unsigned long long id = 0;
	char root[CGROUP_PATH_MAX] = "";
	struct err e = { "" };
	int fd;

	if (d->config->data_path == CONFIG_DATA_PATH_RELAY) {
		doctor_say(d, DOCTOR_SKIP, "cgroup", "not needed: dataPath is relay");
		return;
	}
	if (mounts_cgroup2_root(root, sizeof(root), &e)) {
		say_no_cgroup(d, &e);
		return;
	}
	fd = mounts_open_cgroup(named ? named : root, &id, &e);
	if (fd < 0) {
		doctor_say(d, kernel_level(d), "cgroup", "%s", e.text);
		doctor_next(d, "name a directory of %s in the key cgroup, or none", root);
		return;
	}
	close(fd);
	if (named || id == 1)
		doctor_say(d, DOCTOR_OK, "cgroup", "version 2 at %s", named ? named : root);
	else
		doctor_say(d, DOCTOR_SKIP, "cgroup",
			   "%s is a container's own cgroup: look at the host's from the host",
			   root);
}

/* --- bpffs --- */

static void check_bpffs(struct doctor *d)
{
	char point[CGROUP_PATH_MAX];

	if (doctor_is_relayed(d)) {
		doctor_say(d, DOCTOR_SKIP, "bpffs", "not needed: nothing is pinned");
		return;
	}
	if (mounts_bpffs_of(d->o->pin_dir, point, sizeof(point)))
		doctor_say(d, DOCTOR_OK, "bpffs", "at %s", point);
	else if (mounts_is_bpffs("/sys/fs/bpf"))
		doctor_say(d, DOCTOR_OK, "bpffs", "at /sys/fs/bpf");
	else if (doctor_is_blind(d))
		doctor_say(d, DOCTOR_SKIP, "bpffs", "takes root to see");
	else
		doctor_say(d, DOCTOR_OK, "bpffs", "none; kubelb-load mounts one at /sys/fs/bpf");
}

/* --- what the kernel takes --- */

static void say_missing(struct doctor *d, const struct datapath_feature *f)
{
	doctor_say(d, kernel_level(d), "feature", "%s is missing (%s): %s", f->name, f->detail,
		   f->purpose);
	doctor_next(d, "%s",
		    d->relayed ? "give the kernel what it lacks, and restart the agent; until then "
				 "it relays every connect"
			       : "give the kernel what it lacks; until then dataPath: auto or "
				 "relay has the agent relay every connect");
}

/* now: what the kernel takes at present; NULL: that was not asked. */
static void say_off(struct doctor *d, const struct datapath_feature *f,
		    const struct datapath_feature *now)
{
	if (now && now->present) {
		doctor_say(d, DOCTOR_FAULT, "feature",
			   "%s was refused when KubeLB was attached (%s), and the kernel takes it "
			   "now: until then, %s",
			   f->name, f->detail, f->loss);
		doctor_next(d, "run kubelb-load again");
		return;
	}
	doctor_say(d, DOCTOR_WARN, "feature", "%s is off (%s): %s", f->name, f->detail, f->loss);
	doctor_next(d, "%s: kubelb-load --check has the whole list", f->purpose);
}

static const struct datapath_feature *find(const struct datapath_feature *list, unsigned int n,
					   const char *name)
{
	for (unsigned int i = 0; i < n; i++)
		if (!strcmp(list[i].name, name))
			return &list[i];
	return NULL;
}

/* The list of all that this kernel takes at present: loads programs to find out. */
static unsigned int try_kernel(const struct doctor *d, struct datapath_feature *ret)
{
	char cgroup[CGROUP_PATH_MAX];
	bool known = d->dp && d->n_links > 0 && cgroup_path_of(d->links[0].cgroup_id, cgroup);

	return datapath_features(d->o->pin_dir, known ? cgroup : d->config->cgroup, ret,
				 DATAPATH_FEATURES_MAX);
}

static unsigned int count_off(const struct datapath_feature *list, unsigned int n)
{
	unsigned int off = 0;

	for (unsigned int i = 0; i < n; i++)
		off += !list[i].present && !list[i].quiet;
	return off;
}

/* Of what is attached. The kernel is asked again only if it has refused something. */
static void check_in_force(struct doctor *d)
{
	struct datapath_feature list[DATAPATH_FEATURES_MAX], now[DATAPATH_FEATURES_MAX];
	unsigned int n =
		datapath_features_in_force(d->dp, &d->state->control, list, DATAPATH_FEATURES_MAX);
	unsigned int off = count_off(list, n), n_now = off ? try_kernel(d, now) : 0;

	if (!off)
		doctor_say(d, DOCTOR_OK, "feature", "all %u are in use", n);
	for (unsigned int i = 0; i < n; i++)
		if (!list[i].present && !list[i].quiet)
			say_off(d, &list[i], find(now, n_now, list[i].name));
}

/* Before anything is attached. The cgroup is a check of its own. */
static void check_kernels(struct doctor *d)
{
	struct datapath_feature list[DATAPATH_FEATURES_MAX];
	unsigned int n = try_kernel(d, list), off = 0;

	for (unsigned int i = 0; i < n; i++) {
		const struct datapath_feature *f = &list[i];

		if (f->present || f->quiet || !strcmp(f->name, "cgroup2") ||
		    !strcmp(f->name, "bpffs"))
			continue;
		off++;
		if (f->required)
			say_missing(d, f);
		else
			say_off(d, f, NULL);
	}
	if (!off)
		doctor_say(d, DOCTOR_OK, "feature", "the kernel takes all %u", n);
}

static void check_features(struct doctor *d)
{
	if (d->config->data_path == CONFIG_DATA_PATH_RELAY && !d->dp)
		doctor_say(d, DOCTOR_SKIP, "feature", "not needed: dataPath is relay");
	else if (geteuid() || doctor_is_blind(d))
		doctor_say(d, DOCTOR_SKIP, "feature", "takes root to see");
	else if (d->dp)
		check_in_force(d);
	else
		check_kernels(d);
}

void doctor_check_host(struct doctor *d)
{
	check_kernel(d);
	check_cgroup(d);
	check_bpffs(d);
	check_features(d);
}
