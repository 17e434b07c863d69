/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * refuse: runs a command for which the kernel refuses some of what bpf(2) can do, and the
 * rest works.
 *
 *   refuse WHAT... -- COMMAND [ARG...]
 *
 *   prog=TYPE[/ATTACH]   BPF_PROG_LOAD of that program type (and expected attach type)
 *   link=ATTACH          BPF_LINK_CREATE of that attach type
 *   map=TYPE             BPF_MAP_CREATE of that map type
 *   kfunc                BPF_PROG_LOAD of what calls the kernel's own functions, as without
 *                        the JIT compiler (kernel/bpf/verifier.c, "JIT is required for calling
 *                        kernel function")
 *   atomics              BPF_PROG_LOAD of atomic operations that return something, as before
 *                        Linux 5.12
 *   get                  BPF_OBJ_GET, the opening of a pin
 *   get=TEXT             the same of pins whose path contains TEXT
 *   info                 BPF_OBJ_GET_INFO_BY_FD
 *   by-id                BPF_PROG_GET_FD_BY_ID and BPF_MAP_GET_FD_BY_ID
 *   sock_diag            socket(2) of NETLINK_SOCK_DIAG
 *   repair               setsockopt(2) of TCP_REPAIR
 *   tcp4                 socket(2) of IPv4 and TCP
 *   errno=N              what is answered from here on; 1 (EPERM) to begin with
 *
 * A seccomp filter cannot look behind pointers, so it asks this process (seccomp_unotify(2)).
 * Exit status: the command's, or 125.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define RULES_MAX 16
#define INSNS_MAX 65536
#define KERNEL_ENOTSUPP 524 /* include/linux/errno.h; errno(3) has no name for it */
#define ANY (-1)

enum kind {
	KIND_PROG,
	KIND_LINK,
	KIND_MAP,
	KIND_KFUNC,
	KIND_ATOMICS,
	KIND_GET,
	KIND_INFO,
	KIND_BY_ID,
	KIND_SOCK_DIAG,
	KIND_REPAIR,
	KIND_TCP4
};

struct rule {
	enum kind kind;
	int type, attach, code;
	const char *text;
};

static struct rule rules[RULES_MAX];
static int n_rules;

static void die(const char *what)
{
	fprintf(stderr, "refuse: %s: %s\n", what, strerror(errno));
	exit(125);
}

/* --- what is refused --------------------------------------------------------------------- */

static void add_rule(const char *word, int code)
{
	struct rule r = { .type = ANY, .attach = ANY, .code = code };

	if (sscanf(word, "prog=%d/%d", &r.type, &r.attach) >= 1)
		r.kind = KIND_PROG;
	else if (sscanf(word, "link=%d", &r.attach) == 1)
		r.kind = KIND_LINK;
	else if (sscanf(word, "map=%d", &r.type) == 1)
		r.kind = KIND_MAP;
	else if (!strcmp(word, "kfunc"))
		r = (struct rule){ KIND_KFUNC, ANY, ANY, KERNEL_ENOTSUPP, "" };
	else if (!strcmp(word, "atomics"))
		r = (struct rule){ KIND_ATOMICS, ANY, ANY, EINVAL, "" };
	else if (!strcmp(word, "get") || !strncmp(word, "get=", 4))
		r = (struct rule){ KIND_GET, ANY, ANY, code, word[3] ? word + 4 : "" };
	else if (!strcmp(word, "info"))
		r.kind = KIND_INFO;
	else if (!strcmp(word, "by-id"))
		r.kind = KIND_BY_ID;
	else if (!strcmp(word, "sock_diag"))
		r.kind = KIND_SOCK_DIAG;
	else if (!strcmp(word, "repair"))
		r.kind = KIND_REPAIR;
	else if (!strcmp(word, "tcp4"))
		r.kind = KIND_TCP4;
	else {
		errno = EINVAL;
		die(word);
	}
	if (n_rules == RULES_MAX) {
		errno = E2BIG;
		die(word);
	}
	rules[n_rules++] = r;
}

/* What is behind a pointer of the process; zeroes where it is shorter. */
static void peek(pid_t pid, __u64 at, void *ret, size_t size)
{
	struct iovec local = { ret, size };
	struct iovec remote = { (void *)(unsigned long)at, size };

	memset(ret, 0, size);
	if (process_vm_readv(pid, &local, 1, &remote, 1, 0) < 0)
		die("process_vm_readv");
}

static bool is_kfunc_call(const struct bpf_insn *i)
{
	return i->code == (BPF_JMP | BPF_CALL) && i->src_reg == BPF_PSEUDO_KFUNC_CALL;
}

static bool is_fetching_atomic(const struct bpf_insn *i)
{
	return BPF_CLASS(i->code) == BPF_STX && (i->code & 0xe0) == 0xc0 && i->imm & BPF_FETCH;
}

static bool contains(pid_t pid, const union bpf_attr *attr, bool (*is)(const struct bpf_insn *))
{
	static struct bpf_insn insns[INSNS_MAX];
	__u32 n = attr->insn_cnt < INSNS_MAX ? attr->insn_cnt : INSNS_MAX;

	peek(pid, attr->insns, insns, n * sizeof(*insns));
	for (__u32 i = 0; i < n; i++)
		if (is(&insns[i]))
			return true;
	return false;
}

static bool names(pid_t pid, const union bpf_attr *attr, const char *text)
{
	char path[256];

	/* The path may lie at the end of a page: what is behind it may not be there. */
	if (!*text)
		return true;
	peek(pid, attr->pathname, path, sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	return strstr(path, text) != NULL;
}

static bool matches(const struct rule *r, pid_t pid, __u64 command, const union bpf_attr *attr)
{
	switch (r->kind) {
	case KIND_PROG:
		return command == BPF_PROG_LOAD && (int)attr->prog_type == r->type &&
		       (r->attach == ANY || (int)attr->expected_attach_type == r->attach);
	case KIND_LINK:
		return command == BPF_LINK_CREATE &&
		       (int)attr->link_create.attach_type == r->attach;
	case KIND_MAP:
		return command == BPF_MAP_CREATE && (int)attr->map_type == r->type;
	case KIND_KFUNC:
		return command == BPF_PROG_LOAD && contains(pid, attr, is_kfunc_call);
	case KIND_ATOMICS:
		return command == BPF_PROG_LOAD && contains(pid, attr, is_fetching_atomic);
	case KIND_GET:
		return command == BPF_OBJ_GET && names(pid, attr, r->text);
	case KIND_INFO:
		return command == BPF_OBJ_GET_INFO_BY_FD;
	case KIND_BY_ID:
		return command == BPF_PROG_GET_FD_BY_ID || command == BPF_MAP_GET_FD_BY_ID;
	default:
		return false;
	}
}

static int judge_bpf(pid_t pid, const struct seccomp_data *call)
{
	union bpf_attr attr;
	size_t size = call->args[2] < sizeof(attr) ? call->args[2] : sizeof(attr);

	memset(&attr, 0, sizeof(attr));
	peek(pid, call->args[1], &attr, size);
	for (int i = 0; i < n_rules; i++)
		if (matches(&rules[i], pid, call->args[0], &attr))
			return rules[i].code;
	return 0;
}

static bool is_call_of(enum kind kind, const struct seccomp_data *call)
{
	if (kind == KIND_SOCK_DIAG)
		return call->nr == SYS_socket && call->args[0] == AF_NETLINK &&
		       call->args[2] == NETLINK_SOCK_DIAG;
	if (kind == KIND_TCP4)
		return call->nr == SYS_socket && call->args[0] == AF_INET &&
		       ((int)call->args[1] & ~(SOCK_CLOEXEC | SOCK_NONBLOCK)) == SOCK_STREAM;
	return kind == KIND_REPAIR && call->nr == SYS_setsockopt && call->args[1] == IPPROTO_TCP &&
	       call->args[2] == TCP_REPAIR;
}

static int judge(pid_t pid, const struct seccomp_data *call)
{
	if (call->nr == SYS_bpf)
		return judge_bpf(pid, call);
	for (int i = 0; i < n_rules; i++)
		if (is_call_of(rules[i].kind, call))
			return rules[i].code;
	return 0;
}

/* --- the filter ----------------------------------------------------------------------------- */

static int install_filter(void)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bpf, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setsockopt, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = { sizeof(f) / sizeof(f[0]), f };
	int fd = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
			      SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);

	if (fd < 0)
		die("seccomp");
	return fd;
}

