/* SPDX-License-Identifier: BSD-2-Clause */
#include "memory.h"

#include <malloc.h>
#include <stdio.h>
#include <sys/mman.h>

/*
 * Code alone: it is never written to, so dropping it loses nothing. What looks read-only
 * beside it may be relocated data (RELRO), whose pages exist in this process only.
 */
static void drop_code(const char *line)
{
	unsigned long start, end;
	char mode[5], path[2];

	if (sscanf(line, "%lx-%lx %4s %*s %*s %*s %1s", &start, &end, mode, path) != 4)
		return;
	/* r-xp and backed by a file: not [vdso]. */
	if (mode[1] == '-' && mode[2] == 'x' && path[0] == '/')
		madvise((void *)start, end - start, MADV_DONTNEED);
}

void memory_trim(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];

	malloc_trim(0);
	while (maps && fgets(line, sizeof(line), maps))
		drop_code(line);
	if (maps)
		fclose(maps);
}
