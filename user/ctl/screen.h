/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The whole terminal, for a program that draws on it and reads keys. Whatever ends the program, the
 * terminal is as before; only SIGKILL is too quick for that.
 */
#ifndef KUBELB_CTL_SCREEN_H
#define KUBELB_CTL_SCREEN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* Whether standard input and output are a terminal that can be drawn on: TERM is no dumb one. */
bool screen_is_there(void);

/* Takes the terminal and the signals. Returns 0, or a negative errno with e. */
int screen_enter(struct err *e);
/* Gives both back. May be called again, and from a signal handler. */
void screen_leave(void);

/* At least 1 each. */
void screen_size(unsigned int *ret_columns, unsigned int *ret_rows);

/* Writes a frame from the top left corner on, and clears what is below. -EPIPE: nobody is there. */
int screen_show(const char *frame, size_t length);

/* What a wait has ended with: a key's own character, or one of these. */
enum {
	SCREEN_TIME = 256, /* it is over */
	SCREEN_REDRAW, /* the size has changed, or the program goes on after a stop */
	SCREEN_END, /* a signal, or the end of the terminal */
	SCREEN_UP,
	SCREEN_DOWN,
	SCREEN_PAGE_UP,
	SCREEN_PAGE_DOWN,
	SCREEN_OTHER, /* a key that has no name here */
};

/* Waits for one of them. SIGTSTP stops the program in here. */
int screen_wait(unsigned int ms);

#endif
