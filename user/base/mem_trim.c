/* SPDX-License-Identifier: BSD-2-Clause */
/* Returns memory that a long-running process does not need any more. */
#include "base/mem_trim.h"

#include <link.h>
#include <malloc.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * Code and constants: nothing writes to them, so dropping them loses nothing. Relocated data
 * (RELRO) is read-only by now, too, but its pages exist in this process only: its segment says that
 * it is written to.
 */
static int drop_constant(struct dl_phdr_info *object, size_t size, void *arg)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

	(void)size;
	(void)arg;
	/* The kernel's own pages. No file backs them. */
	if (strstr(object->dlpi_name, "vdso"))
		return 0;
	for (int i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &object->dlpi_phdr[i];
		uintptr_t start = (object->dlpi_addr + part->p_vaddr) & ~(page - 1);
		uintptr_t end = object->dlpi_addr + part->p_vaddr + part->p_memsz;

		if (part->p_type == PT_LOAD && !(part->p_flags & PF_W))
			madvise((void *)start, end - start, MADV_DONTNEED);
	}
	return 0;
}

void memory_trim(void)
{
	malloc_trim(0);
	dl_iterate_phdr(drop_constant, NULL);
}
