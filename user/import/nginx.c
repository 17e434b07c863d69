/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads an nginx.conf: stream {} with upstreams, and servers that pass to them. A file that is
 * meant to be included in stream {}, and so has no block around it, works as well. Includes are not
 * followed: a note says so.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "net/endpoint.h"
#include "import/internal.h"

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

/* A range of items: what stands inside of a block, or the whole file. */
struct context {
	size_t first, last;
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
	/* The NUL may have replaced the character that ended the word, so that is handled here. */
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

static int scan(struct import *m)
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

/* --- finding things ----------------------------------------------------------- */

static struct context inside(const struct import *m, size_t item)
{
	return (struct context){ item + 1, m->words.items[item].end };
}

/* The first directive of that name in a context, if there is one. */
static bool find(const struct import *m, struct context in, const char *name, size_t *ret)
{
	IMPORT_EACH(&m->words, i, in.first, in.last)
	if (import_is(&m->words, i, name)) {
		*ret = i;
		return true;
	}
	return false;
}

/* A setting of the server, or of the stream {} around it. */
static bool find_setting(const struct import *m, size_t server, struct context stream,
			 const char *name, size_t *ret)
{
	return find(m, inside(m, server), name, ret) || find(m, stream, name, ret);
}

static const char *target_of(const struct import *m, size_t server)
{
	size_t pass;

	return find(m, inside(m, server), "proxy_pass", &pass) ? import_word(&m->words, pass, 1)
							       : "";
}

/* A server {} of a stream that balances TCP. */
static bool is_server(const struct import *m, size_t item)
{
	size_t listen;

	return m->words.items[item].block && import_is(&m->words, item, "server") &&
	       *target_of(m, item) &&
	       !(find(m, inside(m, item), "listen", &listen) &&
		 import_has(&m->words, listen, "udp"));
}

static bool find_upstream(const struct import *m, struct context stream, const char *name,
			  size_t *ret)
{
	IMPORT_EACH(&m->words, i, stream.first, stream.last)
	if (m->words.items[i].block && import_is(&m->words, i, "upstream") &&
	    strcmp(import_word(&m->words, i, 1), name) == 0) {
		*ret = i;
		return true;
	}
	return false;
}

/* --- addresses and times ------------------------------------------------------ */

/* `port`, `address:port`, `*:port`, `[v6]:port` or `localhost:port`. */
static int parse_listen(const char *text, struct klb_endpoint *ret, struct err *e)
{
	static const char *const names[][2] = { { "*:", "0.0.0.0:" },
						{ "localhost:", "127.0.0.1:" } };
	char full[ENDPOINT_TEXT_MAX + 16];
	unsigned int port;

	if (import_uint(text, &port)) {
		snprintf(full, sizeof(full), "0.0.0.0:%.32s", text);
		return endpoint_parse(full, 0, ret, e);
	}
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strncmp(text, names[i][0], strlen(names[i][0])) == 0) {
			snprintf(full, sizeof(full), "%s%.32s", names[i][1],
				 text + strlen(names[i][0]));
			return endpoint_parse(full, 0, ret, e);
		}
	return endpoint_parse(text, 0, ret, e);
}

/* nginx's times: "1m 30s" in one word or more, seconds where no unit is given. */
static bool parse_time(const char *text, unsigned int *ret_ms)
{
	static const struct import_unit units[] = {
		{ "s", 1000000 },	{ "ms", 1000 },		 { "m", 60000000 },
		{ "h", 3600000000 },	{ "d", 86400000000 },	 { "w", 604800000000 },
		{ "M", 2592000000000 }, { "y", 31536000000000 }, { NULL, 0 },
	};

	return import_parse_time(text, units, true, ret_ms);
}

/* --- the choice --------------------------------------------------------------- */