static void send_fd(int to, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	if (sendmsg(to, &m, 0) < 0)
		die("sendmsg");
}

static int receive_fd(int from)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = sizeof(control) };
	int fd;

	if (recvmsg(from, &m, MSG_CMSG_CLOEXEC) <= 0 || !CMSG_FIRSTHDR(&m))
		die("recvmsg");
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
	return fd;
}

/* Until the last process with the filter has ended. */
static void supervise(int listener)
{
	struct pollfd p = { .fd = listener, .events = POLLIN };

	while (poll(&p, 1, -1) >= 0 || errno == EINTR) {
		struct seccomp_notif in = { 0 };
		struct seccomp_notif_resp out = { 0 };

		if (!(p.revents & POLLIN))
			return;
		/* Ended meanwhile. */
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &in))
			continue;
		out.id = in.id;
		out.error = -judge((pid_t)in.pid, &in.data);
		if (!out.error)
			out.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &out);
	}
}

static void become(char **command, int to)
{
	int listener;

	/* As root no_new_privs is not needed, and would be seen by what is tested. */
	listener = install_filter();
	send_fd(to, listener);
	close(listener);
	close(to);
	execvp(command[0], command);
	die(command[0]);
}

int main(int argc, char **argv)
{
	int ends[2], i, code = EPERM, status;
	pid_t child;

	for (i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (sscanf(argv[i], "errno=%d", &code) != 1)
			add_rule(argv[i], code);
	if (i + 1 >= argc) {
		fputs("usage: refuse WHAT... -- COMMAND [ARG...]\n", stderr);
		return 125;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		die("socketpair");
	child = fork();
	if (child < 0)
		die("fork");
	if (!child) {
		/* Whoever ends this process means the command. */
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		close(ends[0]);
		become(&argv[i + 1], ends[1]);
	}
	close(ends[1]);
	supervise(receive_fd(ends[0]));
	if (waitpid(child, &status, 0) < 0)
		die("waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
