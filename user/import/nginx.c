/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads an nginx.conf: stream {} with upstreams, and servers that pass to them. A file that is
 * meant to be included in stream {}, and so has no block around it, works as well. Includes are not
 * followed: a note says so.
 */
#include "import/nginx.h"

#include <stdio.h>
#include <string.h>

#include "net/endpoint.h"

/* --- the choice --------------------------------------------------------------- */

static bool upstream_has_6443(const struct import *m, struct nginx_context stream,
			      const char *target)
{
	struct klb_endpoint ep;
	bool all = false;
	size_t upstream;

	if (!nginx_find_upstream(m, stream, target, &upstream))
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
	struct nginx_context in = nginx_inside(m, server);
	struct klb_endpoint ep;

	IMPORT_EACH(&m->words, i, in.first, in.last)
	if (import_is(&m->words, i, "listen") &&
	    nginx_parse_listen(import_word(&m->words, i, 1), &ep, NULL) == 0 &&
	    ep.port == KLB_PORT_DEFAULT)
		return true;
	return false;
}

static void fill_candidate(const struct import *m, struct nginx_context stream, size_t server,
			   struct import_candidate *c)
{
	char listens[IMPORT_LABEL_MAX], target[IMPORT_LABEL_MAX];
	size_t listen;

	*c = (struct import_candidate){ .line = m->words.items[server].line, .item = server };
	c->listens_6443 = listens_on_6443(m, server);
	c->leads_to_6443 = upstream_has_6443(m, stream, nginx_target_of(m, server));
	import_ascii(nginx_find(m, nginx_inside(m, server), "listen", &listen)
			     ? import_word(&m->words, listen, 1)
			     : "nowhere",
		     listens, sizeof(listens));
	snprintf(c->label, sizeof(c->label), "%s to %s", listens,
		 import_ascii(nginx_target_of(m, server), target, sizeof(target)));
}

/*
 * Makes one candidate of all servers that pass to the same upstream, such as one on [::1] and one
 * on 127.0.0.1.
 */
static int list_candidates(struct import *m, struct nginx_context stream,
			   struct import_candidate *list, size_t *n)
{
	IMPORT_EACH(&m->words, i, stream.first, stream.last)
	{
		size_t same = 0;

		if (!nginx_is_server(m, i))
			continue;
		while (same < *n &&
		       strcmp(nginx_target_of(m, list[same].item), nginx_target_of(m, i)) != 0)
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
	if (nginx_parse_listen(address, &ep, &why) < 0)
		return import_fail(m, line, "listen: %s", why.text);
	r = import_add_frontend(m, line, ep);
	for (size_t n = 2; r == 0 && n < m->words.items[item].n_words; n++) {
		const char *word = import_word(&m->words, item, n);

		if (strcmp(word, "ipv6only=off") == 0 && endpoint_is_unspecified(&ep)) {
			nginx_parse_listen("*:1", &any, NULL);
			any.port = ep.port;
			r = import_add_frontend(m, line, any);
		} else if (strncmp(word, "ipv6only=", 9) != 0) {
			import_note(m, line, "listen ... %s", word);
		}
	}
	return r;
}

static int read_connect_timeout(struct import *m, struct nginx_context stream, size_t server)
{
	struct import_number n = { .origin = "proxy_connect_timeout" };
	char text[160];
	size_t item;

	if (!nginx_find_setting(m, server, stream, n.origin, &item))
		return 0;
	n.line = m->words.items[item].line;
	if (!nginx_parse_time(import_word(&m->words, item, 1), &n.value))
		return import_fail(m, n.line, "'%.64s' is no time; write one such as 1s",
				   import_word(&m->words, item, 1));
	if (n.value)
		import_set_number(m, &m->connect_timeout_ms, &n);
	else
		import_note(m, n.line, "%s", import_join(&m->words, item, text, sizeof(text)));
	return 0;
}

/* Refuses settings with which nginx changes the bytes: KubeLB is not in the path of the bytes. */
static int check_changes(struct import *m, struct nginx_context stream, size_t server)
{
	size_t item;

	if (nginx_find_setting(m, server, stream, "proxy_ssl", &item) &&
	    import_has(&m->words, item, "on"))
		return import_fail(m, m->words.items[item].line,
				   "proxy_ssl on: nginx speaks TLS for the clients, which KubeLB "
				   "does not; let clients speak TLS first");
	if (nginx_find_setting(m, server, stream, "proxy_protocol", &item) &&
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

static int read_servers(struct import *m, struct nginx_context stream, size_t chosen)
{
	IMPORT_EACH(&m->words, i, stream.first, stream.last)
	{
		struct nginx_context in = nginx_inside(m, i);
		int r;

		if (!nginx_is_server(m, i) ||
		    strcmp(nginx_target_of(m, i), nginx_target_of(m, chosen)) != 0)
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
static void note_includes(struct import *m, struct nginx_context in)
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
			note_includes(m, nginx_inside(m, i));
	}
}

/* Notes every port on which the file has something listen. */
static void note_ports(struct import *m)
{
	struct klb_endpoint ep;

	for (size_t i = 0; i < m->words.n_items; i++)
		if (import_is(&m->words, i, "listen") &&
		    nginx_parse_listen(import_word(&m->words, i, 1), &ep, NULL) == 0)
			import_busy(m, &ep);
}

static void note_rest(struct import *m, struct nginx_context file, struct nginx_context stream)
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

static int fail_none(struct import *m, struct nginx_context file)
{
	unsigned int line = 0;
	const char *what = "no server {} with a proxy_pass in a stream {}";
	size_t item;

	if (nginx_find(m, file, "stream", &item))
		line = m->words.items[item].line;
	else if (nginx_find(m, file, "http", &item))
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
static struct nginx_context find_stream(const struct import *m, struct nginx_context file)
{
	size_t stream, other;

	if (nginx_find(m, file, "stream", &stream) && m->words.items[stream].block)
		return nginx_inside(m, stream);
	if (nginx_find(m, file, "http", &other) || nginx_find(m, file, "events", &other))
		return (struct nginx_context){ 0, 0 };
	return file;
}

int import_read_nginx(struct import *m, const char *text, size_t length)
{
	struct import_candidate list[IMPORT_CANDIDATES_MAX];
	struct nginx_context file = { 0, 0 }, stream;
	size_t n = 0, chosen = 0;
	int r;

	m->words.text = strndup(text, length);
	if (!m->words.text)
		return import_fail_memory(m);
	r = nginx_scan(m);
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
		r = nginx_read_target(m, stream, list[chosen].item);
	if (r == 0)
		note_rest(m, file, stream);
	return r;
}
