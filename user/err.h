/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An error on its way up: a code and the one line that a person will read.
 *
 * A function that can fail takes a `struct err *`, returns 0 or a negative
 * errno and fills the line; it never prints. Only a main prints, once.
 * The line says what failed, on what, why, and what to try next. It carries no
 * newline and no secret.
 */
#ifndef KUBELB_ERR_H
#define KUBELB_ERR_H

#define ERR_TEXT_MAX 768

struct err {
	char text[ERR_TEXT_MAX];
};

/* Fills e (NULL is allowed) and returns -code; code is a positive errno. */
int err_set(struct err *e, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
