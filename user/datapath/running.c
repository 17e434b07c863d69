/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finds the programs of KubeLB that run without looking at the pin directory: on the cgroups
 * themselves, and then what keeps them there. An attachment may be forgotten below another pin
 * directory, its pins may be hidden under another mount, or a process may hold its links.
 */
#include "datapath/internal.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/array.h"
#include "base/file.h"

static const enum bpf_attach_type hooks[] = {
	BPF_CGROUP_INET4_CONNECT,     BPF_CGROUP_INET6_CONNECT, BPF_CGROUP_INET4_GETPEERNAME,
	BPF_CGROUP_INET6_GETPEERNAME, BPF_CGROUP_SOCK_OPS,
};

/* A bpffs of a busy node (Cilium, say) has some hundreds of pins. */
#define PINS_MAX 10000
/*
 * Of one process, the lowest first. Who holds links opens few other descriptors before; a server's
 * hundred thousand connections would take many seconds.
 */
#define DESCRIPTORS_MAX 2048

struct search {
	struct datapath_running *at;
	unsigned int n, max;
};

/* --- what runs --- */

static void add(struct search *s, __u32 id, const char *cgroup)
{
	struct datapath_running *p;
	struct bpf_prog_info info;

	if (s->n >= s->max || link_prog_info(id, &info) || !is_our_name(info.name))
		return;
	p = &s->at[s->n++];
	*p = (struct datapath_running){ .prog_id = id };
	snprintf(p->name, sizeof(p->name), "%s", info.name);
	snprintf(p->cgroup, sizeof(p->cgroup), "%s", cgroup);
}

static void visit_cgroup(void *arg, const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	for (size_t h = 0; fd >= 0 && h < ARRAY_SIZE(hooks); h++) {
		__u32 ids[64], n = 64, flags = 0;

		if (bpf_prog_query(fd, hooks[h], 0, &flags, ids, &n))
			continue;
		for (__u32 i = 0; i < n; i++)
			add(arg, ids[i], dir);
	}
	if (fd >= 0)
		close(fd);
}

/* --- what keeps it --- */

static void note_pin(struct search *s, const char *path)
{
	int fd = bpf_obj_get(path);
	struct bpf_link_info info;

	if (fd < 0)
		return;
	if (!link_check(fd, &info))
		for (unsigned int i = 0; i < s->n; i++)
			if (s->at[i].prog_id == info.prog_id)
				snprintf(s->at[i].pin, sizeof(s->at[i].pin), "%s", path);
	close(fd);
}

static void visit_bpffs(void *arg, char *point)
{
	char *const roots[] = { point, NULL };
	FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_XDEV, NULL);
	unsigned int seen = 0;
	FTSENT *entry;

	while (tree && (entry = fts_read(tree)) && seen++ < PINS_MAX)
		/* A pin is a regular file. Only one of KubeLB's names is worth opening. */
		if (entry->fts_info == FTS_F && strstr(entry->fts_path, "/links/"))
			note_pin(arg, entry->fts_path);
	if (tree)
		fts_close(tree);
}

static bool has_keeper(const struct datapath_running *p)
{
	return p->pin[0] || p->process[0];
}

static bool all_have_keepers(const struct search *s)
{
	for (unsigned int i = 0; i < s->n; i++)
		if (!has_keeper(&s->at[i]))
			return false;
	return true;
}

/* One descriptor of a process: fdinfo of a link names its program (kernel/bpf/syscall.c). */
static void note_descriptor(struct search *s, const char *pid, const char *fd)
{
	char path[PATH_TEXT_MAX], value[64], comm[32];
	__u32 id;

	snprintf(path, sizeof(path), "/proc/%.16s/fdinfo/%.16s", pid, fd);
	if (!file_read_line(path, "link_type:", value, sizeof(value)) ||
	    !file_read_line(path, "prog_id:", value, sizeof(value)))
		return;
	id = (__u32)strtoul(value, NULL, 10);
	snprintf(path, sizeof(path), "/proc/%.16s/comm", pid);
	for (unsigned int i = 0; i < s->n; i++)
		if (s->at[i].prog_id == id && !has_keeper(&s->at[i]) &&
		    file_read_line(path, "", comm, sizeof(comm)))
			snprintf(s->at[i].process, sizeof(s->at[i].process), "%s (%.16s)", comm,
				 pid);
}

static void visit_process(struct search *s, const char *pid)
{
	char path[PATH_TEXT_MAX], kind[64];
	unsigned int seen = 0;
	struct dirent *d;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
	dir = opendir(path);
	while (dir && (d = readdir(dir)) && seen++ < DESCRIPTORS_MAX) {
		ssize_t n = readlinkat(dirfd(dir), d->d_name, kind, sizeof(kind) - 1);

		kind[n > 0 ? n : 0] = '\0';
		if (strstr(kind, "bpf_link") || strstr(kind, "bpf-link"))
			note_descriptor(s, pid, d->d_name);
	}
	if (dir)
		closedir(dir);
}

static void visit_processes(struct search *s)
{
	DIR *dir = opendir("/proc");
	struct dirent *d;

	while (dir && !all_have_keepers(s) && (d = readdir(dir)))
		if (isdigit((unsigned char)d->d_name[0]))
			visit_process(s, d->d_name);
	if (dir)
		closedir(dir);
}

unsigned int datapath_running(struct datapath_running *ret, unsigned int max)
{
	struct search s = { ret, 0, max };
	char root[PATH_TEXT_MAX];

	if (mounts_cgroup2_root(root, sizeof(root), NULL))
		return 0;
	visit_cgroup(&s, root);
	cgroup_visit_below(root, visit_cgroup, &s);
	if (s.n)
		mounts_each_bpffs(visit_bpffs, &s);
	visit_processes(&s);
	return s.n;
}
