/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finds out what this kernel can do. It tries everything for real: it loads the programs and maps
 * of this build, and attaches them for an instant.
 */
#include "datapath/object.h"

#include <bpf/btf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "net/reset.h"
#include "net/sock_diag.h"

#define BTF_PATH "/sys/kernel/btf/vmlinux"

/* The optional features: first those of enum klb_feature, then those without a program. */
enum optional {
	OPTIONAL_CONNECTIONS = KLB_FEATURE_CASTS + 1,
	OPTIONAL_DESTROY,
	OPTIONAL_RESET,
	OPTIONAL_COUNT,
};

static const struct {
	const char *name, *purpose, *loss;
} optionals[OPTIONAL_COUNT] = {
	[KLB_FEATURE_GETPEERNAME] = { "getpeername",
				      "show clients the address that they dialled (Linux 5.8)",
				      "clients see the apiserver's address as their peer" },
	[KLB_FEATURE_SOCKOPS] = { "sockops", "see what becomes of each balanced connect (4.13)",
				  "connections are not counted (least-conn chooses at random) nor "
				  "listed, a failed connect ejects nothing, and connectTimeout and "
				  "deadPeerTimeout have no effect" },
	[KLB_FEATURE_WAKEUP] = { "wakeup", "wake the agent when a connect fails (5.8)",
				 "the agent hears of a failed connect up to a second later" },
	[KLB_FEATURE_ADJUST] = { "adjust", "correct counts that the kernel is writing (5.14)",
				 "a count of connections that has gone wrong stays wrong" },
	[KLB_FEATURE_CASTS] = { "casts",
				"spare each connect some calls (6.2, CONFIG_BPF_JIT and sysctl "
				"net.core.bpf_jit_enable=1)",
				"each connect costs a tenth of a microsecond more" },
	[OPTIONAL_CONNECTIONS] = { "connections",
				   "list the balanced connections (CONFIG_INET_TCP_DIAG, 5.7)",
				   "connections are not listed, nor ended when their backend is "
				   "dead, and their counts are not checked" },
	[OPTIONAL_DESTROY] = { "destroy", "end connections (CONFIG_INET_DIAG_DESTROY, 4.5)",
			       "connections to a dead backend are not ended, `kubelbctl kill` and "
			       "rebalance do nothing: deadPeerTimeout has to do" },
	[OPTIONAL_RESET] = { "reset", "end them as their backend would (TCP_REPAIR, 4.19)",
			     "clients of a dead backend read ECONNABORTED, not ECONNRESET: "
			     "client-go lists everything anew" },
};

/* A list under construction. */
struct feature_list {
	struct datapath_feature *at;
	unsigned int n, max;
};

static struct datapath_feature *add(struct feature_list *list, const char *name,
				    const char *purpose, bool present, const char *detail)
{
	static struct datapath_feature discarded;
	struct datapath_feature *f = list->n < list->max ? &list->at[list->n++] : &discarded;

	*f = (struct datapath_feature){ .name = name, .purpose = purpose, .present = present };
	snprintf(f->detail, sizeof(f->detail), "%s", detail);
	return f;
}

static void add_required(struct feature_list *list, const char *name, const char *purpose,
			 bool present, const char *detail)
{
	add(list, name, purpose, present, detail)->required = true;
}

static void add_optional(struct feature_list *list, int which, bool present, const char *detail)
{
	struct datapath_feature *f = add(list, optionals[which].name, optionals[which].purpose,
					 present, present ? "" : detail);

	f->loss = optionals[which].loss;
	f->quiet = which == KLB_FEATURE_CASTS;
}

/* The text for an errno of the kernel. */
static const char *refusal_reason(int code)
{
	switch (code) {
	case ENOSYS:
		return "not in this kernel";
	case EINVAL:
		return "the kernel does not know it";
	case 524: /* ENOTSUPP, include/linux/errno.h; libc has no name for it */
		return "not supported: programs are interpreted, not compiled";
	default:
		return err_reason(code);
	}
}

/* --- required --- */

/* Returns why no program can be loaded without BTF, or NULL. The file may exist and be useless. */
static const char *add_btf(struct feature_list *list)
{
	/*
	 * Other functions of libbpf would also find the BTF of a file in /boot, which proves
	 * nothing.
	 */
	struct btf *btf = btf__parse_raw(BTF_PATH);
	const char *missing = NULL;

	if (!btf)
		missing = access(BTF_PATH, R_OK) ? "no " BTF_PATH : BTF_PATH " cannot be read";
	add_required(list, "BTF", "fit the programs to this kernel (CONFIG_DEBUG_INFO_BTF, 5.4)",
		     btf != NULL, missing ? missing : BTF_PATH);
	btf__free(btf);
	return missing;
}

