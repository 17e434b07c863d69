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

#include <errno.h>

#define ERR_TEXT_MAX 768

struct err {
	char text[ERR_TEXT_MAX];
};

/* What err_set does with the text; use err_set. */
void err_format(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Replaces what a terminal must not get to see by '?': text is then one line of valid
 * UTF-8 without controls. */
void err_make_printable(char *text);

/*
 * -code, and never 0 or more, whatever a caller's errno was: an error that returned
 * 0 would be taken for success. Inline, so that compilers can see it.
 */
static inline int err_negative(int code)
{
	return code > 0 ? -code : -EIO;
}

/*
 * Fills e (NULL is allowed) with a line in printf's manner and yields -code; code is a
 * positive errno. The line may be made from e's own text.
 */
#define err_set(e, code, ...)                 \
	({                                    \
		int err_code_ = (code);       \
                                              \
		err_format((e), __VA_ARGS__); \
		err_negative(err_code_);      \
	})

/* -ENOMEM and its line; the second one says for what: a file, a key. */
static inline int err_no_memory(struct err *e)
{
	return err_set(e, ENOMEM, "out of memory");
}

static inline int err_no_memory_for(struct err *e, const char *what)
{
	return err_set(e, ENOMEM, "%s: out of memory", what);
}

#endif
