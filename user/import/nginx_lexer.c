/* SPDX-License-Identifier: BSD-2-Clause */
/* Splits an nginx.conf into directives and blocks. */
#include <string.h>

#include "import/nginx.h"

#define DEPTH_MAX 32

/* The state of the tokenizer. It changes the text in place: words end in NULs. */
struct scanner {
	struct import *m;
	char *at;
	unsigned int line;
	bool open; /* the last item still takes words */
	size_t blocks[DEPTH_MAX];
	size_t depth;
};

/* --- words -------------------------------------------------------------------- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Reads an escape into *to. */
static void take_escape(struct scanner *s, char **to)
{
	static const char names[] = "trn", values[] = "\t\r\n";
	char c = s->at[1];
	const char *name = c ? strchr(names, c) : NULL;

	if (name) {
		*(*to)++ = values[name - names];
	} else if (c == '"' || c == '\'' || c == '\\') {
		*(*to)++ = c;
	} else { /* stays, for regular expressions */
		*(*to)++ = '\\';
		if (c)
			*(*to)++ = c;
	}
	s->line += c == '\n';
	s->at += c ? 2 : 1;
}

/* Reads a quoted word from the opening quote on. Leaves at behind the closing one. */
static int take_quoted(struct scanner *s, char **ret)
{
	unsigned int begin = s->line;
	char quote = *s->at++, *to = s->at;

	*ret = to;
	while (*s->at && *s->at != quote) {
		s->line += *s->at == '\n';
		if (*s->at == '\\')
			take_escape(s, &to);
		else
			*to++ = *s->at++;
	}
	if (!*s->at)
		return import_fail(s->m, begin, "this quote is never closed; add the other one");
	s->at++;
	if (*s->at && !is_blank(*s->at) && !strchr(";{)", *s->at))
		return import_fail(s->m, s->line,
				   "something follows the closing quote, which nginx refuses; "
				   "separate the two, or is a ; missing?");
	*to = '\0';
	return 0;
}

/*
 * Reads a word without quotes. Returns the character that ended it, which its NUL may have
 * replaced.
 */
static char take_plain(struct scanner *s, char **ret)
{
	char *to = s->at, end;
	bool variable = false; /* behind a $, where a brace belongs to the word */

	*ret = to;
	while (*s->at && !is_blank(*s->at) && *s->at != ';' && (*s->at != '{' || variable)) {
		variable = *s->at == '$';
		if (*s->at == '\\')
			take_escape(s, &to);
		else
			*to++ = *s->at++;
	}
	end = *s->at;
	*to = '\0';
	return end;
}

static int add_word(struct scanner *s, char *word, unsigned int line)
{
	struct import_words *w = &s->m->words;
	int r = 0;

	if (!s->open)
		r = import_words_item(w, line);
	s->open = true;
	if (r == 0)
		r = import_words_word(w, word);
	return r < 0 ? import_fail_memory(s->m) : 0;
}

/* --- blocks ------------------------------------------------------------------- */

/* A block in another language, which the same module of nginx reads: to its closing brace. */
static int skip_program(struct scanner *s)
{
	struct import_words *w = &s->m->words;
	unsigned int depth = 1;

	for (; *s->at && depth; s->at++) {
		s->line += *s->at == '\n';
		depth += *s->at == '{';
		depth -= *s->at == '}';
	}
	w->items[w->n_items - 1].block = true;
	s->open = false;
	if (depth)
		return import_fail(s->m, w->items[w->n_items - 1].line,
				   "the '{' of '%.64s' is never closed; is the file complete?",
				   import_word(w, w->n_items - 1, 0));
	return 0;
}

static int begin_block(struct scanner *s)
{
	struct import_words *w = &s->m->words;

	if (!s->open)
		return import_fail(s->m, s->line,
				   "'{' without a name before it; is this an "
				   "nginx.conf?");
	if (s->depth == DEPTH_MAX)
		return import_fail(s->m, s->line,
				   "more than %d blocks inside of each other; "
				   "remove some",
				   DEPTH_MAX);
	if (strstr(import_word(w, w->n_items - 1, 0), "_by_lua_block"))
		return skip_program(s);
	w->items[w->n_items - 1].block = true;
	s->blocks[s->depth++] = w->n_items - 1;
	s->open = false;
	return 0;
}

static int end_block(struct scanner *s)
{
	struct import_words *w = &s->m->words;

	if (s->open)
		return import_fail(s->m, w->items[w->n_items - 1].line,
				   "'%.64s' is not ended by ';'; add it",
				   import_word(w, w->n_items - 1, 0));
	if (!s->depth)
		return import_fail(s->m, s->line, "'}' without a '{' before it; remove it");
	w->items[s->blocks[--s->depth]].end = w->n_items;
	return 0;
}

static int end_directive(struct scanner *s)
{
	if (!s->open)
		return import_fail(s->m, s->line, "';' without anything before it; remove it");
	s->open = false;
	return 0;
}

/* ; { or }, whichever c is. */
static int take_mark(struct scanner *s, char c)
{
	s->at++;
	return c == ';' ? end_directive(s) : c == '{' ? begin_block(s) : end_block(s);
}

static int take_word(struct scanner *s)
{
	unsigned int line = s->line;
	char *word = NULL, end = '\0';
	int r = 0;

	if (*s->at == '"' || *s->at == '\'')
		r = take_quoted(s, &word);
	else
		end = take_plain(s, &word);
	if (r == 0)
		r = add_word(s, word, line);
	if (r < 0 || !end)
		return r;
	/* The NUL may have replaced the character that ended the word, so that is handled
	 * here. */
	if (end == ';' || end == '{')
		return take_mark(s, end);
	s->line += end == '\n';
	s->at++;
	return 0;
}

static int take_next(struct scanner *s)
{
	char c = *s->at;

	if (is_blank(c)) {
		s->line += c == '\n';
		s->at++;
		return 0;
	}
	if (c == '#') {
		s->at += strcspn(s->at, "\n");
		return 0;
	}
	if (c == ';' || c == '{' || c == '}')
		return take_mark(s, c);
	return take_word(s);
}

int nginx_scan(struct import *m)
{
	struct import_words *w = &m->words;
	struct scanner s = { .m = m, .at = w->text, .line = 1 };
	int r = 0;

	while (r == 0 && *s.at)
		r = take_next(&s);
	if (r < 0)
		return r;
	if (s.open)
		return import_fail(m, w->items[w->n_items - 1].line,
				   "'%.64s' is not ended by ';'; is the file complete?",
				   import_word(w, w->n_items - 1, 0));
	if (s.depth)
		return import_fail(m, w->items[s.blocks[s.depth - 1]].line,
				   "the '{' of '%.64s' is never closed; is the file complete?",
				   import_word(w, s.blocks[s.depth - 1], 0));
	return 0;
}
