/* SPDX-License-Identifier: BSD-2-Clause */
/* Collects the cells of a table and prints them in columns. */
#include "base/table.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_MIN 4096

static int grow(struct table *t, size_t least)
{
	size_t capacity = t->capacity ? t->capacity : CAPACITY_MIN;
	char *text;

	while (capacity < least)
		capacity *= 2;
	if (capacity == t->capacity)
		return 0;
	text = realloc(t->text, capacity);
	if (!text)
		return -ENOMEM;
	t->text = text;
	t->capacity = capacity;
	return 0;
}

/* Writes it if there is room. Returns its length, or a negative number. */
static int write_cell(struct table *t, const char *format, va_list args)
{
	size_t left = t->capacity - t->length;

	return vsnprintf(left ? t->text + t->length : NULL, left, format, args);
}

void table_cell(struct table *t, const char *format, ...)
{
	va_list args, again;
	int n;

	va_start(args, format);
	va_copy(again, args);
	n = write_cell(t, format, args);
	if (n >= 0 && t->length + (size_t)n >= t->capacity)
		n = grow(t, t->length + (size_t)n + 1) ? -1 : write_cell(t, format, again);
	va_end(again);
	va_end(args);
	if (n < 0) {
		t->no_memory = true;
		return;
	}
	t->length += (size_t)n + 1;
	t->n++;
}

/* Counts the UTF-8 characters: the bytes that do not continue one. */
static int width_of(const char *text)
{
	int n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

static const char *next_cell(const char *cell)
{
	return cell + strlen(cell) + 1;
}

/* Widens to the widest cell, and says which columns have something in them. */
static void measure(const struct table *t, int *widths, bool *filled)
{
	const char *cell = t->text;

	for (size_t i = 0; i < t->n; i++, cell = next_cell(cell)) {
		size_t column = i % t->n_columns;
		int w = width_of(cell);

		widths[column] = w > widths[column] ? w : widths[column];
		filled[column] |= strcmp(cell, "-") != 0 && strcmp(cell, "0") != 0;
	}
}

/* A column that is left out has the width 0. */
static void find_widths(const struct table *t, int *widths, bool *filled)
{
	for (size_t c = 0; c < t->n_columns; c++) {
		widths[c] = width_of(t->columns[c].title);
		filled[c] = !t->columns[c].optional;
	}
	measure(t, widths, filled);
	for (size_t c = 0; c < t->n_columns; c++)
		widths[c] = filled[c] ? widths[c] : 0;
}

static void print_blanks(int n, FILE *to)
{
	while (n-- > 0)
		putc_unlocked(' ', to);
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
		print_blanks(*pending, to);
		fputs(text, to);
		*pending = 0;
	}
	*pending += 1 + (t->columns[column].right ? 0 : padding);
}

/* cells: one for each column; NULL: the titles. Returns what follows them. */
static const char *print_row(const struct table *t, const int *widths, const char *cells, FILE *to)
{
	int pending = 0;

	for (size_t c = 0; c < t->n_columns; c++) {
		print_cell(t, c, widths[c], cells ? cells : t->columns[c].title, &pending, to);
		cells = cells ? next_cell(cells) : NULL;
	}
	fputc('\n', to);
	return cells;
}

int table_print(const struct table *t, FILE *to)
{
	int *widths = calloc(t->n_columns, sizeof(*widths));
	bool *filled = calloc(t->n_columns, sizeof(*filled));
	const char *cells = t->text;
	int r = widths && filled && !t->no_memory ? 0 : -ENOMEM;

	if (!r) {
		find_widths(t, widths, filled);
		print_row(t, widths, NULL, to);
		for (size_t i = 0; i + t->n_columns <= t->n; i += t->n_columns)
			cells = print_row(t, widths, cells, to);
	}
	free(widths);
	free(filled);
	return r;
}

void table_free(struct table *t)
{
	free(t->text);
	t->text = NULL;
	t->n = t->length = t->capacity = 0;
}
