/* SPDX-License-Identifier: BSD-2-Clause */
/* Takes secrets out of a text, line by line and word by word. */
#include "base/redact_text.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/redact.h"

/* What stands between words. Base64 and tokens have none of these. */
#define BETWEEN " \t\r\"'`,;:()[]{}<>|&?#\\"
/* Base64 of both alphabets. */
#define BASE64 "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-"
/* A random key of 24 bytes has as many. Names of this machine's things are rarely so mixed. */
#define KEY_LENGTH 32

static bool has(const char *word, int (*kind)(int c))
{
	while (*word && !kind((unsigned char)*word))
		word++;
	return *word;
}

/* A long word of base64 with letters of both cases and digits; a path begins with a slash. */
static bool is_key(const char *word)
{
	size_t length = strlen(word);

	return word[0] != '/' && length >= KEY_LENGTH && strspn(word, BASE64) == length &&
	       has(word, isupper) && has(word, islower) && has(word, isdigit);
}

/* Whether the word, or what follows a '=' in it, is one. */
static bool is_secret(const char *word)
{
	const char *value = strchr(word, '=');

	return secret_is_likely(word) || is_key(word) ||
	       (value && (secret_is_likely(value + 1) || is_key(value + 1)));
}

/* Where the value begins behind a name that ends at `at`; NULL: none does. */
static const char *value_at(const char *at, bool after_blank)
{
	at += strspn(at, "\"'");
	if (after_blank && *at == ' ')
		return at;
	at += strspn(at, " \t");
	return *at == ':' || *at == '=' ? at + 1 : NULL;
}

/* The value behind a name of this kind is nobody's business; NULL: there is none. */
static const char *value_of_secret(const char *line)
{
	static const char *const names[] = { "bearer", "token",	   "password",	   "passwd",
					     "secret", "key-data", "authorization" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		for (const char *at = line; (at = strcasestr(at, names[i]));) {
			const char *value;

			at += strlen(names[i]);
			value = value_at(at, i == 0);
			if (value)
				return value;
		}
	return NULL;
}

/* Without user and password, which stand before the '@'. Returns what is left to be written. */
static const char *write_url(const char *word, FILE *to)
{
	const char *host = strstr(word, "//");
	const char *at = host ? strchr(host, '@') : NULL;

	if (!at || strcspn(host + 2, "/") < (size_t)(at - host - 2))
		return word;
	fprintf(to, "%.*s" REDACTED, (int)(host + 2 - word), word);
	return at;
}

static void write_words(char *line, FILE *to)
{
	while (*line) {
		size_t gap = strspn(line, BETWEEN);
		size_t length = strcspn(line + gap, BETWEEN);
		char *word = line + gap, end = word[length];

		/* A URL's user and password have a colon between them. */
		if (!strncmp(word + length, "://", 3)) {
			length += strcspn(word + length, " \t\r\"'`,;<>|");
			end = word[length];
		}
		fwrite(line, 1, gap, to);
		word[length] = '\0';
		fputs(is_secret(word) ? REDACTED : write_url(word, to), to);
		word[length] = end;
		line = word + length;
	}
}

static void write_line(char *line, FILE *to)
{
	const char *value = value_of_secret(line);

	if (!value || !*value || !value[strspn(value, " \t")]) {
		write_words(line, to);
		return;
	}
	fprintf(to, "%.*s " REDACTED, (int)(value - line), line);
}

void redact_text(const char *text, FILE *to)
{
	char *copy = strdup(text), *rest = NULL;
	bool inside = false;

	/* strsep keeps empty lines. */
	rest = copy;
	for (char *line; rest && (line = strsep(&rest, "\n"));) {
		bool begins = strstr(line, "-----BEGIN");

		if (begins && !inside)
			fputs(REDACTED, to);
		else if (!inside)
			write_line(line, to);
		inside = (inside || begins) && !strstr(line, "-----END");
		if (rest && !inside)
			fputc('\n', to);
	}
	free(copy);
}
