/* SPDX-License-Identifier: BSD-2-Clause */
/* A table for people: each column is as wide as its widest cell. */
#ifndef KUBELB_TABLE_H
#define KUBELB_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct table_column {
	const char *title;
	bool right; /* aligned to the right */
	bool optional; /* left out when every cell of it is "-" or "0" */
};

/* Set columns and n_columns and leave the rest zero. Free it with table_free. */
struct table {
	const struct table_column *columns;
	size_t n_columns;
	/* One after the other, each with its end: a hundred thousand rows have a million. */
	char *text;
	size_t length, capacity;
	size_t n; /* cells */
	bool no_memory;
};

/* Adds the next cell: row by row, from left to right. */
void table_cell(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Prints the titles, then the rows. Returns 0. Returns -ENOMEM and prints nothing when there was no
 * memory for a cell.
 */
int table_print(const struct table *t, FILE *to);
void table_free(struct table *t);

#endif
