/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An error on its way to the person who reads it: the one line that says what failed.
 *
 * A function that can fail takes a `struct err *` and returns 0 or a negative errno. On failure it
 * fills in the line; it never prints it. Only a main function prints, and only once. The line says
 * what failed, on what, why, and what to try next. It contains no newline and no secret.
 */
#ifndef KUBELB_ERR_H
#define KUBELB_ERR_H

#include <errno.h>
#include <stdbool.h>

#define ERR_TEXT_MAX 768

struct err {
	char text[ERR_TEXT_MAX];
};

/* Formats the line. Callers use err_set. */
void err_format(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Replaces everything that must not reach a terminal by '?'. The result is one line of valid UTF-8
 * without control characters.
 */
void err_make_printable(char *text);

/*
 * Returns -code, and a negative number even when code is 0 or less: a caller would take an error
 * that returned 0 for success. Inline, so that compilers can see the sign.
 */
static inline int err_negative(int code)
{
	return code > 0 ? -code : -EIO;
}

/*
 * Fills in e (NULL is allowed) like printf and returns -code. code is a positive errno. The
 * arguments may contain e's own text.
 */
#define err_set(e, code, ...)                 \
	({                                    \
		int err_code_ = (code);       \
                                              \
		err_format((e), __VA_ARGS__); \
		err_negative(err_code_);      \
	})

/*
 * Both return -ENOMEM and fill in e. The second one also says what needed the memory: a file, a
 * key.
 */
static inline int err_no_memory(struct err *e)
{
	return err_set(e, ENOMEM, "out of memory");
}

static inline int err_no_memory_for(struct err *e, const char *what)
{
	return err_set(e, ENOMEM, "%s: out of memory", what);
}

/*
 * Whether the errno says that something of this process or machine is used up at the moment: memory
 * or descriptors. It says nothing about what the call was for.
 */
bool err_is_shortage(int code);

/* strerror, and for a shortage what to do about it. */
const char *err_reason(int code);

#endif
