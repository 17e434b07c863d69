/* SPDX-License-Identifier: BSD-2-Clause */
/* Splits a haproxy.cfg into sections and their lines. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "import/haproxy.h"

/* Reads \n, \t, \xNN and the like, or the character itself. *at is behind the backslash. */
static char take_escape(char **at)
{
	static const char names[] = "trn0", values[] = "\t\r\n?";
	char c = *(*at)++;
	const char *name = strchr(names, c);
	char hex[3] = "", *end;
	long value;

	if (c == 'x' && (*at)[0] && (*at)[1]) {
		memcpy(hex, *at, 2);
		value = strtol(hex, &end, 16);
		if (end == hex + 2) {
			*at += 2;
			return value ? (char)value : '?';
		}
	}
	return c && name ? values[name - names] : c;
}

/* Reads one word at *at, in place; line: for the message about a quote. */
static int take_word(const struct import *m, unsigned int line, char **at, char **ret)
{
	char *to = *at, quote = '\0';

	*ret = to;
	while (**at && (quote || (**at != ' ' && **at != '\t' && **at != '#'))) {
		if (**at == '\\' && (*at)[1] && quote != '\'') {
			++*at;
			*to++ = take_escape(at);
		} else if ((**at == '"' || **at == '\'') && (!quote || quote == **at)) {
			quote = quote ? '\0' : **at;
			++*at;
		} else {
			*to++ = *(*at)++;
		}
	}
	if (quote)
		return import_fail(m, line, "a quote that is not closed on its line; close it");
	if (**at == '#')
		**at = '\0';
	else if (**at)
		++*at;
	*to = '\0';
	return 0;
}

/* Makes an item of the words of one line; an empty line makes none. */
static int scan_line(struct import *m, unsigned int line, char *at)
{
	struct import_words *w = &m->words;
	bool open = false;
	int r = 0;

	while (r == 0) {
		char *word = NULL;

		at += strspn(at, " \t\r");
		if (!*at || *at == '#')
			break;
		r = take_word(m, line, &at, &word);
		if (r < 0)
			return r;
		if (!open)
			r = import_words_item(w, line);
		open = true;
		if (r == 0)
			r = import_words_word(w, word);
	}
	return r < 0 ? import_fail_memory(m) : 0;
}

static bool is_section(const char *word)
{
	return import_listed(word, "global defaults frontend backend listen peers resolvers "
				   "userlist mailers program cache http-errors ring fcgi-app "
				   "log-forward log-profile crt-store traces acme healthcheck");
}

/* Puts the items since the last section into it. */
static int sort_item(struct import *m, size_t *section)
{
	struct import_words *w = &m->words;
	size_t item = w->n_items - 1;
	const char *word = import_word(w, item, 0);

	if (import_listed(word, ".notice .warning .alert .diag")) {
		w->n_items--; /* what HAProxy prints, and nothing else */
		return 0;
	}
	if (word[0] == '.')
		return import_fail(m, w->items[item].line,
				   "'%.64s': conditions are not understood; give a copy of the "
				   "file with what holds on this node",
				   word);
	if (is_section(word)) {
		w->items[item].block = true;
		*section = item;
	} else if (*section == HAPROXY_NONE) {
		return import_fail(m, w->items[item].line,
				   "'%.64s' before any section; is this a haproxy.cfg?", word);
	} else {
		w->items[*section].end = w->n_items;
	}
	return 0;
}

/* As HAProxy does, from 2.3 on: the rest may be missing, and nobody would see it. */
static int check_end(const struct import *m, const char *last_line, unsigned int line)
{
	if (!*last_line)
		return 0;
	return import_fail(m, line,
			   "the last line has no end, which HAProxy takes for a file that was cut "
			   "off; see that it is complete, and end the line");
}

int haproxy_scan(struct import *m)
{
	char *at = m->words.text;
	size_t section = HAPROXY_NONE;

	for (unsigned int line = 1; at; line++) {
		size_t before = m->words.n_items;
		char *next = strchr(at, '\n');
		int r;

		if (next)
			*next++ = '\0';
		else if (check_end(m, at, line) < 0)
			return -EINVAL;
		at[strcspn(at, "\r")] = '\0';
		r = scan_line(m, line, at);
		if (r == 0 && m->words.n_items > before)
			r = sort_item(m, &section);
		if (r < 0)
			return r;
		at = next;
	}
	return 0;
}