static bool upstream_has_6443(const struct import *m, struct context stream, const char *target)
{
	struct klb_endpoint ep;
	bool all = false;
	size_t upstream;

	if (!find_upstream(m, stream, target, &upstream))
		return endpoint_parse(target, 0, &ep, NULL) == 0 && ep.port == KLB_PORT_DEFAULT;
	IMPORT_EACH(&m->words, i, upstream + 1, m->words.items[upstream].end)
	{
		if (!import_is(&m->words, i, "server"))
			continue;
		if (endpoint_parse(import_word(&m->words, i, 1), 0, &ep, NULL) < 0 ||
		    ep.port != KLB_PORT_DEFAULT)
			return false;
		all = true;
	}
	return all;
}

static bool listens_on_6443(const struct import *m, size_t server)
{
	struct context in = inside(m, server);
	struct klb_endpoint ep;

	IMPORT_EACH(&m->words, i, in.first, in.last)
	if (import_is(&m->words, i, "listen") &&
	    parse_listen(import_word(&m->words, i, 1), &ep, NULL) == 0 &&
	    ep.port == KLB_PORT_DEFAULT)
		return true;
	return false;
}

static void fill_candidate(const struct import *m, struct context stream, size_t server,
			   struct import_candidate *c)
{
	char listens[IMPORT_LABEL_MAX], target[IMPORT_LABEL_MAX];
	size_t listen;

	*c = (struct import_candidate){ .line = m->words.items[server].line, .item = server };
	c->listens_6443 = listens_on_6443(m, server);
	c->leads_to_6443 = upstream_has_6443(m, stream, target_of(m, server));
	import_ascii(find(m, inside(m, server), "listen", &listen)
			     ? import_word(&m->words, listen, 1)
			     : "nowhere",
		     listens, sizeof(listens));
	snprintf(c->label, sizeof(c->label), "%s to %s", listens,
		 import_ascii(target_of(m, server), target, sizeof(target)));
}

/*
 * Makes one candidate of all servers that pass to the same upstream, such as one on [::1] and one
 * on 127.0.0.1.
 */
static int list_candidates(struct import *m, struct context stream, struct import_candidate *list,
			   size_t *n)
{
	IMPORT_EACH(&m->words, i, stream.first, stream.last)
	{
		size_t same = 0;

		if (!is_server(m, i))
			continue;
		while (same < *n && strcmp(target_of(m, list[same].item), target_of(m, i)) != 0)
			same++;
		if (same < *n) {
			list[same].listens_6443 |= listens_on_6443(m, i);
			continue;
		}
		if (*n == IMPORT_CANDIDATES_MAX)
			return import_fail(m, m->words.items[i].line,
					   "more than %d upstreams that servers pass to; leave one "
					   "in a copy of the file and name that",
					   IMPORT_CANDIDATES_MAX);
		fill_candidate(m, stream, i, &list[(*n)++]);
	}
	return 0;
}

/* --- reading what was chosen -------------------------------------------------- */

static int read_listen(struct import *m, size_t item)
{
	unsigned int line = m->words.items[item].line;
	const char *address = import_word(&m->words, item, 1);
	struct klb_endpoint ep, any;
	struct err why;
	int r;

	if (strncmp(address, "unix:", 5) == 0) {
		import_note(m, line, "listen %s: only addresses are balanced", address);
		return 0;
	}
	if (import_has(&m->words, item, "ssl"))
		return import_fail(m, line,
				   "listen ... ssl: nginx ends the clients' TLS here, which KubeLB "
				   "does not; let clients reach the apiserver's own TLS first");
	if (parse_listen(address, &ep, &why) < 0)
		return import_fail(m, line, "listen: %s", why.text);
	r = import_add_frontend(m, line, ep);
	for (size_t n = 2; r == 0 && n < m->words.items[item].n_words; n++) {
		const char *word = import_word(&m->words, item, n);

		if (strcmp(word, "ipv6only=off") == 0 && endpoint_is_unspecified(&ep)) {
			parse_listen("*:1", &any, NULL);
			any.port = ep.port;
			r = import_add_frontend(m, line, any);
		} else if (strncmp(word, "ipv6only=", 9) != 0) {
			import_note(m, line, "listen ... %s", word);
		}
	}
	return r;
}

