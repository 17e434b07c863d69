/* SPDX-License-Identifier: BSD-2-Clause */
/* Keeps the words and blocks of a proxy's file. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "import/internal.h"

/* Makes room for one more of size bytes each. */
static int grow(void **array, size_t *max, size_t n, size_t size)
{
	size_t wanted = *max ? 2 * *max : 64;
	void *larger;

	if (n < *max)
		return 0;
	larger = reallocarray(*array, wanted, size);
	if (!larger)
		return -ENOMEM;
	*array = larger;
	*max = wanted;
	return 0;
}

int import_words_item(struct import_words *w, unsigned int line)
{
	void *items = w->items;
	int r = grow(&items, &w->max_items, w->n_items, sizeof(*w->items));

	w->items = items;
	if (r < 0)
		return r;
	w->items[w->n_items] = (struct import_item){ .line = line, .word = w->n_words };
	w->n_items++;
	w->items[w->n_items - 1].end = w->n_items;
	return 0;
}

int import_words_word(struct import_words *w, char *word)
{
	void *words = w->words;
	int r = grow(&words, &w->max_words, w->n_words, sizeof(*w->words));

	w->words = words;
	if (r < 0)
		return r;
	w->words[w->n_words++] = word;
	w->items[w->n_items - 1].n_words++;
	return 0;
}

void import_words_free(struct import_words *w)
{
	free(w->text);
	free(w->words);
	free(w->items);
	*w = (struct import_words){ 0 };
}

const char *import_word(const struct import_words *w, size_t item, size_t n)
{
	const struct import_item *i = &w->items[item];

	return n < i->n_words ? w->words[i->word + n] : "";
}

bool import_is(const struct import_words *w, size_t item, const char *name)
{
	return strcmp(import_word(w, item, 0), name) == 0;
}

bool import_has(const struct import_words *w, size_t item, const char *word)
{
	for (size_t n = 1; n < w->items[item].n_words; n++)
		if (strcmp(import_word(w, item, n), word) == 0)
			return true;
	return false;
}

bool import_listed(const char *word, const char *list)
{
	size_t length = strlen(word);

	while (*list) {
		size_t next = strcspn(list, " ");

		if (next == length && memcmp(list, word, length) == 0)
			return true;
		list += next + strspn(list + next, " ");
	}
	return false;
}

char *import_join(const struct import_words *w, size_t item, char *buf, size_t size)
{
	size_t length = 0;

	buf[0] = '\0';
	for (size_t n = 0; n < w->items[item].n_words && length + 1 < size; n++) {
		if (n)
			buf[length++] = ' ';
		import_ascii(import_word(w, item, n), buf + length, size - length);
		length += strlen(buf + length);
	}
	return buf;
}
