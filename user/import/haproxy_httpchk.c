/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the HTTP checks of a haproxy.cfg: the path, and the answer that is expected. */
#include <string.h>

#include "base/ascii.h"
#include "import/haproxy.h"

#define PATH_LENGTH_MAX 1024

/* The last line of the section, or of the nearest defaults, that says whether there is a check. */
static size_t find_switch(const struct import *m, size_t section)
{
	for (; section != HAPROXY_NONE; section = haproxy_defaults_of(m, section)) {
		size_t found = HAPROXY_NONE;

		IMPORT_EACH(&m->words, i, section + 1, m->words.items[section].end)
		if ((import_is(&m->words, i, "option") &&
		     strcmp(import_word(&m->words, i, 1), "httpchk") == 0) ||
		    (import_listed(import_word(&m->words, i, 0), "no default") &&
		     strcmp(import_word(&m->words, i, 2), "httpchk") == 0))
			found = i;
		if (found != HAPROXY_NONE)
			return found;
	}
	return HAPROXY_NONE;
}

/* The path of `option httpchk [METHOD] PATH [VERSION]`; "/" is HAProxy's default. */
static const char *path_of_option(const struct import *m, size_t item)
{
	size_t n = m->words.items[item].n_words;

	return n == 2 ? "/" : import_word(&m->words, item, n == 3 ? 2 : 3);
}

/* The path of `http-check send ... uri PATH`, or NULL. */
static const char *path_of_send(const struct import *m, size_t item)
{
	for (size_t n = 2; n + 1 < m->words.items[item].n_words; n++)
		if (import_listed(import_word(&m->words, item, n), "uri uri-lf"))
			return import_word(&m->words, item, n + 1);
	return NULL;
}

/* Of all paths of an apiserver, this one alone tells whether it takes clients. */
static bool tells_readiness(const char *path)
{
	return strcmp(path, "/readyz") == 0 || strncmp(path, "/readyz?", 8) == 0;
}

static int take_path(struct import *m, unsigned int line, const char *path)
{
	if (strcmp(path, "/readyz") == 0)
		return 0;
	if (!tells_readiness(path)) {
		import_note(m, line,
			    "%.64s as what is asked for: /readyz also tells that an apiserver is "
			    "starting or shutting down",
			    path);
		return 0;
	}
	if (!ascii_all_graph(path) || strlen(path) > PATH_LENGTH_MAX) {
		import_note(m, line, "a path that is no plain ASCII");
		return 0;
	}
	return import_set_text(m, &m->path, line, "option httpchk", path);
}

static void note_expectation(struct import *m, size_t item)
{
	const char *status = import_word(&m->words, item, 3);
	unsigned int line = m->words.items[item].line;
	char text[160];

	import_join(&m->words, item, text, sizeof(text));
	if (strcmp(text, "http-check expect status 200") == 0)
		return;
	if (strcmp(status, "401") == 0 || strcmp(status, "403") == 0)
		import_hint(m, line,
			    "%s: a cluster without anonymous access; set probe.clientCert and "
			    "probe.clientKey",
			    text);
	else
		import_note(m, line, "%s: 200 is what makes an apiserver ready", text);
}

int haproxy_read_httpchk(struct import *m, size_t section)
{
	size_t check = find_switch(m, section);
	size_t send = haproxy_find_setting(m, section, "http-check", "send");
	size_t expect = haproxy_find_setting(m, section, "http-check", "expect");
	const char *path = send == HAPROXY_NONE ? NULL : path_of_send(m, send);

	if (expect != HAPROXY_NONE)
		note_expectation(m, expect);
	if (check == HAPROXY_NONE || !import_is(&m->words, check, "option"))
		return 0;
	if (path)
		return take_path(m, m->words.items[send].line, path);
	return take_path(m, m->words.items[check].line, path_of_option(m, check));
}
