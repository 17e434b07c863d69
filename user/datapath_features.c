/* SPDX-License-Identifier: BSD-2-Clause */
/* What this kernel can do, each with what it is needed for. */
#include "datapath_internal.h"

#include <bpf/btf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "node.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

#define BTF_PATH "/sys/kernel/btf/vmlinux"

/* Where the next feature goes. */
struct feature_list {
	struct datapath_feature *at;
	unsigned int n, max;
};

static void add(struct feature_list *list, const char *name, const char *purpose, bool required,
		bool present, const char *detail)
{
	struct datapath_feature *f;

	if (list->n >= list->max)
		return;
	f = &list->at[list->n++];
	f->name = name;
	f->purpose = purpose;
	f->required = required;
	f->present = present;
	snprintf(f->detail, sizeof(f->detail), "%s", detail);
}

/* Loads a program that only returns 1: a descriptor, or -1 with why not in detail. */
static int load_probe(enum bpf_prog_type type, enum bpf_attach_type attach, char *detail,
		      size_t size)
{
	const struct bpf_insn insns[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 1 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = attach);
	int fd = bpf_prog_load(type, "klb_probe", "GPL", insns, 2, &opts);

	detail[0] = '\0';
	if (fd >= 0)
		return fd;
	snprintf(detail, size, "%s", bpf_errno_hint(errno));
	return -1;
}

/* Does the kernel know the hook? */
static bool has_hook(enum bpf_prog_type type, enum bpf_attach_type attach, char *detail,
		     size_t size)
{
	int fd = load_probe(type, attach, detail, size);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static void add_hooks(struct feature_list *list)
{
	static const struct {
		const char *name, *purpose;
		enum bpf_prog_type type;
		enum bpf_attach_type attach;
	} hooks[] = {
		{ "cgroup/connect4", "send IPv4 connects to a backend (Linux 4.17)",
		  BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_CONNECT },
		{ "cgroup/connect6", "the same for IPv6 sockets (4.17)",
		  BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET6_CONNECT },
		{ "cgroup/getpeername4", "show clients the address that they dialled (5.8)",
		  BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_GETPEERNAME },
		{ "cgroup/getpeername6", "the same for IPv6 sockets (5.8)",
		  BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET6_GETPEERNAME },
		{ "sockops", "see what becomes of each balanced socket (4.13)",
		  BPF_PROG_TYPE_SOCK_OPS, BPF_CGROUP_SOCK_OPS },
	};
	char detail[160];

	for (size_t i = 0; i < sizeof(hooks) / sizeof(hooks[0]); i++) {
		bool present = has_hook(hooks[i].type, hooks[i].attach, detail, sizeof(detail));

		add(list, hooks[i].name, hooks[i].purpose, true, present, detail);
	}
}

/* libbpf's answer is yes, no or an error, and no where it may not ask. */
static const char *why_not(int r)
{
	if (r == 1)
		return "";
	return r < 0 ? bpf_errno_hint(-r) : "the kernel does not have it, or it is not permitted";
}

static void add_helpers(struct feature_list *list)
{
	static const struct {
		const char *name, *purpose;
		enum bpf_func_id id;
	} helpers[] = {
		{ "bpf_sk_storage_get", "a record on each socket (5.8)", BPF_FUNC_sk_storage_get },
		{ "bpf_skc_to_tcp_sock", "look at the socket that connects (5.9)",
		  BPF_FUNC_skc_to_tcp_sock },
		{ "bpf_sk_lookup_tcp", "leave a server that dials itself alone (5.0)",
		  BPF_FUNC_sk_lookup_tcp },
		{ "bpf_jiffies64", "tell the time without a call (5.6)", BPF_FUNC_jiffies64 },
	};

	for (size_t i = 0; i < sizeof(helpers) / sizeof(helpers[0]); i++) {
		int r = libbpf_probe_bpf_helper(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, helpers[i].id,
						NULL);

		add(list, helpers[i].name, helpers[i].purpose, true, r == 1, why_not(r));
	}
}

static void add_kinds(struct feature_list *list)
{
	int r = libbpf_probe_bpf_map_type(BPF_MAP_TYPE_RINGBUF, NULL);

	add(list, "BPF_MAP_TYPE_RINGBUF", "wake the agent when a connect fails (5.8)", true, r == 1,
	    why_not(r));
	r = libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SYSCALL, NULL);
	add(list, "BPF_PROG_TYPE_SYSCALL", "correct counts that the kernel is writing (5.14)", true,
	    r == 1, why_not(r));
}