/* The value behind name=, or NULL. */
static const char *value_of(const char *word, const char *name)
{
	size_t length = strlen(name);

	return strncmp(word, name, length) == 0 && word[length] == '=' ? word + length + 1 : NULL;
}

static int read_parameter(struct import *m, struct import_backend *b, const char *word)
{
	const char *weight = value_of(word, "weight");

	if (weight && (!import_uint(weight, &b->weight) || !b->weight))
		return import_fail(m, b->line, "'%.64s' is no weight; write weight=1 or more",
				   word);
	if (strcmp(word, "down") == 0)
		b->off = true;
	else if (strcmp(word, "backup") == 0)
		b->backup = true;
	else if (value_of(word, "max_fails") || value_of(word, "fail_timeout"))
		import_note(m, b->line, "%s: has no key; probes tell who is dead", word);
	else if (!weight)
		import_note(m, b->line, "server ... %s", word);
	return 0;
}

static int read_server(struct import *m, size_t item)
{
	struct import_backend b = { .line = m->words.items[item].line, .weight = 1 };
	const char *address = import_word(&m->words, item, 1);
	struct err why;
	int r = 0;

	if (strncmp(address, "unix:", 5) == 0)
		return import_fail(m, b.line,
				   "'%.64s' is a unix socket, and backends are "
				   "addresses; write the apiserver's",
				   address);
	if (endpoint_parse(address, 0, &b.endpoint, &why) < 0)
		return import_fail(m, b.line, "server: %s", why.text);
	for (size_t n = 2; r == 0 && n < m->words.items[item].n_words; n++)
		r = read_parameter(m, &b, import_word(&m->words, item, n));
	return r < 0 ? r : import_add_backend(m, &b);
}

/* random [two [least_conn]] */
static void read_random(struct import *m, size_t item)
{
	bool counts = import_has(&m->words, item, "least_conn");

	import_set_policy(m, counts ? KLB_POLICY_LEAST_CONN : KLB_POLICY_RANDOM,
			  m->words.items[item].line, "random");
	if (counts)
		import_note(m, m->words.items[item].line,
			    "random two least_conn: least-conn compares them all");
}

static void read_hash(struct import *m, size_t item)
{
	import_set_policy(m, KLB_POLICY_RENDEZVOUS, m->words.items[item].line, "hash");
	import_note(m, m->words.items[item].line,
		    "hash %s: rendezvous goes by the node, which is always the same one",
		    import_word(&m->words, item, 1));
}

static int read_upstream(struct import *m, size_t upstream)
{
	struct context in = inside(m, upstream);
	unsigned int line = m->words.items[upstream].line;
	char text[160];

	IMPORT_EACH(&m->words, i, in.first, in.last)
	{
		int r = 0;

		if (import_is(&m->words, i, "server"))
			r = read_server(m, i);
		else if (import_is(&m->words, i, "least_conn"))
			import_set_policy(m, KLB_POLICY_LEAST_CONN, m->words.items[i].line,
					  "least_conn");
		else if (import_is(&m->words, i, "random"))
			read_random(m, i);
		else if (import_is(&m->words, i, "hash"))
			read_hash(m, i);
		else if (!import_is(&m->words, i, "include")) /* see note_includes */
			import_note(m, m->words.items[i].line, "%s",
				    import_join(&m->words, i, text, sizeof(text)));
		if (r < 0)
			return r;
	}
	if (!m->n_backends)
		return import_fail(m, line,
				   "upstream '%.64s' has no server; is it in another file "
				   "that is included?",
				   import_word(&m->words, upstream, 1));
	if (!m->policy_line)
		import_note(m, line,
			    "round robin, nginx's default: least-conn, KubeLB's, is the "
			    "nearest to it");
	return 0;
}

