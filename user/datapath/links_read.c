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
 * runs. A link to a removed cgroup still exists and is pinned, but runs nothing.
 */
static void read_effect(struct datapath_link *link)
{
	__u32 ids[64], count = 64, flags = 0;
	int fd = cgroup_open_id(link->cgroup_id);

	link->effective = false;
	link->hidden = fd == -EPERM;
	if (fd < 0)
		return;
	if (!bpf_prog_query(fd, (enum bpf_attach_type)link->hook, BPF_F_QUERY_EFFECTIVE, &flags,
			    ids, &count))
		for (__u32 i = 0; i < count && !link->effective; i++)
			link->effective = ids[i] == link->prog_id;
	else
		link->hidden = errno == EPERM;
	close(fd);
}

void datapath_links_refresh(struct datapath_link *links, int n)
{
	for (int i = 0; i < n; i++)
		if (links[i].cgroup_id)
			read_effect(&links[i]);
}

/* Returns false for something else than a link of kubelb. */
static bool read_link(int fd, const char *name, struct datapath_link *ret)
{
	struct bpf_link_info info;
	int r = link_check(fd, &info);

	if (r && r != -EPERM)
		return false;
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
	if (info.cgroup.cgroup_id)
		read_effect(ret);
	return true;
}

int datapath_links(const char *pin_dir, struct datapath_link *ret, unsigned int max, struct err *e)
{
	char dir[PATH_TEXT_MAX], path[PATH_TEXT_MAX];
	struct dirent *d;
	unsigned int n = 0;
	DIR *handle;
	int r = links_open_dir(pin_dir, dir, &handle, e);

	if (r)
		return r;
	while (n < max && (d = readdir(handle))) {
		int fd;

		if (d->d_name[0] == '.' || path_join(path, dir, d->d_name, e))
			continue;
		fd = bpf_obj_get(path);
		if (fd < 0)
			continue;
		n += read_link(fd, d->d_name, &ret[n]);
		close(fd);
	}
	closedir(handle);
	return (int)n;
}
