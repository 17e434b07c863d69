/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The bytes of a file that a person has named, or of standard input.
 */
#ifndef KUBELB_INPUT_H
#define KUBELB_INPUT_H

#include <stddef.h>

#include "err.h"

/* Reads standard input when this is the path, where a caller allows it. */
#define INPUT_STDIN "-"

/*
 * Reads a regular file of up to max bytes; what is longer is cut off at max + 1, which
 * shows that it is too long. option: how another file is named, for the message:
 * "-c FILE". Returns 0 with *ret, which the caller frees, or a negative errno with e as
 * `PATH: what is wrong; what next`. The outputs are untouched on failure.
 */
int input_read(const char *path, const char *option, size_t max, char **ret, size_t *ret_length,
	       struct err *e);

/* The same from standard input. */
int input_read_stdin(size_t max, char **ret, size_t *ret_length, struct err *e);

#endif
