/* SPDX-License-Identifier: BSD-2-Clause */
/* Lines of text for a screen: cut to its size, with colours. Pure. */
#ifndef KUBELB_CTL_CANVAS_H
#define KUBELB_CTL_CANVAS_H

#include <stdbool.h>
#include <stdio.h>

#include "ctl/color.h"

/* Set the first five, and leave the rest zero. */
struct canvas {
	FILE *to;
	unsigned int columns, rows; /* 0: without an end */
	bool color;
	bool screen; /* lines are written over older ones: each clears what it does not fill */
	unsigned int column, row; /* where the next text goes */
	bool reverse; /* until the end of the line */
};

/* Adds text to the line, as much as fits. */
void canvas_text(struct canvas *c, enum color color, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Shows the line in reverse video, up to the right edge. To be called at its beginning. */
void canvas_reverse(struct canvas *c);
/* Ends the line. */
void canvas_end(struct canvas *c);
/* Ends the lines: goes to the last row, for one more, on a screen. */
void canvas_skip_to_last(struct canvas *c);
/* How many rows there still are; UINT_MAX without an end. */
unsigned int canvas_left(const struct canvas *c);

#endif
