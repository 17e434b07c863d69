/* SPDX-License-Identifier: BSD-2-Clause */
/* Walks through /proc for the processes of a name. */
#include "host/process.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"

static bool has_name(const char *pid, const char *name)
{
	char path[64], comm[32];

	snprintf(path, sizeof(path), "/proc/%.16s/comm", pid);
	return file_read_line(path, "", comm, sizeof(comm)) && strcmp(comm, name) == 0;
}

/* By the file's number, as nsfs has it. */
static bool is_in_own_netns(const char *pid)
{
	char path[64];
	struct stat own, other;

	snprintf(path, sizeof(path), "/proc/%.16s/ns/net", pid);
	return !stat("/proc/self/ns/net", &own) && !stat(path, &other) &&
	       own.st_ino == other.st_ino;
}

/* "T (stopped)" or "t (tracing stop)" */
static bool is_stopped(const char *pid)
{
	char path[64], state[32];

	snprintf(path, sizeof(path), "/proc/%.16s/status", pid);
	return file_read_line(path, "State:\t", state, sizeof(state)) &&
	       tolower((unsigned char)state[0]) == 't';
}

void process_find(const char *name, struct process_found *ret)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;

	*ret = (struct process_found){ .n = 0 };
	while (dir && (entry = readdir(dir))) {
		const char *pid = entry->d_name;

		if (!isdigit((unsigned char)pid[0]) || !has_name(pid, name) ||
		    !is_in_own_netns(pid))
			continue;
		if (!ret->n++)
			ret->pid = (__u32)strtoul(pid, NULL, 10);
		if (!ret->stopped && is_stopped(pid))
			ret->stopped = (__u32)strtoul(pid, NULL, 10);
	}
	if (dir)
		closedir(dir);
}
