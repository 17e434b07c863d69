/* SPDX-License-Identifier: BSD-2-Clause */
/* Makes the one line of an error: formats it and removes what must not reach a terminal. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/ascii.h"

/*
 * Returns the length of the UTF-8 character at s. Returns 0 when it must not reach a terminal: it
 * is not UTF-8, or it is a control character. U+0080..U+009F are control characters too: some
 * terminals take U+009B for the start of an escape sequence.
 */
static size_t printable_length(const unsigned char *s)
{
	size_t length, i;

	if (s[0] < 0x80)
		return !ascii_is_control(s[0]);
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	length = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	for (i = 1; i < length; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	/* Control characters, overlong forms, surrogates, and what is beyond U+10FFFF. */
	if ((s[0] == 0xc2 && s[1] < 0xa0) || (s[0] == 0xe0 && s[1] < 0xa0) ||
	    (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
	    (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return length;
}

void err_make_printable(char *text)
{
	unsigned char *s = (unsigned char *)text;

	while (*s) {
		size_t length = printable_length(s);

		if (!length) {
			*s = '?';
			length = 1;
		}
		s += length;
	}
}

void err_format(struct err *e, const char *format, ...)
{
	/* A buffer of its own: the arguments may contain e's own text, when a caller adds to it. */
	char text[ERR_TEXT_MAX];
	va_list ap;
	int n;

	if (!e)
		return;
	va_start(ap, format);
	n = vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (n < 0)
		text[0] = '\0';
	else if ((size_t)n >= sizeof(text))
		memcpy(text + sizeof(text) - 4, "...", 4);
	/* The line may quote a file or a peer. */
	err_make_printable(text);
	memcpy(e->text, text, sizeof(e->text));
}

bool err_is_shortage(int code)
{
	return code == ENOMEM || code == EMFILE || code == ENFILE || code == ENOBUFS;
}

const char *err_reason(int code)
{
	switch (code) {
	case ENOMEM:
	case ENOBUFS:
		return "out of memory: raise the limit of its cgroup, or free some, and try again";
	case EMFILE:
		return "too many open files: raise the limit of this process (ulimit -n, or "
		       "LimitNOFILE= of its unit)";
	case ENFILE:
		return "too many open files on this machine: raise fs.file-max, or end what has "
		       "them open";
	default:
		return strerror(code);
	}
}
