/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finds the other programs that see, or may change, the connects that KubeLB balances. With
 * BPF_F_ALLOW_MULTI all of them run: those of the socket's own cgroup first, then those of each
 * cgroup above it, and in one cgroup in the order in which they were attached
 * (kernel/bpf/cgroup.c, compute_effective_progs). The last one that rewrites the address decides.
 */
#include "datapath/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/array.h"

static const struct {
	__u32 hook;
	const char *name;
} hooks[] = {
	{ BPF_CGROUP_INET4_CONNECT, "connect4" },
	{ BPF_CGROUP_INET6_CONNECT, "connect6" },
	{ BPF_CGROUP_INET4_GETPEERNAME, "getpeername4" },
	{ BPF_CGROUP_INET6_GETPEERNAME, "getpeername6" },
};

/* More than a cgroup can have (BPF_CGROUP_MAX_PROGS, include/linux/bpf-cgroup-defs.h). */
#define PROGS_MAX 64

struct search {
	const struct datapath_link *links;
	int n_links;
	struct datapath_other *at;
	unsigned int n, max;
};

const char *datapath_hook_name(__u32 hook)
{
	for (size_t i = 0; i < ARRAY_SIZE(hooks); i++)
		if (hooks[i].hook == hook)
			return hooks[i].name;
	return "?";
}

static bool is_own(const struct search *s, __u32 id)
{
	for (int i = 0; i < s->n_links; i++)
		if (s->links[i].prog_id == id)
			return true;
	return false;
}

static bool is_known(const struct search *s, __u32 hook, __u32 id)
{
	for (unsigned int i = 0; i < s->n; i++)
		if (s->at[i].hook == hook && s->at[i].prog_id == id)
			return true;
	return false;
}

static void add(struct search *s, __u32 hook, __u32 id, bool before, const char *cgroup)
{
	struct bpf_prog_info info;
	struct datapath_other *o;

	if (s->n >= s->max || is_own(s, id) || is_known(s, hook, id))
		return;
	o = &s->at[s->n++];
	*o = (struct datapath_other){ .hook = hook, .prog_id = id, .before = before };
	snprintf(o->cgroup, sizeof(o->cgroup), "%s", cgroup);
	if (link_prog_info(id, &info))
		return;
	snprintf(o->name, sizeof(o->name), "%s", info.name);
	memcpy(o->tag, info.tag, sizeof(o->tag));
	o->kubelb = is_our_name(info.name);
}

/* The programs that the kernel runs for the cgroup itself, in that order. */
static int find_effective(struct search *s, int fd, __u32 hook)
{
	__u32 ids[PROGS_MAX], n = PROGS_MAX, flags = 0;
	bool before = true;

	/* EINVAL: the kernel does not know this hook, so nothing is attached to it. */
	if (bpf_prog_query(fd, (enum bpf_attach_type)hook, BPF_F_QUERY_EFFECTIVE, &flags, ids, &n))
		return errno == EPERM ? -EPERM : 0;
	for (__u32 i = 0; i < n; i++) {
		if (is_own(s, ids[i]))
			before = false;
		else
			add(s, hook, ids[i], before, "");
	}
	return 0;
}

/* What is attached to a cgroup below. */
static void find_attached(void *arg, const char *dir)
{
	struct search *s = arg;
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	for (size_t h = 0; fd >= 0 && h < ARRAY_SIZE(hooks); h++) {
		__u32 ids[PROGS_MAX], n = PROGS_MAX, flags = 0;

		if (bpf_prog_query(fd, (enum bpf_attach_type)hooks[h].hook, 0, &flags, ids, &n))
			continue;
		for (__u32 i = 0; i < n; i++)
			add(s, hooks[h].hook, ids[i], true, dir);
	}
	if (fd >= 0)
		close(fd);
}

/* The cgroups that the links are on: one, but while a load moves them. */
static bool is_first_of_cgroup(const struct datapath_link *links, int i)
{
	for (int j = 0; j < i; j++)
		if (links[j].cgroup_id == links[i].cgroup_id)
			return false;
	return links[i].cgroup_id != 0;
}

static int find_in_cgroup(struct search *s, __u64 id, bool below)
{
	int r = 0, fd = cgroup_open_id(id);
	char dir[PATH_TEXT_MAX];

	if (fd < 0)
		return fd == -EPERM ? fd : 0;
	for (size_t h = 0; !r && h < ARRAY_SIZE(hooks); h++)
		r = find_effective(s, fd, hooks[h].hook);
	close(fd);
	if (!r && below && cgroup_path_of(id, dir))
		cgroup_visit_below(dir, find_attached, s);
	return r;
}

int datapath_others(const struct datapath_link *links, int n_links, bool below,
		    struct datapath_other *ret, unsigned int max)
{
	struct search s = { links, n_links, ret, 0, max };
	int r = 0;

	for (int i = 0; !r && i < n_links; i++)
		if (is_first_of_cgroup(links, i))
			r = find_in_cgroup(&s, links[i].cgroup_id, below);
	return r ? r : (int)s.n;
}
