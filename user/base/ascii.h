/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Kinds of ASCII characters, independent of the locale. A function takes an unsigned char or a
 * char; a character outside ASCII is of no kind.
 */
#ifndef KUBELB_ASCII_H
#define KUBELB_ASCII_H

#include <stdbool.h>

/* A space or a visible character. */
static inline bool ascii_is_print(int c)
{
	return c >= ' ' && c < 0x7f;
}

/* A visible character. */
static inline bool ascii_is_graph(int c)
{
	return c > ' ' && c < 0x7f;
}

static inline bool ascii_is_control(int c)
{
	return (c >= 0 && c < ' ') || c == 0x7f;
}

static inline bool ascii_is_digit(int c)
{
	return c >= '0' && c <= '9';
}

/* Whether every character of text is of that kind; true for an empty text. */
static inline bool ascii_all_print(const char *text)
{
	while (ascii_is_print(*text))
		text++;
	return !*text;
}

static inline bool ascii_all_graph(const char *text)
{
	while (ascii_is_graph(*text))
		text++;
	return !*text;
}

#endif
