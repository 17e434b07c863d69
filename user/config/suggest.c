/* SPDX-License-Identifier: BSD-2-Clause */
#include <ctype.h>
#include <string.h>

#include "config/internal.h"

/* No key is longer, nor a slip of one. */
#define NAME_MAX_LENGTH 32

static size_t min3(size_t a, size_t b, size_t c)
{
	size_t least = a < b ? a : b;

	return least < c ? least : c;
}

/* How many letters to insert, drop or change to get from a to b; case counts nothing. */
static size_t distance(const char *a, const char *b)
{
	size_t row[NAME_MAX_LENGTH + 1];
	size_t length = strlen(b), i, j;

	for (j = 0; j <= length; j++)
		row[j] = j;
	for (i = 0; a[i]; i++) {
		size_t diagonal = row[0];

		row[0] = i + 1;
		for (j = 0; j < length; j++) {
			bool differ = tolower((unsigned char)a[i]) != tolower((unsigned char)b[j]);
			size_t next = min3(diagonal + differ, row[j] + 1, row[j + 1] + 1);

			diagonal = row[j + 1];
			row[j + 1] = next;
		}
	}
	return row[length];
}

const char *config_suggest(const struct config_key *keys, const char *text)
{
	const char *best = NULL;
	size_t least = 3; /* two slips at most, or it is another word */
	size_t length = strlen(text);

	if (length > NAME_MAX_LENGTH)
		return NULL;
	for (; keys->name; keys++) {
		size_t d = distance(text, keys->name);

		/* Of a short word, two changes leave nothing. */
		if (d < least && 2 * d < length) {
			least = d;
			best = keys->name;
		}
	}
	return best;
}