/* Returns a descriptor of the cgroup directory, or -1. */
static int add_cgroup(struct feature_list *list, const char *cgroup)
{
	char root[PATH_TEXT_MAX] = "";
	unsigned long long id = 0;
	struct err e = { "" };
	int fd = -1, r = 0;
	bool usable;

	if (cgroup)
		snprintf(root, sizeof(root), "%s", cgroup);
	else
		r = mounts_cgroup2_root(root, sizeof(root), &e);
	if (!r)
		fd = mounts_open_cgroup(root, &id, &e);
	if (fd >= 0 && !cgroup && id != 1)
		err_set(&e, EINVAL, "%.100s is a container's view, not the host's root", root);
	usable = fd >= 0 && (cgroup || id == 1);
	add_required(list, "cgroup2", "attach for every process of the host", usable,
		     e.text[0] ? e.text : root);
	if (fd >= 0 && !usable) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static void add_bpffs(struct feature_list *list, const char *pin_dir)
{
	bool present = mounts_is_bpffs("/sys/fs/bpf") || mounts_is_bpffs(pin_dir);

	add(list, "bpffs", "keep programs and maps without a process (pins)", present,
	    mounts_is_bpffs("/sys/fs/bpf") ? "/sys/fs/bpf"
	    : present			   ? "at the pins"
					   : "not mounted; kubelb-load mounts it")
		->loss = "";
}

static void add_hook(struct feature_list *list, enum prog_index prog, const char *name,
		     const char *purpose, enum object_build build, int cgroup_fd,
		     const char *no_btf)
{
	int code = object_try_prog(build, prog, cgroup_fd);

	add_required(list, name, purpose, !code,
		     !code    ? ""
		     : no_btf ? no_btf
			      : bpf_errno_hint(code));
}

/* --- optional --- */

/* no_btf: why no program can be loaded, or NULL. */
static void add_program_features(struct feature_list *list, const __u16 *refused,
				 const char *no_btf)
{
	for (int f = 0; f <= KLB_FEATURE_CASTS; f++)
		add_optional(list, f, !refused[f] && !no_btf,
			     no_btf ? no_btf : refusal_reason(refused[f]));
}

/* map_fd: a map like `sockets`; -1: there is none. */
static void add_sock_diag(struct feature_list *list, int map_fd)
{
	struct sock_diag *diag = NULL;
	struct err e = { "" };
	int r = sock_diag_open(&diag, &e);

	if (!r && map_fd < 0)
		r = err_set(&e, ENOENT, "the map of the records cannot be made");
	if (!r)
		r = sock_diag_can_list(diag, map_fd, &e);
	add_optional(list, OPTIONAL_CONNECTIONS, !r, e.text);
	/* Without a diag socket the reason is the same for both. */
	if (diag) {
		e.text[0] = '\0';
		r = sock_diag_can_destroy(diag, &e);
	}
	add_optional(list, OPTIONAL_DESTROY, !r, e.text);
	e.text[0] = '\0';
	r = reset_can_send(&e);
	add_optional(list, OPTIONAL_RESET, !r, e.text);
	sock_diag_close(diag);
}

static int make_storage_map(void)
{
	/*
	 * Made from the object: the kernel checks the types of the map's values
	 * (bpf_local_storage_map_check_btf).
	 */
	struct object_request request;
	struct object o;
	int fd = -1;

	object_request_all(&request);
	memset(request.progs, 0, sizeof(request.progs));
	request.refused[KLB_FEATURE_WAKEUP] = ENOSYS;
	if (!object_open(&o, &request, NULL) && !bpf_object__load(o.object))
		fd = dup(bpf_map__fd(o.maps[MAP_SOCKETS]));
	object_close(&o);
	return fd;
}

unsigned int datapath_features(const char *pin_dir, const char *cgroup,
			       struct datapath_feature *ret, unsigned int max)
{
	libbpf_print_fn_t before = libbpf_set_print(object_print_nothing);
	struct feature_list list = { ret, 0, max };
	struct object_request request;
	const char *no_btf;
	int cgroup_fd, map_fd;

	object_request_all(&request);
	no_btf = add_btf(&list);
	cgroup_fd = add_cgroup(&list, cgroup);
	add_bpffs(&list, pin_dir);
	object_find_refused(cgroup_fd, NULL, &request, NULL);
	add_hook(&list, PROG_CONNECT4, "cgroup/connect4",
		 "send IPv4 connects to a backend (Linux 4.17)", request.build, cgroup_fd, no_btf);
	add_hook(&list, PROG_CONNECT6, "cgroup/connect6", "the same for IPv6 sockets (4.17)",
		 request.build, cgroup_fd, no_btf);
	add_program_features(&list, request.refused, no_btf);
	map_fd = make_storage_map();
	add_sock_diag(&list, map_fd);
	if (map_fd >= 0)
		close(map_fd);
	if (cgroup_fd >= 0)
		close(cgroup_fd);
	libbpf_set_print(before);
	return list.n;
}

unsigned int datapath_features_refused(const __u16 *refused, struct datapath_feature *ret,
				       unsigned int max)
{
	struct feature_list list = { ret, 0, max };

	add_program_features(&list, refused, NULL);
	return list.n;
}

unsigned int datapath_features_in_force(const struct datapath *dp, const struct klb_control *c,
					struct datapath_feature *ret, unsigned int max)
{
	struct feature_list list = { ret, 0, max };

	add_program_features(&list, c->refused, NULL);
	add_sock_diag(&list, dp->fds[MAP_SOCKETS]);
	return list.n;
}
