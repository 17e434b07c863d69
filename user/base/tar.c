/* SPDX-License-Identifier: BSD-2-Clause */
/* Writes a tar archive: for each file a head of 512 bytes, then its content in blocks of 512. */
#include "base/tar.h"

#include <string.h>

#define BLOCK ((size_t)512)

/* All of it is text; numbers are octal. */
struct head {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], type, link[100];
	char magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155], rest[12];
};

_Static_assert(sizeof(struct head) == BLOCK, "the head of a file in a tar archive");

/* The sum of the head's bytes, with blanks in the place of the sum itself. */
static void add_sum(struct head *h)
{
	unsigned int sum = 0;

	memset(h->sum, ' ', sizeof(h->sum));
	for (size_t i = 0; i < sizeof(*h); i++)
		sum += ((const unsigned char *)h)[i];
	snprintf(h->sum, sizeof(h->sum), "%06o", sum);
}

void tar_add(FILE *to, const char *name, const void *bytes, size_t length, time_t when)
{
	static const char zeros[BLOCK];
	struct head h = { .type = '0', .magic = "ustar", .version = { '0', '0' } };

	snprintf(h.name, sizeof(h.name), "%s", name);
	snprintf(h.mode, sizeof(h.mode), "%07o", 0600u);
	snprintf(h.uid, sizeof(h.uid), "%07o", 0u);
	snprintf(h.gid, sizeof(h.gid), "%07o", 0u);
	snprintf(h.size, sizeof(h.size), "%011zo", length);
	snprintf(h.mtime, sizeof(h.mtime), "%011llo", (unsigned long long)when);
	add_sum(&h);
	fwrite(&h, sizeof(h), 1, to);
	fwrite(bytes, 1, length, to);
	fwrite(zeros, 1, (BLOCK - length % BLOCK) % BLOCK, to);
}

void tar_end(FILE *to)
{
	static const char zeros[2 * BLOCK];

	fwrite(zeros, sizeof(zeros), 1, to);
}
