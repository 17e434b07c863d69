/* SPDX-License-Identifier: BSD-2-Clause */
/* Finds the key that a misspelled one probably means, by edit distance. */
#include <ctype.h>
#include <string.h>

#include "config/internal.h"

/* No key is longer, and no misspelling of one. */
#define NAME_MAX_LENGTH 32

static size_t min3(size_t a, size_t b, size_t c)
{
	size_t least = a < b ? a : b;

	return least < c ? least : c;
}

/* The number of letters to insert, delete or change to get from a to b. Ignores case. */
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
	size_t least = 3; /* with more than two changes it is another word */
	size_t length = strlen(text);

	if (length > NAME_MAX_LENGTH)
		return NULL;
	for (; keys->name; keys++) {
		size_t d = distance(text, keys->name);

		/* In a short word, two changes leave too little. */
		if (d < least && 2 * d < length) {
			least = d;
			best = keys->name;
		}
	}
	return best;
}
