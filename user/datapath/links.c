/* SPDX-License-Identifier: BSD-2-Clause */
/* The attachments: one bpf link for each program, pinned under links/. */
#include "datapath/internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int link_prog_info(__u32 id, struct bpf_prog_info *ret)
{
	int fd = bpf_prog_get_fd_by_id(id);
	int r;

	if (fd < 0)
		return -errno;
	r = bpf_info(fd, ret, sizeof(*ret));
	close(fd);
	return r;
}

int is_ours(int r, const char *name)
{
	if (r == -EPERM || r == -EACCES)
		return -EPERM;
	if (err_is_shortage(-r))
		return r;
	return !r && is_our_name(name) ? 0 : -EEXIST;
}

int link_check(int fd, struct bpf_link_info *ret_info)
{
	struct bpf_prog_info prog = { .name = "" };
	int r = bpf_info(fd, ret_info, sizeof(*ret_info));

	if (!r && ret_info->type == BPF_LINK_TYPE_CGROUP)
		r = link_prog_info(ret_info->prog_id, &prog);
	return is_ours(r, prog.name);
}

int link_error(const char *path, int code, struct err *e)
{
	if (code != EEXIST)
		return err_set(e, code, "%s: cannot be looked at: %s", path, bpf_errno_hint(code));
	return err_set(e, EEXIST,
		       "%s: not a link of kubelb's; move it away, or use another directory with "
		       "--pin",
		       path);
}

/*
 * A link whose cgroup was removed still exists and is still pinned, but runs nothing; its cgroup id
 * is 0. It counts as no link.
 */
static int open_link(const char *links_dir, unsigned long long cgroup_id, struct link_slot *s,
		     struct err *e)
{
	struct bpf_link_info info;
	char path[PATH_TEXT_MAX];
	int fd, r;

	r = path_join(path, links_dir, s->name, e);
	if (r)
		return r;
	fd = pin_open(path, "link", e);
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	r = link_check(fd, &info);
	if (r) {
		close(fd);
		return link_error(path, -r, e);
	}
	if (info.cgroup.cgroup_id != cgroup_id) {
		close(fd);
		return 0;
	}
	s->link_fd = fd;
	s->old_prog_fd = bpf_prog_get_fd_by_id(info.prog_id);
	/* Without it there would be no way back. */
	return s->old_prog_fd < 0 ? link_error(path, errno, e) : 0;
}

/* Opens the map of that name if the program uses it; -ENOENT, or the errno of a shortage. */
static int map_of_prog(int prog_fd, const char *name, struct bpf_map_info *ret_info)
{
	__u32 ids[MAP_COUNT + 8], length = sizeof(struct bpf_prog_info);
	struct bpf_prog_info prog = { .map_ids = (__u64)(unsigned long)ids,
				      .nr_map_ids = MAP_COUNT + 8 };
	int found = -ENOENT;

	if (bpf_obj_get_info_by_fd(prog_fd, &prog, &length))
		prog.nr_map_ids = 0;
	for (__u32 i = 0; i < prog.nr_map_ids && i < MAP_COUNT + 8 && found < 0; i++) {
		int fd = bpf_map_get_fd_by_id(ids[i]);

		if (fd < 0 && err_is_shortage(errno))
			return -errno;
		if (fd >= 0 && !bpf_info(fd, ret_info, sizeof(*ret_info)) &&
		    !strcmp(ret_info->name, name))
			found = fd;
		else if (fd >= 0)
			close(fd);
	}
	return found;
}

int links_old_memory(const struct link_slot *slot)
{
	struct bpf_map_info info;
	int fd;

	if (slot->old_prog_fd < 0)
		return -ENOENT;
	fd = map_of_prog(slot->old_prog_fd, "kubelb.bss", &info);
	/* Another version's memory may have another size; listens_known is always first. */
	if (fd >= 0 && info.value_size < sizeof(__u32)) {
		close(fd);
		return -ENOENT;
	}
	return fd;
}

/* Opens the pinned link connect4, as pin_open. */
static int open_connect4(const char *pin_dir)
{
	char path[PATH_TEXT_MAX];
	int r = path_join(path, pin_dir, "links/connect4", NULL);

	return r ? r : pin_open(path, "link", NULL);
}

/* map: by its name in the kernel. As links_live_map. */
static int live_map(const char *pin_dir, const char *map, struct bpf_map_info *ret_info)
{
	int r, prog_fd, found = -ENOENT, fd = open_connect4(pin_dir);
	struct bpf_link_info info;

	if (fd < 0)
		return fd == -EPERM || err_is_shortage(-fd) ? fd : -ENOENT;
	r = link_check(fd, &info);
	prog_fd = r ? r : bpf_prog_get_fd_by_id(info.prog_id);
	if (!r && prog_fd < 0)
		r = -errno;
	if (prog_fd >= 0) {
		found = map_of_prog(prog_fd, map, ret_info);
		close(prog_fd);
	} else if (r == -EPERM || err_is_shortage(-r)) {
		found = r;
	}
	close(fd);
	return found;
}

