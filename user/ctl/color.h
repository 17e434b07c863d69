/* SPDX-License-Identifier: BSD-2-Clause */
/* Colours on a terminal, and which ones stand for what. */
#ifndef KUBELB_CTL_COLOR_H
#define KUBELB_CTL_COLOR_H

#include <stdbool.h>
#include <stdio.h>

#include "ctl/ctl.h"

enum color { COLOR_NONE, COLOR_GOOD, COLOR_WARN, COLOR_BAD, COLOR_DIM };

/*
 * Whether to use colours: as --color says; with auto on a terminal that has some, unless NO_COLOR
 * is set (no-color.org).
 */
bool color_wanted(const struct ctl_options *o);

/* The colour of a state by its name, as backend_status_name gives it. */
enum color color_of_state(const char *state);

/* The escape sequence that begins a colour; COLOR_NONE: that ends one. */
const char *color_sequence(enum color c);

/*
 * Prints the text of `status` with its states and what is written in capitals in colours. It works
 * on the text, so that it also does where an agent has written that.
 */
void color_status(const char *text, FILE *to);

#endif
