/* SPDX-License-Identifier: BSD-2-Clause */
/* Finds the sections of a haproxy.cfg, what they inherit, and where they lead. */
#include <string.h>

#include "import/haproxy.h"

/* --- lines ----------------------------------------------------------------------------- */

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

const char *haproxy_from_of(const struct import *m, size_t section)
{
	for (size_t n = 1; n + 1 < m->words.items[section].n_words; n++)
		if (strcmp(import_word(&m->words, section, n), "from") == 0)
			return import_word(&m->words, section, n + 1);
	return "";
}

/* HAProxy knows those alone that stand before; a defaults section inherits what it names only. */
size_t haproxy_defaults_of(const struct import *m, size_t section)
{
	const char *from = haproxy_from_of(m, section);
	size_t found = HAPROXY_NONE;

	if (!*from && import_is(&m->words, section, "defaults"))
		return HAPROXY_NONE;
	IMPORT_EACH(&m->words, i, 0, section)
	if (import_is(&m->words, i, "defaults") &&
	    (!*from || strcmp(import_word(&m->words, i, 1), from) == 0))
		found = i;
	return found;
}

size_t haproxy_find_setting(const struct import *m, size_t section, const char *name,
			    const char *second)
{
	size_t found = haproxy_find(m, section, name, second);

	while (found == HAPROXY_NONE && section != HAPROXY_NONE) {
		section = haproxy_defaults_of(m, section);
		found = haproxy_find(m, section, name, second);
	}
	return found;
}

bool haproxy_is_frontend(const struct import *m, size_t section)
{
	return import_is(&m->words, section, "frontend") || import_is(&m->words, section, "listen");
}

bool haproxy_is_backend(const struct import *m, size_t section)
{
	return import_is(&m->words, section, "backend") || import_is(&m->words, section, "listen");
}

bool haproxy_is_http(const struct import *m, size_t section)
{
	size_t mode = haproxy_find_setting(m, section, "mode", NULL);

	return mode != HAPROXY_NONE && strcmp(import_word(&m->words, mode, 1), "http") == 0;
}

bool haproxy_is_disabled(const struct import *m, size_t section)
{
	size_t on, off;

	for (; section != HAPROXY_NONE; section = haproxy_defaults_of(m, section)) {
		on = haproxy_find(m, section, "enabled", NULL);
		off = haproxy_find(m, section, "disabled", NULL);
		if (on != HAPROXY_NONE || off != HAPROXY_NONE)
			return off != HAPROXY_NONE && (on == HAPROXY_NONE || off > on);
	}
	return false;
}

bool haproxy_has_servers(const struct import *m, size_t section)
{
	return haproxy_find(m, section, "server", NULL) != HAPROXY_NONE ||
	       haproxy_find(m, section, "server-template", NULL) != HAPROXY_NONE ||
	       haproxy_find(m, section, "dispatch", NULL) != HAPROXY_NONE;
}

size_t haproxy_find_backend(const struct import *m, const char *name)
{
	IMPORT_EACH(&m->words, i, 0, m->words.n_items)
	if (haproxy_is_backend(m, i) && strcmp(import_word(&m->words, i, 1), name) == 0)
		return i;
	return HAPROXY_NONE;
}

/* --- where a frontend leads --------------------------------------------------------------- */

enum haproxy_condition haproxy_condition_of(const struct import *m, size_t item)
{
	const char *word = import_word(&m->words, item, 2), *acl = import_word(&m->words, item, 3);
	bool single = m->words.items[item].n_words == 4;

	if (!*word)
		return HAPROXY_ALWAYS;
	if (single && strcmp(acl, strcmp(word, "if") == 0 ? "TRUE" : "FALSE") == 0)
		return HAPROXY_ALWAYS;
	if (single && strcmp(acl, strcmp(word, "if") == 0 ? "FALSE" : "TRUE") == 0)
		return HAPROXY_NEVER;
	return HAPROXY_SOMETIMES;
}

/* The first use_backend that always holds comes before default_backend, as in HAProxy. */
size_t haproxy_leading_line(const struct import *m, size_t section)
{
	IMPORT_EACH(&m->words, i, section + 1, m->words.items[section].end)
	if (import_is(&m->words, i, "use_backend") && haproxy_condition_of(m, i) == HAPROXY_ALWAYS)
		return i;
	return haproxy_find_setting(m, section, "default_backend", NULL);
}

size_t haproxy_target_of(const struct import *m, size_t section)
{
	size_t line = haproxy_leading_line(m, section);

	if (haproxy_is_disabled(m, section))
		return HAPROXY_NONE;
	if (line != HAPROXY_NONE)
		return haproxy_find_backend(m, import_word(&m->words, line, 1));
	return haproxy_is_backend(m, section) && haproxy_has_servers(m, section) ? section
										 : HAPROXY_NONE;
}

bool haproxy_next_condition(const struct import *m, size_t section, size_t *item)
{
	size_t last = haproxy_leading_line(m, section), end = m->words.items[section].end;

	/* What stands behind a use_backend that always holds is never asked. */
	if (last != HAPROXY_NONE && import_is(&m->words, last, "use_backend"))
		end = last;
	for (size_t i = *item == HAPROXY_NONE ? section + 1 : *item + 1; i < end; i++)
		if (import_is(&m->words, i, "use_backend") &&
		    haproxy_condition_of(m, i) == HAPROXY_SOMETIMES) {
			*item = i;
			return true;
		}
	return false;
}
