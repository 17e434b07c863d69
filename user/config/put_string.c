/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints a string as a YAML scalar. */
#include <stdio.h>
#include <string.h>

#include "config/internal.h"

/* Whether text is a path that needs no quotes in YAML. */
static bool is_plain(const char *text)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "/0123456789._-";

	return text[0] == '/' && text[strspn(text, plain)] == '\0';
}

/* The character at s, which is valid UTF-8, as YAML's readers see to it, and its length. */
static __u32 decode(const unsigned char *s, size_t *ret_length)
{
	size_t length = *s < 0x80 ? 1 : *s < 0xe0 ? 2 : *s < 0xf0 ? 3 : 4;
	__u32 c = length == 1 ? *s : *s & (0xffU >> (length + 1));

	for (size_t i = 1; i < length && s[i]; i++)
		c = c << 6 | (s[i] & 0x3f);
	*ret_length = strnlen((const char *)s, length);
	return c;
}

/* What may not stand in a document as it is, or would be taken for the end of a line. */
static bool is_special(__u32 c)
{
	return c < ' ' || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 || c == 0xfeff ||
	       c == 0xfffe || c == 0xffff;
}

int config_put_string(FILE *out, const char *text)
{
	int length = 2;
	size_t n;

	if (is_plain(text))
		return fprintf(out, "%s", text);
	fputc('"', out);
	for (; *text; text += n) {
		__u32 c = decode((const unsigned char *)text, &n);

		if (is_special(c))
			length += fprintf(out, "\\U%08x", c);
		else
			length += fprintf(out, "%s%.*s", c == '"' || c == '\\' ? "\\" : "", (int)n,
					  text);
	}
	fputc('"', out);
	return length;
}
