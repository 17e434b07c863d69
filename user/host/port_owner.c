/* SPDX-License-Identifier: BSD-2-Clause */
/* Finds who listens on an address: the kernel knows user and inode, and /proc leads to a process.
 */
#include "host/port_owner.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "net/sock_diag.h"

/* Whether the directory fd/ of a process has that socket. */
static bool holds(const char *pid, const char *want)
{
	char path[64], target[64];
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
	dir = opendir(path);
	while (dir && !found && (entry = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		target[n > 0 ? n : 0] = '\0';
		found = strcmp(target, want) == 0;
	}
	if (dir)
		closedir(dir);
	return found;
}

__u32 port_owner_process(const struct port_owner *who, char comm[PORT_OWNER_COMM_MAX])
{
	char want[32], path[64];
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	__u32 pid = 0;

	comm[0] = '\0';
	snprintf(want, sizeof(want), "socket:[%u]", who->inode);
	while (dir && !pid && (entry = readdir(dir))) {
		if (!isdigit((unsigned char)entry->d_name[0]) || !holds(entry->d_name, want))
			continue;
		snprintf(path, sizeof(path), "/proc/%.16s/comm", entry->d_name);
		if (!file_read_line(path, "", comm, PORT_OWNER_COMM_MAX))
			continue;
		/* Whoever made the process chose its name. */
		err_make_printable(comm);
		pid = (__u32)strtoul(entry->d_name, NULL, 10);
	}
	if (dir)
		closedir(dir);
	return pid;
}

bool port_owner_find(const struct klb_endpoint *at, struct port_owner *ret)
{
	struct sock_diag_listener who;
	struct sock_diag *d = NULL;
	int r = sock_diag_open(&d, NULL);

	if (!r)
		r = sock_diag_find_listener(d, at, &who);
	sock_diag_close(d);
	if (r)
		return false;
	*ret = (struct port_owner){ .uid = who.uid, .inode = who.inode };
	return true;
}

const char *port_owner_name(const struct port_owner *who, char buf[PORT_OWNER_MAX])
{
	char comm[PORT_OWNER_COMM_MAX];
	__u32 pid = port_owner_process(who, comm);

	if (pid)
		snprintf(buf, PORT_OWNER_MAX, "%s (pid %u)", comm, pid);
	else
		snprintf(buf, PORT_OWNER_MAX, "a process of user %u", who->uid);
	return buf;
}
