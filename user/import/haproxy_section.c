/* SPDX-License-Identifier: BSD-2-Clause */
/* Finds the sections of a haproxy.cfg, and what they inherit. */
#include <string.h>

#include "import/haproxy.h"

/* The line of a section that begins with these words; the last one counts. */
size_t haproxy_find(const struct import *m, size_t section, const char *name, const char *second)
{
	size_t found = HAPROXY_NONE;

	if (section == HAPROXY_NONE)
		return HAPROXY_NONE;
	IMPORT_EACH(&m->words, i, section + 1, m->words.items[section].end)
	if (import_is(&m->words, i, name) &&
	    (!second || strcmp(import_word(&m->words, i, 1), second) == 0))
		found = i;
	return found;
}

/* The defaults section that a section builds on: the one that it names, or the last before it. */
size_t haproxy_defaults_of(const struct import *m, size_t section)
{
	const char *from = "";
	size_t found = HAPROXY_NONE;

	for (size_t n = 1; n + 1 < m->words.items[section].n_words; n++)
		if (strcmp(import_word(&m->words, section, n), "from") == 0)
			from = import_word(&m->words, section, n + 1);
	IMPORT_EACH(&m->words, i, 0, m->words.n_items)
	{
		if (!import_is(&m->words, i, "defaults"))
			continue;
		if (*from ? strcmp(import_word(&m->words, i, 1), from) == 0 : i < section)
			found = i;
	}
	return found;
}

/* A setting of the section, or of its defaults. */
size_t haproxy_find_setting(const struct import *m, size_t section, const char *name,
			    const char *second)
{
	size_t found = haproxy_find(m, section, name, second);

	return found != HAPROXY_NONE
		       ? found
		       : haproxy_find(m, haproxy_defaults_of(m, section), name, second);
}

size_t haproxy_find_section(const struct import *m, const char *kind, const char *name)
{
	IMPORT_EACH(&m->words, i, 0, m->words.n_items)
	if (import_is(&m->words, i, kind) && strcmp(import_word(&m->words, i, 1), name) == 0)
		return i;
	return HAPROXY_NONE;
}

/* The section with the servers that a frontend leads to without a condition. */
size_t haproxy_target_of(const struct import *m, size_t section)
{
	size_t by_default = haproxy_find_setting(m, section, "default_backend", NULL),
	       target = HAPROXY_NONE;

	if (haproxy_find(m, section, "server", NULL) != HAPROXY_NONE)
		return section;
	if (by_default != HAPROXY_NONE)
		target = haproxy_find_section(m, "backend", import_word(&m->words, by_default, 1));
	if (by_default != HAPROXY_NONE && target == HAPROXY_NONE)
		target = haproxy_find_section(m, "listen", import_word(&m->words, by_default, 1));
	return target;
}

bool haproxy_is_frontend(const struct import *m, size_t section)
{
	return import_is(&m->words, section, "frontend") || import_is(&m->words, section, "listen");
}

bool haproxy_is_http(const struct import *m, size_t section)
{
	size_t mode = haproxy_find_setting(m, section, "mode", NULL);

	return mode != HAPROXY_NONE && strcmp(import_word(&m->words, mode, 1), "http") == 0;
}
