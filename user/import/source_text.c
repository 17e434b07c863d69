/* SPDX-License-Identifier: BSD-2-Clause */
/* Recognises what is no finished configuration: other encodings, and templates. */
#include <string.h>

#include "config/config.h"
#include "import/internal.h"

#define MARKER_SHOWN 48

/* What opens a place that a template fills in, and what may follow it. */
struct marker {
	const char *opening;
	const char *in_haproxy; /* the characters that may follow in a haproxy.cfg; NULL: any */
};

/* "{%[" and "{%ci" are HAProxy's own, in a log-format. The last is Terraform's. */
static const struct marker markers[] = {
	{ "{{", NULL }, { "{%", " -+" }, { "{#", NULL },
	{ "<%", NULL }, { "%{ ", NULL }, { NULL, NULL },
};

static bool opens_here(const struct import *m, const char *at, const char *end,
		       const struct marker *marker)
{
	size_t length = strlen(marker->opening);

	if ((size_t)(end - at) < length || memcmp(at, marker->opening, length) != 0)
		return false;
	if (m->kind != IMPORT_HAPROXY || !marker->in_haproxy)
		return true;
	return at + length < end && strchr(marker->in_haproxy, at[length]);
}

/* Where a template's marker is on a line, outside of a comment; NULL: nowhere. */
static const char *find_marker(const struct import *m, const char *line, const char *end)
{
	bool blank = true; /* a # here would begin a comment */

	for (const char *at = line; at < end && !(*at == '#' && blank); at++) {
		for (const struct marker *k = markers; k->opening; k++)
			if (opens_here(m, at, end, k))
				return at;
		blank = *at == ' ' || *at == '\t';
	}
	return NULL;
}

static int check_template(const struct import *m, const char *text, size_t length)
{
	const char *end = text + length;

	for (unsigned int line = 1; text < end; line++) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));
		const char *line_end = newline ? newline : end;
		const char *marker = find_marker(m, text, line_end);
		ptrdiff_t shown = marker ? line_end - marker : 0;

		if (marker)
			return import_fail(m, line,
					   "'%.*s': a template that was not rendered; give the "
					   "file of a node",
					   shown < MARKER_SHOWN ? (int)shown : MARKER_SHOWN,
					   marker);
		text = newline ? newline + 1 : end;
	}
	return 0;
}

static bool begins_with(const char *text, size_t length, const char *bytes)
{
	return length >= strlen(bytes) && memcmp(text, bytes, strlen(bytes)) == 0;
}

/* YAML allows the byte-order mark of UTF-8. The proxies take it for a part of the first word. */
static int check_encoding(const struct import *m, const char *text, size_t length)
{
	if (begins_with(text, length, "\xff\xfe") || begins_with(text, length, "\xfe\xff"))
		return import_fail(m, 1, "UTF-16, by its first bytes; save the file as UTF-8");
	if (m->kind != IMPORT_KUBECONFIG && begins_with(text, length, "\xef\xbb\xbf"))
		return import_fail(m, 1,
				   "begins with a byte-order mark, which cannot be seen and which "
				   "the proxy refuses, too; save the file as UTF-8 without BOM");
	return 0;
}

int import_check_text(const struct import *m, const char *text, size_t length)
{
	const char *nul = memchr(text, '\0', length);
	unsigned int line = 1;
	int r;

	if (length > (size_t)CONFIG_BYTES_MAX)
		return import_fail(m, 0,
				   "larger than %d bytes, so it is no configuration; name "
				   "another file",
				   CONFIG_BYTES_MAX);
	r = check_encoding(m, text, length);
	if (r < 0)
		return r;
	for (const char *p = text; nul && p < nul; p++)
		line += *p == '\n';
	if (nul)
		return import_fail(m, line, "a NUL byte: this is no text; name another file");
	return check_template(m, text, length);
}
