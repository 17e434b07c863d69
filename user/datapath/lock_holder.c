/* SPDX-License-Identifier: BSD-2-Clause */
/* Who holds the lock that datapath_lock takes, as /proc shows it. Takes no lock itself. */
#include "datapath/internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"

/* The words of a line; returns how many there are. line is changed. */
static unsigned int split(char *line, char **ret, unsigned int max)
{
	unsigned int n = 0;
	char *rest;

	for (char *word = strtok_r(line, " \n", &rest); word && n < max;
	     word = strtok_r(NULL, " \n", &rest))
		ret[n++] = word;
	return n;
}

/*
 * Whether a line of /proc/locks is that of a flock(2) on this file:
 * "1: FLOCK  ADVISORY  WRITE 812 00:1a:4711 0 EOF". A process that waits has "->" in the second
 * place.
 */
static bool is_holder(char *line, const struct stat *st, __u32 *ret_pid)
{
	char *words[6], file[64];

	snprintf(file, sizeof(file), "%02x:%02x:%lu", major(st->st_dev), minor(st->st_dev),
		 (unsigned long)st->st_ino);
	if (split(line, words, 6) < 6 || strcmp(words[1], "FLOCK") != 0 ||
	    strcmp(words[5], file) != 0)
		return false;
	*ret_pid = (__u32)strtoul(words[4], NULL, 10);
	return true;
}

static bool find_holder(const struct stat *st, __u32 *ret_pid)
{
	FILE *f = fopen("/proc/locks", "re");
	bool found = false;
	char line[256];

	while (f && !found && fgets(line, sizeof(line), f))
		found = is_holder(line, st, ret_pid);
	if (f)
		fclose(f);
	return found;
}

/* Where the start of the process is among the words behind its name, in ticks after the boot. */
#define START_WORD 19

/* How long the process has been running. */
static __u64 age_of(__u32 pid)
{
	char path[64], line[512], *words[START_WORD + 1], *at;
	struct timespec now;
	__u64 start;

	snprintf(path, sizeof(path), "/proc/%u/stat", pid);
	if (!file_read_line(path, "", line, sizeof(line)))
		return 0;
	at = strrchr(line, ')');
	if (!at || split(at + 1, words, START_WORD + 1) <= START_WORD ||
	    clock_gettime(CLOCK_BOOTTIME, &now))
		return 0;
	start = strtoull(words[START_WORD], NULL, 10) * NS_PER_S / (__u64)sysconf(_SC_CLK_TCK);
	return (__u64)now.tv_sec * NS_PER_S + (__u64)now.tv_nsec - start;
}

bool datapath_lock_holder(const char *pin_dir, struct datapath_lock_holder *ret)
{
	int fd = open(pin_dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	char path[64];
	struct stat st;
	bool found = fd >= 0 && !fstat(fd, &st) && find_holder(&st, &ret->pid);

	if (fd >= 0)
		close(fd);
	if (!found)
		return false;
	snprintf(path, sizeof(path), "/proc/%u/comm", ret->pid);
	file_read_line(path, "", ret->name, sizeof(ret->name));
	ret->age_ns = age_of(ret->pid);
	return true;
}
