/* SPDX-License-Identifier: BSD-2-Clause */
#include "importer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unit.h"

/* HAProxy takes a file for cut off whose last line has no end. */
static char *whole(enum import_kind kind, const char *text)
{
	size_t length = strlen(text);
	bool add = kind == HAPROXY && length && text[length - 1] != '\n';
	char *copy = malloc(length + 2);

	assert_non_null(copy);
	snprintf(copy, length + 2, "%s%s", text, add ? "\n" : "");
	return copy;
}

static int make(enum import_kind kind, const char *text, char **ret, struct err *e)
{
	char *full = whole(kind, text);
	int r = import_convert(kind, full, strlen(full), "proxy.conf", NULL, ret, e);

	free(full);
	return r;
}

char *importer_convert(enum import_kind kind, const char *text)
{
	char *made = NULL;
	struct err e = { "" };

	if (make(kind, text, &made, &e))
		fail_msg("%s\n%s", e.text, text);
	return made;
}

/* Joins the lines of a comment that was wrapped. */
static void unwrap(char *text)
{
	static const char wrapped[] = "\n#     ";
	size_t length = strlen(wrapped);

	for (char *at = strstr(text, wrapped); at; at = strstr(at, wrapped)) {
		*at = ' ';
		memmove(at + 1, at + length, strlen(at + length) + 1);
	}
}

static unsigned int count_missing(const struct importer_good *good)
{
	unsigned int missing = 0;
	char *made = NULL;
	struct err e = { "" };

	if (make(good->kind, good->text, &made, &e)) {
		print_error("REFUSED: %s\n%s\n", e.text, good->text);
		return 1;
	}
	unwrap(made);
	for (size_t n = 0; n < ARRAY_SIZE(good->want) && good->want[n]; n++) {
		const char *want = good->want[n];

		if (want[0] == '!' ? !strstr(made, want + 1) : !!strstr(made, want))
			continue;
		print_error("%s\nWANT %s in:\n%s\n", good->text, want, made);
		missing++;
	}
	free(made);
	return missing;
}

void importer_check_good(const struct importer_good *list, size_t n)
{
	unsigned int missing = 0;

	for (size_t i = 0; i < n; i++)
		missing += count_missing(&list[i]);
	assert_int_equal(missing, 0);
}

/* Whether the text is refused as it has to be; prints what is not so. */
static bool is_refused(enum import_kind kind, const char *text, size_t length, int line,
		       const char *want)
{
	char place[64] = "proxy.conf: ", *made = place;
	struct err e = { "" };
	int r;

	if (line)
		snprintf(place, sizeof(place), "proxy.conf:%d: ", line);
	r = import_convert(kind, text, length, "proxy.conf", NULL, &made, &e);
	if (r != -EINVAL) {
		print_error("ACCEPTED: %s\nWANT %s%s\n", text, place, want);
		if (r == 0)
			free(made);
		return false;
	}
	assert_ptr_equal(made, place);
	if (strpbrk(e.text, "\n\r\t\033"))
		fail_msg("not one printable line: %s", e.text);
	assert_int_equal(import_convert(kind, text, length, "proxy.conf", NULL, &made, NULL),
			 -EINVAL);
	if (strncmp(e.text, place, strlen(place)) == 0 && strstr(e.text, want))
		return true;
	print_error("%s\nWANT %s%s\nHAVE %s\n", text, place, want, e.text);
	return false;
}

void importer_check_refused(enum import_kind kind, const char *text, size_t length, int line,
			    const char *want)
{
	assert_true(is_refused(kind, text, length, line, want));
}

void importer_check_bad(const struct importer_bad *list, size_t n)
{
	unsigned int wrong = 0;

	for (size_t i = 0; i < n; i++) {
		char *full = whole(list[i].kind, list[i].text);

		wrong += !is_refused(list[i].kind, full, strlen(full), list[i].line, list[i].want);
		free(full);
	}
	assert_int_equal(wrong, 0);
}