/* proxy_pass to an upstream, or to a single address. */
static int read_target(struct import *m, struct context stream, size_t server)
{
	struct import_backend b = { .weight = 1 };
	size_t upstream, pass = server;
	const char *target;
	struct err why;

	find(m, inside(m, server), "proxy_pass", &pass);
	target = import_word(&m->words, pass, 1);
	b.line = m->words.items[pass].line;
	if (strchr(target, '$'))
		return import_fail(m, b.line,
				   "proxy_pass %.64s is chosen for each connection by what it "
				   "carries, which KubeLB does not look at; write the upstream "
				   "of the apiservers there in a copy of the file",
				   target);
	if (find_upstream(m, stream, target, &upstream))
		return read_upstream(m, upstream);
	if (endpoint_parse(target, 0, &b.endpoint, &why) < 0)
		return import_fail(m, b.line,
				   "no upstream '%.64s' in this file, and as an address: %s",
				   target, why.text);
	return import_add_backend(m, &b);
}

static int read_connect_timeout(struct import *m, struct context stream, size_t server)
{
	struct import_number n = { .origin = "proxy_connect_timeout" };
	char text[160];
	size_t item;

	if (!find_setting(m, server, stream, n.origin, &item))
		return 0;
	n.line = m->words.items[item].line;
	if (!parse_time(import_word(&m->words, item, 1), &n.value))
		return import_fail(m, n.line, "'%.64s' is no time; write one such as 1s",
				   import_word(&m->words, item, 1));
	if (n.value)
		import_set_number(m, &m->connect_timeout_ms, &n);
	else
		import_note(m, n.line, "%s", import_join(&m->words, item, text, sizeof(text)));
	return 0;
}

/* Refuses settings with which nginx changes the bytes: KubeLB is not in the path of the bytes. */
static int check_changes(struct import *m, struct context stream, size_t server)
{
	size_t item;

	if (find_setting(m, server, stream, "proxy_ssl", &item) &&
	    import_has(&m->words, item, "on"))
		return import_fail(m, m->words.items[item].line,
				   "proxy_ssl on: nginx speaks TLS for the clients, which KubeLB "
				   "does not; let clients speak TLS first");
	if (find_setting(m, server, stream, "proxy_protocol", &item) &&
	    import_has(&m->words, item, "on"))
		return import_fail(m, m->words.items[item].line,
				   "proxy_protocol on: no apiserver understands that; see that "
				   "this server {} leads to apiservers");
	return 0;
}

/* Notes a directive of the server, or of the stream {} around it, that has no key. */
static void note_setting(struct import *m, size_t item)
{
	char text[160];

	if (import_listed(import_word(&m->words, item, 0),
			  "listen proxy_pass proxy_connect_timeout proxy_ssl proxy_protocol "
			  "server upstream include map log_format"))
		return;
	import_join(&m->words, item, text, sizeof(text));
	if (import_is(&m->words, item, "proxy_timeout"))
		import_note(m, m->words.items[item].line,
			    "%s: no connection is ended for being idle", text);
	else
		import_note(m, m->words.items[item].line, "%s", text);
}

static int read_servers(struct import *m, struct context stream, size_t chosen)
{
	IMPORT_EACH(&m->words, i, stream.first, stream.last)
	{
		struct context in = inside(m, i);
		int r;

		if (!is_server(m, i) || strcmp(target_of(m, i), target_of(m, chosen)) != 0)
			continue;
		r = check_changes(m, stream, i);
		IMPORT_EACH(&m->words, k, in.first, in.last)
		{
			if (r == 0 && import_is(&m->words, k, "listen"))
				r = read_listen(m, k);
			note_setting(m, k);
		}
		if (r == 0)
			r = read_connect_timeout(m, stream, i);
		if (r < 0)
			return r;
	}
	if (!m->n_frontends)
		return import_fail(m, m->words.items[chosen].line,
				   "this server {} listens on no TCP address; add a listen");
	return 0;
}

