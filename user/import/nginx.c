/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads an nginx.conf: stream {} with upstreams, and servers that pass to them. A file that is
 * meant to be included in stream {}, and so has no block around it, works as well. Includes are not
 * followed: a note says so.
 */
#include "import/nginx.h"

#include <errno.h>
#include <string.h>

#include "base/array.h"
#include "net/endpoint.h"

/* --- reading what was chosen -------------------------------------------------- */

/* The parameters of a listen in stream {}: those of nginx 1.9 to 1.29. */
static bool is_parameter(const char *word)
{
	static const char *const with_value[] = { "setfib=",   "fastopen=",    "backlog=",
						  "rcvbuf=",   "sndbuf=",      "accept_filter=",
						  "ipv6only=", "so_keepalive=" };

	for (size_t i = 0; i < ARRAY_SIZE(with_value); i++)
		if (strncmp(word, with_value[i], strlen(with_value[i])) == 0)
			return true;
	return import_listed(word, "bind reuseport deferred default_server multipath");
}

static int fail_parameter(const struct import *m, unsigned int line, const char *word)
{
	if (strcmp(word, "ssl") == 0)
		return import_fail(m, line,
				   "listen ... ssl: nginx ends the clients' TLS here, which KubeLB "
				   "does not; let clients reach the apiserver's own TLS first");
	if (strcmp(word, "proxy_protocol") == 0)
		return import_fail(m, line,
				   "listen ... proxy_protocol: the clients send a PROXY header "
				   "first, which no apiserver understands; see that this server {} "
				   "leads to apiservers, and let clients do without");
	return import_fail(
		m, line,
		"listen ... '%.64s' is no parameter that nginx takes; correct it (is a ; "
		"missing?)",
		word);
}

static int read_parameters(struct import *m, size_t item, bool *ret_ipv4_too)
{
	unsigned int line = m->words.items[item].line;

	for (size_t n = 2; n < m->words.items[item].n_words; n++) {
		const char *word = import_word(&m->words, item, n);

		if (!is_parameter(word))
			return fail_parameter(m, line, word);
		if (strcmp(word, "ipv6only=off") == 0)
			*ret_ipv4_too = true;
		else if (strncmp(word, "ipv6only=", 9) != 0)
			import_note(m, line, "listen ... %s", word);
	}
	return 0;
}

static int read_listen(struct import *m, size_t item)
{
	static const struct klb_endpoint any = { .addr = { [10] = 0xff, [11] = 0xff } };
	unsigned int line = m->words.items[item].line;
	const char *address = import_word(&m->words, item, 1);
	struct nginx_listen listen;
	struct klb_endpoint also = any;
	bool ipv4_too = false;
	struct err why;
	int r;

	if (strncmp(address, "unix:", 5) == 0) {
		import_note(m, line, "listen %s: only addresses are balanced", address);
		return 0;
	}
	if (nginx_parse_listen(address, &listen, &why) < 0)
		return import_fail(m, line, "listen: %s", why.text);
	r = read_parameters(m, item, &ipv4_too);
	for (; r == 0 && listen.endpoint.port <= listen.last; listen.endpoint.port++) {
		also.port = listen.endpoint.port;
		r = import_add_frontend(m, line, listen.endpoint);
		if (r == 0 && ipv4_too && endpoint_is_unspecified(&listen.endpoint))
			r = import_add_frontend(m, line, also);
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
		return import_fail(m, n.line, "%s '%.64s' is no time; write one such as 1s",
				   n.origin, import_word(&m->words, item, 1));
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

		if (!nginx_is_server(m, i) || !nginx_same_target(m, i, chosen))
			continue;
		r = check_changes(m, stream, i);
		IMPORT_EACH(&m->words, k, in.first, in.last)
		{
			if (r == 0 && nginx_is_listen(m, k))
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

/* Notes every port on which the file has something listen. */
static void note_ports(struct import *m)
{
	struct nginx_listen listen;

	for (size_t i = 0; i < m->words.n_items; i++)
		if (import_is(&m->words, i, "listen") &&
		    nginx_parse_listen(import_word(&m->words, i, 1), &listen, NULL) == 0)
			import_busy(m, &listen.endpoint, listen.last);
}

static void note_rest(struct import *m, struct nginx_context file, struct nginx_context stream)
{
	nginx_note_includes(m, stream);
	note_ports(m);
	if (stream.first != file.first)
		IMPORT_EACH(&m->words, i, file.first, file.last)
	if (!import_is(&m->words, i, "stream") && !import_is(&m->words, i, "include"))
		import_own(m, import_word(&m->words, i, 0));
	IMPORT_EACH(&m->words, i, stream.first, stream.last)
	note_setting(m, i);
}

/* Whether a file to be included has what stands in http {}. */
static bool is_http(const struct import *m, struct nginx_context file)
{
	size_t item;

	return nginx_find_deep(m, file, "location", &item) ||
	       (nginx_find_deep(m, file, "proxy_pass", &item) &&
		strncmp(import_word(&m->words, item, 1), "http", 4) == 0 &&
		strstr(import_word(&m->words, item, 1), "://"));
}

/* The context of upstreams and servers: stream {}, or the top of a file to be included. */
static struct nginx_context find_stream(const struct import *m, struct nginx_context file)
{
	size_t stream, other;

	if (nginx_find(m, file, "stream", &stream) && m->words.items[stream].block)
		return nginx_inside(m, stream);
	if (nginx_find(m, file, "http", &other) || nginx_find(m, file, "events", &other) ||
	    is_http(m, file))
		return (struct nginx_context){ 0, 0 };
	if (nginx_find(m, file, "server", &other) || nginx_find(m, file, "upstream", &other))
		return file;
	return (struct nginx_context){ 0, 0 };
}

int import_read_nginx(struct import *m, const char *text, size_t length)
{
	struct nginx_context file = { 0, 0 }, stream;
	size_t chosen = 0;
	int r;

	m->words.text = strndup(text, length);
	if (!m->words.text)
		return import_fail_memory(m);
	r = nginx_scan(m);
	if (r < 0)
		return r;
	file.last = m->words.n_items;
	stream = find_stream(m, file);
	r = nginx_check_file(m, file);
	if (r == 0)
		r = nginx_check_stream(m, stream);
	if (r == 0)
		r = nginx_choose(m, file, stream, &chosen);
	if (r == 0)
		r = read_servers(m, stream, chosen);
	if (r == 0)
		r = nginx_read_target(m, stream, chosen);
	if (r == 0)
		note_rest(m, file, stream);
	return r;
}
