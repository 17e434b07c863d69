/* SPDX-License-Identifier: BSD-2-Clause */
/* Collects the cells of a table and prints them in columns. */
#include "base/table.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static int grow(struct table *t)
{
	size_t capacity = t->capacity ? 2 * t->capacity : 64;
	char **cells;

	if (t->n < t->capacity)
		return 0;
	cells = realloc(t->cells, capacity * sizeof(*cells));
	if (!cells)
		return -ENOMEM;
	t->cells = cells;
	t->capacity = capacity;
	return 0;
}

void table_cell(struct table *t, const char *format, ...)
{
	char *text = NULL;
	va_list args;
	int n;

	va_start(args, format);
	n = vasprintf(&text, format, args);
	va_end(args);
	if (n < 0) {
		t->no_memory = true;
	} else if (grow(t)) {
		t->no_memory = true;
		free(text);
	} else {
		t->cells[t->n++] = text;
	}
}

/* Counts the UTF-8 characters: the bytes that do not continue one. */
static int width_of(const char *text)
{
	int n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

/* Returns 0 for a column that is left out. */
static int column_width(const struct table *t, size_t column)
{
	bool has_content = !t->columns[column].optional;
	int width = 0;

	for (size_t i = column; i < t->n; i += t->n_columns) {
		int w = width_of(t->cells[i]);

		width = w > width ? w : width;
		has_content |= strcmp(t->cells[i], "-") != 0 && strcmp(t->cells[i], "0") != 0;
	}
	if (!has_content)
		return 0;
	return width > width_of(t->columns[column].title) ? width
							  : width_of(t->columns[column].title);
}

/* Prints one cell. *pending blanks come before the next text, so that no line ends with blanks. */
static void print_cell(const struct table *t, size_t column, int width, const char *text,
		       int *pending, FILE *to)
{
	int padding = width - width_of(text);

	if (!width)
		return;
	*pending += t->columns[column].right ? padding : 0;
	if (*text) {
		fprintf(to, "%*s%s", *pending, "", text);
		*pending = 0;
	}
	*pending += 1 + (t->columns[column].right ? 0 : padding);
}

/* cells: one for each column; NULL: the titles. */
static void print_row(const struct table *t, const int *widths, char *const *cells, FILE *to)
{
	int pending = 0;

	for (size_t c = 0; c < t->n_columns; c++)
		print_cell(t, c, widths[c], cells ? cells[c] : t->columns[c].title, &pending, to);
	fputc('\n', to);
}

int table_print(const struct table *t, FILE *to)
{
	int *widths = calloc(t->n_columns, sizeof(*widths));

	if (!widths || t->no_memory) {
		free(widths);
		return -ENOMEM;
	}
	for (size_t c = 0; c < t->n_columns; c++)
		widths[c] = column_width(t, c);
	print_row(t, widths, NULL, to);
	for (size_t i = 0; i + t->n_columns <= t->n; i += t->n_columns)
		print_row(t, widths, &t->cells[i], to);
	free(widths);
	return 0;
}

void table_free(struct table *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->cells[i]);
	free(t->cells);
	t->cells = NULL;
	t->n = t->capacity = 0;
}