/* --- around it ---------------------------------------------------------------- */

/* Notes the includes where they could matter: in the file, in stream {}, and inside of that. */
static void note_includes(struct import *m, struct context in)
{
	IMPORT_EACH(&m->words, i, in.first, in.last)
	{
		if (import_is(&m->words, i, "include"))
			import_hint(m, m->words.items[i].line,
				    "include %s is not followed: if the apiservers are in there, "
				    "give that file",
				    import_word(&m->words, i, 1));
		else if (import_is(&m->words, i, "stream") || import_is(&m->words, i, "server") ||
			 import_is(&m->words, i, "upstream"))
			note_includes(m, inside(m, i));
	}
}

/* Notes every port on which the file has something listen. */
static void note_ports(struct import *m)
{
	struct klb_endpoint ep;

	for (size_t i = 0; i < m->words.n_items; i++)
		if (import_is(&m->words, i, "listen") &&
		    parse_listen(import_word(&m->words, i, 1), &ep, NULL) == 0)
			import_busy(m, &ep);
}

static void note_rest(struct import *m, struct context file, struct context stream)
{
	note_includes(m, file);
	note_ports(m);
	if (stream.first != file.first)
		IMPORT_EACH(&m->words, i, file.first, file.last)
	if (!import_is(&m->words, i, "stream") && !import_is(&m->words, i, "include"))
		import_own(m, import_word(&m->words, i, 0));
	IMPORT_EACH(&m->words, i, stream.first, stream.last)
	note_setting(m, i);
}

static int fail_none(struct import *m, struct context file)
{
	unsigned int line = 0;
	const char *what = "no server {} with a proxy_pass in a stream {}";
	size_t item;

	if (find(m, file, "stream", &item))
		line = m->words.items[item].line;
	else if (find(m, file, "http", &item))
		line = m->words.items[item].line;
	else if (!m->words.n_items)
		return import_fail(m, 0, "empty; name the nginx.conf of the local proxy");
	if (line && import_is(&m->words, item, "http"))
		return import_fail(m, line,
				   "%s; a proxy in http {} ends the clients' TLS, and has "
				   "no counterpart",
				   what);
	note_includes(m, file);
	if (m->n_notes)
		return import_fail(m, line ? line : 1,
				   "%s, but an include (line %u), which is not "
				   "followed; name that file",
				   what, m->notes[0].lines[0]);
	return import_fail(m, line ? line : 1, "%s; name the nginx.conf of the local proxy", what);
}

/* The context of upstreams and servers: stream {}, or the top of a file to be included. */
static struct context find_stream(const struct import *m, struct context file)
{
	size_t stream, other;

	if (find(m, file, "stream", &stream) && m->words.items[stream].block)
		return inside(m, stream);
	if (find(m, file, "http", &other) || find(m, file, "events", &other))
		return (struct context){ 0, 0 };
	return file;
}

int import_read_nginx(struct import *m, const char *text, size_t length)
{
	struct import_candidate list[IMPORT_CANDIDATES_MAX];
	struct context file = { 0, 0 }, stream;
	size_t n = 0, chosen = 0;
	int r;

	m->words.text = strndup(text, length);
	if (!m->words.text)
		return import_fail_memory(m);
	r = scan(m);
	if (r < 0)
		return r;
	file.last = m->words.n_items;
	stream = find_stream(m, file);
	r = list_candidates(m, stream, list, &n);
	if (r == 0 && !n)
		return fail_none(m, file);
	if (r == 0)
		r = import_choose(m, list, n, "upstream", &chosen);
	if (r == 0)
		r = read_servers(m, stream, list[chosen].item);
	if (r == 0)
		r = read_target(m, stream, list[chosen].item);
	if (r == 0)
		note_rest(m, file, stream);
	return r;
}