/* The file may be there and be of no use. */
static const char *no_btf(void)
{
	return access(BTF_PATH, R_OK) ? "no " BTF_PATH : BTF_PATH " cannot be read";
}

/* An iterator is a function of the kernel's that nothing calls; its name is all there is. */
static void add_iterator(struct feature_list *list, const struct btf *btf)
{
	bool present = btf && btf__find_by_name_kind(btf, "bpf_iter_bpf_sk_storage_map",
						     BTF_KIND_FUNC) > 0;

	add(list, "iter/bpf_sk_storage_map", "list the balanced connections (5.9)", true, present,
	    btf ? "" : no_btf());
}

/*
 * "JIT is required for calling kernel function" (kernel/bpf/verifier.c), which the programs
 * do where they can (klb_has_casts, bpf/kernel.bpf.h). What became of a
 * program tells: the sysctl is not shown outside of the first network namespace, and does
 * not say everything.
 */
static void add_jit(struct feature_list *list)
{
	struct bpf_prog_info info = { 0 };
	__u32 length = sizeof(info);
	char detail[160];
	int fd = load_probe(BPF_PROG_TYPE_SOCK_OPS, BPF_CGROUP_SOCK_OPS, detail, sizeof(detail));

	if (fd >= 0) {
		if (bpf_obj_get_info_by_fd(fd, &info, &length))
			snprintf(detail, sizeof(detail), "%s", bpf_errno_hint(errno));
		else if (!info.jited_prog_len)
			snprintf(detail, sizeof(detail),
				 "programs are interpreted; sysctl net.core.bpf_jit_enable=1, or a "
				 "kernel with CONFIG_BPF_JIT");
		close(fd);
	}
	add(list, "JIT", "call the kernel's own functions (CONFIG_BPF_JIT; from Linux 6.2 on)",
	    node_kernel_is(6, 2), info.jited_prog_len > 0, detail);
}

static void add_btf(struct feature_list *list, const struct btf *btf)
{
	add(list, "BTF", "fit the programs to this kernel (CONFIG_DEBUG_INFO_BTF, 5.4)", true,
	    btf != NULL, btf ? BTF_PATH : no_btf());
}

static void add_netns_cookie(struct feature_list *list)
{
	unsigned long long cookie;
	socklen_t length = sizeof(cookie);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool present = fd >= 0 && !getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length);

	add(list, "SO_NETNS_COOKIE", "name the host's network namespace (5.14)", true, present,
	    present ? "" : strerror(errno));
	if (fd >= 0)
		close(fd);
}

static void add_mounts(struct feature_list *list, const char *pin_dir, const char *cgroup)
{
	char root[PATH_TEXT_MAX] = "";
	unsigned long long id = 0;
	struct err e = { "" };
	int fd = -1, r = 0;

	if (cgroup)
		snprintf(root, sizeof(root), "%s", cgroup);
	else
		r = mounts_cgroup2_root(root, sizeof(root), &e);
	if (!r)
		fd = mounts_open_cgroup(root, &id, &e);
	if (fd >= 0 && !cgroup && id != 1)
		err_set(&e, EINVAL, "%.100s is a container's view, not the host's root", root);
	add(list, "cgroup2", "attach for every process of the host", true,
	    fd >= 0 && (cgroup || id == 1), e.text[0] ? e.text : root);
	if (fd >= 0)
		close(fd);
	add(list, "bpffs", "keep programs and maps without a process (pins)", false,
	    mounts_is_bpffs("/sys/fs/bpf") || mounts_is_bpffs(pin_dir),
	    mounts_is_bpffs("/sys/fs/bpf") ? "/sys/fs/bpf" : "not mounted; kubelb-load mounts it");
}

/* Silent, so that a probe's expected failures do not look like ours. */
static int print_nothing(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

unsigned int datapath_features(const char *pin_dir, const char *cgroup,
			       struct datapath_feature *ret, unsigned int max)
{
	struct feature_list list = { ret, 0, max };
	libbpf_print_fn_t before = libbpf_set_print(print_nothing);
	/* libbpf would also find that of a file in /boot, which tells nothing. */
	struct btf *btf = btf__parse_raw(BTF_PATH);

	add_btf(&list, btf);
	add_mounts(&list, pin_dir, cgroup);
	add_netns_cookie(&list);
	add_hooks(&list);
	add_helpers(&list);
	add_kinds(&list);
	add_iterator(&list, btf);
	add_jit(&list);
	btf__free(btf);
	libbpf_set_print(before);
	return list.n;
}
