/* SPDX-License-Identifier: BSD-2-Clause */
/* Cuts lines to the size of a screen. */
#include "ctl/canvas.h"

#include <limits.h>
#include <stdarg.h>

#define REVERSE "\033[7m"
#define CLEAR_REST "\033[K"

unsigned int canvas_left(const struct canvas *c)
{
	if (!c->rows)
		return UINT_MAX;
	return c->row < c->rows ? c->rows - c->row : 0;
}

/* The bytes of the text's first n characters; *ret_characters: how many there are. */
static size_t cut(const char *text, unsigned int n, unsigned int *ret_characters)
{
	unsigned int characters = 0;
	size_t i;

	for (i = 0; text[i]; i++) {
		bool begins = ((unsigned char)text[i] & 0xc0) != 0x80;

		if (begins && characters == n)
			break;
		characters += begins;
	}
	*ret_characters = characters;
	return i;
}

void canvas_text(struct canvas *c, enum color color, const char *format, ...)
{
	unsigned int room = c->columns ? c->columns - c->column : UINT_MAX, characters;
	char text[1024];
	va_list args;
	size_t n;

	if (!canvas_left(c))
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	n = cut(text, room, &characters);
	if (c->color && color != COLOR_NONE && !c->reverse)
		fprintf(c->to, "%s%.*s%s", color_sequence(color), (int)n, text,
			color_sequence(COLOR_NONE));
	else
		fprintf(c->to, "%.*s", (int)n, text);
	c->column += characters;
}

void canvas_reverse(struct canvas *c)
{
	if (!c->screen || !canvas_left(c))
		return;
	c->reverse = true;
	fputs(REVERSE, c->to);
}

void canvas_end(struct canvas *c)
{
	if (!canvas_left(c))
		return;
	if (c->reverse)
		fprintf(c->to, "%*s%s", (int)(c->columns - c->column), "",
			color_sequence(COLOR_NONE));
	/* Behind the last column that would clear the character there. */
	if (c->screen && c->column < c->columns && !c->reverse)
		fputs(CLEAR_REST, c->to);
	c->row++;
	c->column = 0;
	c->reverse = false;
	/* After the last row a screen would scroll. */
	if (!c->screen || canvas_left(c))
		fputc('\n', c->to);
}

void canvas_skip_to_last(struct canvas *c)
{
	while (c->screen && canvas_left(c) > 1)
		canvas_end(c);
}
