/* SPDX-License-Identifier: BSD-2-Clause */
/* Finds the word that a misspelled one probably means, by edit distance. Pure. */
#ifndef KUBELB_SIMILAR_H
#define KUBELB_SIMILAR_H

#include <stddef.h>

/* Set text, and leave the rest zero. text is not copied, nor are the names. */
struct similar {
	const char *text;
	const char *best; /* the nearest name so far; NULL: none is near enough */
	size_t least; /* its distance */
};

/*
 * Takes name if it is nearer than those before: two changes at the most, and fewer than half of the
 * letters. Ignores case.
 */
void similar_offer(struct similar *s, const char *name);

#endif