/*
 * The connect programs use all maps but `frontends` and `backends`, which no program reads.
 */
int links_live_map(const char *pin_dir, const char *name, struct bpf_map_info *ret_info)
{
	char map[BPF_OBJ_NAME_LEN];

	snprintf(map, sizeof(map), "klb_%s", name);
	return live_map(pin_dir, map, ret_info);
}

int links_live_constants(const char *pin_dir, struct bpf_map_info *ret_info)
{
	return live_map(pin_dir, "kubelb.rodata", ret_info);
}

__u32 links_connect4_prog(const char *pin_dir)
{
	struct bpf_link_info info;
	int fd = open_connect4(pin_dir);
	__u32 id = 0;

	if (fd < 0)
		return 0;
	if (!bpf_info(fd, &info, sizeof(info)) && info.type == BPF_LINK_TYPE_CGROUP)
		id = info.prog_id;
	close(fd);
	return id;
}

int links_open(const char *pin_dir, unsigned long long cgroup_id, struct link_slot *slots,
	       unsigned int n, struct err *e)
{
	char dir[PATH_TEXT_MAX];
	int r = path_join(dir, pin_dir, "links", e);

	for (unsigned int i = 0; !r && i < n; i++)
		r = open_link(dir, cgroup_id, &slots[i], e);
	return r;
}

/*
 * EPERM on attach, although other attachments work, means that somebody has attached a program of
 * the same kind exclusively (without BPF_F_ALLOW_MULTI), here or above. Name that program. Never
 * replace it.
 */
static void describe_exclusive(int cgroup_fd, enum bpf_attach_type type, char *ret, size_t size)
{
	__u32 ids[16], count = 16, flags = 0;
	struct bpf_prog_info prog;

	snprintf(ret, size, "a program attached exclusively to it or above it");
	if (bpf_prog_query(cgroup_fd, type, 0, &flags, ids, &count) || !count)
		return;
	if (flags & BPF_F_ALLOW_MULTI || link_prog_info(ids[0], &prog))
		return;
	snprintf(ret, size, "program '%s' (id %u), which is attached exclusively", prog.name,
		 ids[0]);
}

static int attach_error(const char *cgroup, int cgroup_fd, const struct link_slot *s, int code,
			struct err *e)
{
	char who[160];

	if (code != EPERM || geteuid())
		return err_set(e, code, "cgroup %s: cannot attach %s: %s", cgroup, s->name,
			       bpf_errno_hint(code));
	describe_exclusive(cgroup_fd, bpf_program__expected_attach_type(s->prog), who, sizeof(who));
	return err_set(e, EPERM,
		       "cgroup %s: cannot attach %s beside %s; detach that program or attach it "
		       "with multi (bpftool cgroup attach … multi)",
		       cgroup, s->name, who);
}

static int attach_one(const char *cgroup, int cgroup_fd, struct link_slot *s, struct err *e)
{
	int prog_fd = bpf_program__fd(s->prog);

	if (s->link_fd >= 0) {
		if (!bpf_link_update(s->link_fd, prog_fd, NULL)) {
			s->replaced = true;
			return 0;
		}
		/* ENOLINK: the cgroup was removed after it was opened. */
		if (errno != ENOLINK)
			return attach_error(cgroup, cgroup_fd, s, errno, e);
		close(s->link_fd);
		s->link_fd = -1;
	}
	s->link_fd = bpf_link_create(prog_fd, cgroup_fd, bpf_program__expected_attach_type(s->prog),
				     NULL);
	if (s->link_fd < 0)
		return attach_error(cgroup, cgroup_fd, s, errno, e);
	return 0;
}

int links_attach(const char *cgroup, int cgroup_fd, struct link_slot *slots, unsigned int n,
		 struct err *e)
{
	for (unsigned int i = 0; i < n; i++) {
		int r = attach_one(cgroup, cgroup_fd, &slots[i], e);

		if (r) {
			links_rollback(slots, n);
			return r;
		}
	}
	return 0;
}

/* New links go with their descriptors, because they are not pinned yet. */
void links_rollback(struct link_slot *slots, unsigned int n)
{
	/*
	 * In reverse order: the new sockops goes last, because it counts the sockets of the new
	 * connect programs and sees them end.
	 */
	for (unsigned int i = n; i-- > 0;) {
		if (slots[i].replaced && slots[i].old_prog_fd >= 0)
			bpf_link_update(slots[i].link_fd, slots[i].old_prog_fd, NULL);
		slots[i].replaced = false;
	}
}

void links_close(struct link_slot *slots, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		if (slots[i].link_fd >= 0)
			close(slots[i].link_fd);
		if (slots[i].old_prog_fd >= 0)
			close(slots[i].old_prog_fd);
	}
}

int links_open_dir(const char *pin_dir, char *dir, DIR **ret, struct err *e)
{
	int r = path_join(dir, pin_dir, "links", e);

	if (r)
		return r;
	*ret = opendir(dir);
	return *ret ? 0 : err_set(e, errno, "%s: %s", dir, err_reason(errno));
}
