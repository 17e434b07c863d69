/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the pinned links, and whether the kernel runs their programs. */
#include "datapath/internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * A program is effective when it is in the effective list of its cgroup, which is what the kernel
 * runs. A link to a removed cgroup still exists and is pinned, but runs nothing. Returns 0, or a
 * negative errno with which the cgroup cannot be opened.
 */
static int read_effect(struct datapath_link *link)
{
	__u32 ids[64], count = 64, flags = 0;
	int fd = cgroup_open_id(link->cgroup_id);

	link->effective = false;
	link->hidden = fd == -EPERM;
	if (fd < 0)
		return fd;
	if (!bpf_prog_query(fd, (enum bpf_attach_type)link->hook, BPF_F_QUERY_EFFECTIVE, &flags,
			    ids, &count))
		for (__u32 i = 0; i < count && !link->effective; i++)
			link->effective = ids[i] == link->prog_id;
	else
		link->hidden = errno == EPERM;
	close(fd);
	return 0;
}

void datapath_links_refresh(struct datapath_link *links, int n)
{
	for (int i = 0; i < n; i++)
		if (links[i].cgroup_id)
			read_effect(&links[i]);
}

/*
 * Returns 1, 0 for something else than a link of kubelb, or the negative errno of a shortage, which
 * must not look as if the kernel ran nothing.
 */
static int read_link(int fd, const char *name, struct datapath_link *ret)
{
	struct bpf_link_info info;
	int r = link_check(fd, &info);

	if (r && r != -EPERM)
		return r == -EEXIST ? 0 : r;
	*ret = (struct datapath_link){ .prog_id = info.prog_id, .hidden = r == -EPERM };
	snprintf(ret->name, sizeof(ret->name), "%.31s", name);
	if (info.type != BPF_LINK_TYPE_CGROUP)
		return ret->hidden;
	ret->hidden = false;
	ret->hook = info.cgroup.attach_type;
	ret->cgroup_id = info.cgroup.cgroup_id;
	/*
	 * Without an id the cgroup does not exist any more, so the program does not run. No
	 * privileges are needed to see that.
	 */
	r = info.cgroup.cgroup_id ? read_effect(ret) : 0;
	return err_is_shortage(-r) ? r : 1;
}

static int read_pin(const char *dir, const char *name, struct datapath_link *ret, struct err *e)
{
	char path[PATH_TEXT_MAX];
	int fd, r = path_join(path, dir, name, e);

	if (r)
		return r;
	fd = pin_open(path, "link", e);
	if (fd < 0)
		return fd == -ENOENT || fd == -EEXIST ? 0 : fd;
	r = read_link(fd, name, ret);
	close(fd);
	return r < 0 ? link_error(path, -r, e) : r;
}

int datapath_links(const char *pin_dir, struct datapath_link *ret, unsigned int max, struct err *e)
{
	char dir[PATH_TEXT_MAX];
	struct dirent *d;
	unsigned int n = 0;
	DIR *handle;
	int r = links_open_dir(pin_dir, dir, &handle, e);

	if (r == -ENOENT)
		return err_set(e, ENOENT, "%s: nothing is attached; run kubelb-load", pin_dir);
	if (r)
		return r;
	while (r >= 0 && n < max && (d = readdir(handle)))
		if (d->d_name[0] != '.') {
			r = read_pin(dir, d->d_name, &ret[n], e);
			n += r > 0;
		}
	closedir(handle);
	return r < 0 ? r : (int)n;
}
