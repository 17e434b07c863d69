/* SPDX-License-Identifier: BSD-2-Clause */
/* Finds the word that a misspelled one probably means, by edit distance. */
#include "base/similar.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

/* No name is longer, and no misspelling of one. */
#define NAME_MAX_LENGTH 32
/* With more it is another word. */
#define CHANGES_MAX 2

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

void similar_offer(struct similar *s, const char *name)
{
	size_t length = strlen(s->text), d;

	if (length > NAME_MAX_LENGTH || strlen(name) > NAME_MAX_LENGTH)
		return;
	d = distance(s->text, name);
	/* In a short word, two changes leave too little. */
	if (d > CHANGES_MAX || 2 * d >= length || (s->best && d >= s->least))
		return;
	s->least = d;
	s->best = name;
}
