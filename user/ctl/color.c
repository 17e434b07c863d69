/* SPDX-License-Identifier: BSD-2-Clause */
/* Colours on a terminal, and which ones stand for what. */
#include "ctl/color.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "balance/backend_status.h"

/* The lines in front of the tables begin with a word, and go on here. */
#define HEAD_COLUMN 10

bool color_wanted(const struct ctl_options *o)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

	if (o->color != CTL_COLOR_AUTO)
		return o->color == CTL_COLOR_ALWAYS;
	return isatty(STDOUT_FILENO) && !(no && *no) && term && *term && strcmp(term, "dumb") != 0;
}

enum color color_of_state(const char *state)
{
	static const enum color colors[STATUS_STATES] = {
		[STATUS_READY] = COLOR_GOOD,	[STATUS_SUSPECT] = COLOR_WARN,
		[STATUS_DRAINING] = COLOR_WARN, [STATUS_EJECTED] = COLOR_BAD,
		[STATUS_DEAD] = COLOR_BAD,	[STATUS_REMOVED] = COLOR_DIM,
	};

	for (enum status_state i = 0; i < STATUS_STATES; i++)
		if (!strcmp(state, backend_status_name(i)))
			return colors[i];
	return COLOR_NONE;
}

const char *color_sequence(enum color c)
{
	static const char *const sequences[] = {
		[COLOR_NONE] = "\033[0m", [COLOR_GOOD] = "\033[32m", [COLOR_WARN] = "\033[33m",
		[COLOR_BAD] = "\033[31m", [COLOR_DIM] = "\033[2m",
	};

	return sequences[c];
}

/* Prints a line with n bytes of it, from the byte `at` on, in a colour. */
static void print_line(const char *line, size_t length, size_t at, size_t n, enum color c, FILE *to)
{
	if (c == COLOR_NONE || !n || at + n > length)
		fprintf(to, "%.*s\n", (int)length, line);
	else
		fprintf(to, "%.*s%s%.*s%s%.*s\n", (int)at, line, color_sequence(c), (int)n,
			line + at, color_sequence(COLOR_NONE), (int)(length - at - n),
			line + at + n);
}

/* How much of a text, from its start, is words in capitals. */
static size_t capitals(const char *text, size_t length)
{
	size_t n = 0, end = 0;

	while (n < length && ((text[n] >= 'A' && text[n] <= 'Z') || text[n] == ' '))
		n += 1;
	/* Whole words: the next one may begin with a capital. */
	for (size_t i = 0; i < n; i++)
		if (text[i] != ' ' && (i + 1 == length || strchr(" :,", text[i + 1])))
			end = i + 1;
	return end > 1 ? end : 0;
}

/* A line in front of the tables. */
static void print_head(const char *line, size_t length, FILE *to)
{
	const char *text = line + HEAD_COLUMN;
	const char *overruled = memmem(line, length, "NOT ALL EFFECTIVE", 17);
	size_t n = length > HEAD_COLUMN ? capitals(text, length - HEAD_COLUMN) : 0;

	if (overruled)
		print_line(line, length, (size_t)(overruled - line), 17, COLOR_BAD, to);
	else if (n)
		print_line(line, length, HEAD_COLUMN, n, COLOR_WARN, to);
	else if (!strncmp(line, "agent     alive", HEAD_COLUMN + 5))
		print_line(line, length, HEAD_COLUMN, 5, COLOR_GOOD, to);
	else
		print_line(line, length, 0, 0, COLOR_NONE, to);
}

/* A line of the table of backends, whose states begin at the byte `at`. */
static void print_row(const char *line, size_t length, size_t at, FILE *to)
{
	size_t n = length > at ? strcspn(line + at, " \n") : 0;
	char state[16] = "";

	if (n && n < sizeof(state))
		memcpy(state, line + at, n);
	print_line(line, length, at, n, color_of_state(state), to);
}

void color_status(const char *text, FILE *to)
{
	size_t state_at = 0, length;
	bool in_head = true;

	for (; *text; text += length + (text[length] == '\n')) {
		const char *title;

		length = strcspn(text, "\n");
		title = memmem(text, length, "STATE", 5);
		in_head &= length > 0;
		if (!length)
			state_at = 0;
		if (in_head)
			print_head(text, length, to);
		else
			print_row(text, length, state_at, to);
		if (title && !strncmp(text, "BACKEND", 7))
			state_at = (size_t)(title - text);
	}
}
