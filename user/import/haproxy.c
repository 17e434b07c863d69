/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads a haproxy.cfg: frontends and backends, or listen sections that are both, with the settings
 * of the defaults section before them. A section is a block; its lines are inside of it.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/ascii.h"
#include "net/endpoint.h"
#include "import/internal.h"

/* The index of no item. */
#define NONE SIZE_MAX

/* The settings of a server line, and of the default-server lines before it. */
struct server {
	struct import_backend backend;
	bool check;
	unsigned int ssl_line; /* not 0: HAProxy speaks TLS to the server for the clients */
	unsigned int verify_none_line;
	struct import_number interval, rise, fall, user_timeout;
	unsigned int file_line; /* of the ones below */
	const char *ca, *certificate, *name;
};

/* --- words -------------------------------------------------------------------- */

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
				   "log-forward log-profile crt-store traces");
}

/* Puts the items since the last section into it. */
static int sort_item(struct import *m, size_t *section)
{
	struct import_words *w = &m->words;
	size_t item = w->n_items - 1;
	const char *word = import_word(w, item, 0);

	if (word[0] == '.')
		return import_fail(m, w->items[item].line,
				   "'%.64s': conditions are not understood; give a copy of the "
				   "file with what holds on this node",
				   word);
	if (is_section(word)) {
		w->items[item].block = true;
		*section = item;
	} else if (*section == NONE) {
		return import_fail(m, w->items[item].line,
				   "'%.64s' before any section; is this a haproxy.cfg?", word);
	} else {
		w->items[*section].end = w->n_items;
	}
	return 0;
}

static int scan(struct import *m)
{
	char *at = m->words.text;
	size_t section = NONE;

	for (unsigned int line = 1; at; line++) {
		size_t before = m->words.n_items;
		char *next = strchr(at, '\n');
		int r;

		if (next)
			*next++ = '\0';
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

/* --- finding things ----------------------------------------------------------- */

/* The line of a section that begins with these words; the last one counts. */
static size_t find(const struct import *m, size_t section, const char *name, const char *second)
{
	size_t found = NONE;

	if (section == NONE)
		return NONE;
	IMPORT_EACH(&m->words, i, section + 1, m->words.items[section].end)
	if (import_is(&m->words, i, name) &&
	    (!second || strcmp(import_word(&m->words, i, 1), second) == 0))
		found = i;
	return found;
}

/* The defaults section that a section builds on: the one that it names, or the last before it. */
static size_t defaults_of(const struct import *m, size_t section)
{
	const char *from = "";
	size_t found = NONE;

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
static size_t find_setting(const struct import *m, size_t section, const char *name,
			   const char *second)
{
	size_t found = find(m, section, name, second);

	return found != NONE ? found : find(m, defaults_of(m, section), name, second);
}

static size_t find_section(const struct import *m, const char *kind, const char *name)
{
	IMPORT_EACH(&m->words, i, 0, m->words.n_items)
	if (import_is(&m->words, i, kind) && strcmp(import_word(&m->words, i, 1), name) == 0)
		return i;
	return NONE;
}

/* The section with the servers that a frontend leads to without a condition. */
static size_t target_of(const struct import *m, size_t section)
{
	size_t by_default = find_setting(m, section, "default_backend", NULL), target = NONE;

	if (find(m, section, "server", NULL) != NONE)
		return section;
	if (by_default != NONE)
		target = find_section(m, "backend", import_word(&m->words, by_default, 1));
	if (by_default != NONE && target == NONE)
		target = find_section(m, "listen", import_word(&m->words, by_default, 1));
	return target;
}

static bool is_frontend(const struct import *m, size_t section)
{
	return import_is(&m->words, section, "frontend") || import_is(&m->words, section, "listen");
}

static bool is_http(const struct import *m, size_t section)
{
	size_t mode = find_setting(m, section, "mode", NULL);

	return mode != NONE && strcmp(import_word(&m->words, mode, 1), "http") == 0;
}

/* --- addresses and times ------------------------------------------------------ */

/*
 * `a.b.c.d:port`, `*:port`, `:port`, `[v6]:port`, and `v6:port`, where the last colon
 * separates the port. default_port as in endpoint_parse.
 */
static int parse_address(const char *text, unsigned int default_port, struct klb_endpoint *ret,
			 struct err *e)
{
	const char *colon = strrchr(text, ':'), *host = text;
	char full[2 * ENDPOINT_TEXT_MAX];
	int length;

	if (strncmp(text, "ipv4@", 5) == 0 || strncmp(text, "ipv6@", 5) == 0)
		host += 5;
	if (strncmp(host, "tcp@", 4) == 0)
		host += 4;
	if (!colon || *host == '[')
		return endpoint_parse(strcmp(host, "*") == 0 ? "0.0.0.0" : host, default_port, ret,
				      e);
	length = colon > host ? (int)(colon - host) : 0;
	if (!length || strncmp(host, "*:", 2) == 0)
		snprintf(full, sizeof(full), "0.0.0.0%.32s", colon);
	else if (memchr(host, ':', (size_t)length))
		snprintf(full, sizeof(full), "[%.*s]%.32s", length < 64 ? length : 64, host, colon);
	else
		snprintf(full, sizeof(full), "%.100s", host);
	return endpoint_parse(full, default_port, ret, e);
}

/* HAProxy's times: one number and a unit, milliseconds where none is given. */
static bool parse_time(const char *text, unsigned int *ret_ms)
{
	static const struct import_unit units[] = {
		{ "ms", 1000 },	     { "us", 1 },	   { "s", 1000000 }, { "m", 60000000 },
		{ "h", 3600000000 }, { "d", 86400000000 }, { NULL, 0 },
	};

	return import_parse_time(text, units, false, ret_ms);
}

/* --- the choice --------------------------------------------------------------- */

/* Calls one for each address of a bind line. It stops at a result that is not 0, and returns it. */
static int each_address(struct import *m, size_t item,
			int (*one)(struct import *m, size_t item, const char *address))
{
	char copy[512], *save = NULL;
	int r = 0;

	if (strlen(import_word(&m->words, item, 1)) >= sizeof(copy))
		return import_fail(m, m->words.items[item].line,
				   "bind: too many addresses; write some on a line of their own");
	snprintf(copy, sizeof(copy), "%s", import_word(&m->words, item, 1));
	for (char *a = strtok_r(copy, ",", &save); r == 0 && a; a = strtok_r(NULL, ",", &save))
		r = one(m, item, a);
	return r;
}

/* The same for each bind line of a section. */
static int each_bind(struct import *m, size_t section,
		     int (*one)(struct import *m, size_t item, const char *address))
{
	IMPORT_EACH(&m->words, i, section + 1, m->words.items[section].end)
	{
		int r = import_is(&m->words, i, "bind") ? each_address(m, i, one) : 0;

		if (r)
			return r;
	}
	return 0;
}

static bool is_6443(const char *address)
{
	struct klb_endpoint ep;

	return parse_address(address, 0, &ep, NULL) == 0 && ep.port == KLB_PORT_DEFAULT;
}

static int bind_is_6443(struct import *m, size_t item, const char *address)
{
	(void)m;
	(void)item;
	return is_6443(address);
}

static bool listens_on_6443(struct import *m, size_t section)
{
	return each_bind(m, section, bind_is_6443) > 0;
}

static bool leads_to_6443(const struct import *m, size_t backend)
{
	bool all = false;

	IMPORT_EACH(&m->words, i, backend + 1, m->words.items[backend].end)
	{
		if (!import_is(&m->words, i, "server"))
			continue;
		if (!is_6443(import_word(&m->words, i, 2)))
			return false;
		all = true;
	}
	return all;
}

static void fill_candidate(struct import *m, size_t section, size_t target,
			   struct import_candidate *c)
{
	char from[IMPORT_LABEL_MAX], to[IMPORT_LABEL_MAX];

	*c = (struct import_candidate){ .line = m->words.items[section].line, .item = target };
	c->listens_6443 = listens_on_6443(m, section);
	c->leads_to_6443 = leads_to_6443(m, target);
	import_ascii(import_word(&m->words, section, 1), from, sizeof(from));
	import_ascii(import_word(&m->words, target, 1), to, sizeof(to));
	snprintf(c->label, sizeof(c->label), "%s to %s", from, to);
}

/* Makes one candidate of all frontends that lead to the same section with servers. */
static int list_candidates(struct import *m, struct import_candidate *list, size_t *n)
{
	IMPORT_EACH(&m->words, i, 0, m->words.n_items)
	{
		size_t target, same = 0;

		if (!is_frontend(m, i) || (target = target_of(m, i)) == NONE)
			continue;
		while (same < *n && list[same].item != target)
			same++;
		if (same < *n) {
			list[same].listens_6443 |= listens_on_6443(m, i);
			continue;
		}
		if (*n == IMPORT_CANDIDATES_MAX)
			return import_fail(m, m->words.items[i].line,
					   "more than %d frontends; leave one in a copy of the "
					   "file and name that",
					   IMPORT_CANDIDATES_MAX);
		fill_candidate(m, i, target, &list[(*n)++]);
	}
	return 0;
}

/* --- reading what was chosen: binds ------------------------------------------- */

/* Whether an address is a unix socket of either kind. */
static bool is_unix(const char *address)
{
	return address[0] == '/' || strncmp(address, "unix@", 5) == 0 ||
	       strncmp(address, "abns@", 5) == 0;
}

static int read_bind(struct import *m, size_t item, const char *address)
{
	unsigned int line = m->words.items[item].line;
	struct klb_endpoint ep, any;
	struct err why;
	int r;

	if (is_unix(address)) {
		import_note(m, line, "bind %s: only addresses are balanced", address);
		return 0;
	}
	if (parse_address(address, 0, &ep, &why) < 0)
		return import_fail(m, line, "bind: %s", why.text);
	r = import_add_frontend(m, line, ep);
	if (r == 0 && import_has(&m->words, item, "v4v6") && endpoint_is_unspecified(&ep) &&
	    parse_address("*:1", 0, &any, NULL) == 0) {
		any.port = ep.port;
		r = import_add_frontend(m, line, any);
	}
	return r;
}

/* Reads the other words of a bind line. */
static int read_bind_options(struct import *m, size_t item)
{
	unsigned int line = m->words.items[item].line;

	if (import_has(&m->words, item, "ssl"))
		return import_fail(m, line,
				   "bind ... ssl: HAProxy ends the clients' TLS here, which "
				   "KubeLB does not; let clients reach the apiserver's own TLS "
				   "first");
	for (size_t n = 2; n < m->words.items[item].n_words; n++) {
		const char *word = import_word(&m->words, item, n);

		if (strcmp(word, "v4v6") != 0 && strcmp(word, "v6only") != 0)
			import_note(m, line, "bind ... %s", word);
	}
	return 0;
}

/* --- reading what was chosen: servers ----------------------------------------- */

static int read_time(struct import *m, unsigned int line, const char *origin, const char *value,
		     struct import_number *ret)
{
	struct import_number n = { .line = line, .origin = origin };

	if (!parse_time(value, &n.value))
		return import_fail(m, line, "%s '%.64s' is no time; write one such as 5s", origin,
				   value);
	*ret = n;
	return 0;
}

static int read_count(struct import *m, unsigned int line, const char *origin, const char *value,
		      struct import_number *ret)
{
	struct import_number n = { .line = line, .origin = origin };

	if (!import_uint(value, &n.value))
		return import_fail(m, line, "%s '%.64s' is no number; write digits", origin, value);
	*ret = n;
	return 0;
}

/* Reads a word of a server line that has no value. Returns false for an unknown word. */
static bool take_flag(struct server *s, const char *word, unsigned int line)
{
	if (strcmp(word, "check") == 0)
		s->check = true;
	else if (strcmp(word, "no-check") == 0)
		s->check = false;
	else if (strcmp(word, "backup") == 0)
		s->backend.backup = true;
	else if (strcmp(word, "no-backup") == 0)
		s->backend.backup = false;
	else if (strcmp(word, "disabled") == 0)
		s->backend.off = true;
	else if (strcmp(word, "enabled") == 0)
		s->backend.off = false;
	else if (strcmp(word, "ssl") == 0)
		s->ssl_line = line;
	else if (strcmp(word, "no-ssl") == 0)
		s->ssl_line = 0;
	else /* the probes speak TLS anyway */
		return strcmp(word, "check-ssl") == 0;
	return true;
}

/* Words with a value that kubelb.yaml has no key for. */
static bool takes_value(const char *word)
{
	return import_listed(
		word,
		"fastinter downinter slowstart maxconn maxqueue minconn observe error-limit "
		"on-error on-marked-down on-marked-up port addr init-addr resolvers id cookie "
		"source track alpn check-alpn check-proto proto ssl-min-ver ssl-max-ver crl-file "
		"ciphers ciphersuites namespace agent-addr agent-inter agent-port agent-send "
		"pool-max-conn pool-low-conn pool-purge-delay max-reuse resolve-prefer redir "
		"shard sni log-proto");
}

/*
 * Reads a word whose value kubelb.yaml has a key for. Returns 1 for another word, 0, or a negative
 * errno.
 */
static int take_value(struct import *m, struct server *s, const char *word, const char *value,
		      unsigned int line)
{
	struct import_number weight;
	int r;

	if (strcmp(word, "inter") == 0)
		return read_time(m, line, "inter", value, &s->interval);
	if (strcmp(word, "tcp-ut") == 0)
		return read_time(m, line, "tcp-ut", value, &s->user_timeout);
	if (strcmp(word, "rise") == 0)
		return read_count(m, line, "rise", value, &s->rise);
	if (strcmp(word, "fall") == 0)
		return read_count(m, line, "fall", value, &s->fall);
	if (strcmp(word, "weight") == 0) {
		r = read_count(m, line, "weight", value, &weight);
		if (r == 0 && weight.value > 256)
			return import_fail(m, line,
					   "weight '%.64s' is out of HAProxy's range; "
					   "write 0..256",
					   value);
		s->backend.weight = r == 0 ? weight.value : 1;
		return r;
	}
	if (strcmp(word, "verify") == 0) {
		s->verify_none_line = strcmp(value, "none") == 0 ? line : 0;
		return 0;
	}
	s->file_line = line;
	if (strcmp(word, "ca-file") == 0)
		s->ca = value;
	else if (strcmp(word, "crt") == 0)
		s->certificate = value;
	else if (strcmp(word, "check-sni") == 0 || strcmp(word, "verifyhost") == 0)
		s->name = value;
	else
		return 1;
	return 0;
}

/* The parameters of a server or default-server line, from word n on. */
static int read_parameters(struct import *m, struct server *s, size_t item, size_t n)
{
	unsigned int line = m->words.items[item].line;

	for (; n < m->words.items[item].n_words; n++) {
		const char *word = import_word(&m->words, item, n);
		const char *value = import_word(&m->words, item, n + 1);
		int r;

		if (take_flag(s, word, line))
			continue;
		r = take_value(m, s, word, value, line);
		if (r < 0)
			return r;
		if (r == 0) {
			n++;
		} else if (takes_value(word)) {
			import_note(m, line, "%s %s", word, value);
			n++;
		} else {
			import_note(m, line, "%s", word);
		}
	}
	return 0;
}

/* A server without a port has that of the first address that clients dial. */
static unsigned int default_port(const struct import *m)
{
	return m->n_frontends ? m->frontends[0].endpoint.port : 0;
}

/* Takes the settings that KubeLB has once for all backends. */
static int take_shared(struct import *m, const struct server *s)
{
	int r = 0;

	import_set_number(m, &m->dead_peer_timeout_ms, &s->user_timeout);
	if (!s->check)
		return 0;
	import_set_number(m, &m->interval_ms, &s->interval);
	import_set_number(m, &m->rise, &s->rise);
	import_set_number(m, &m->fall, &s->fall);
	if (s->verify_none_line)
		import_hint(m, s->verify_none_line,
			    "verify none: KubeLB verifies the certificate, with probe.ca; "
			    "probe.insecureSkipVerify: true is what HAProxy does");
	if (s->ca && !s->verify_none_line)
		r = import_set_file(m, &m->ca, s->file_line, "ca-file", s->ca);
	if (r == 0 && s->certificate)
		r = import_set_file(m, &m->client_cert, s->file_line, "crt", s->certificate);
	if (r == 0 && s->certificate)
		r = import_set_file(m, &m->client_key, s->file_line, "crt", s->certificate);
	if (r == 0 && s->name && !s->verify_none_line)
		r = import_set_name(m, s->file_line, "check-sni or verifyhost", s->name);
	return r;
}

static int read_server(struct import *m, size_t item, const struct server *defaults)
{
	struct server s = *defaults;
	const char *address = import_word(&m->words, item, 2);
	struct err why;
	int r;

	s.backend.line = m->words.items[item].line;
	import_ascii(import_word(&m->words, item, 1), s.backend.label, sizeof(s.backend.label));
	if (!*address)
		return import_fail(m, s.backend.line,
				   "server without an address; write server "
				   "NAME ADDRESS:PORT");
	if (is_unix(address))
		return import_fail(m, s.backend.line,
				   "'%.64s' is a unix socket, and backends are addresses; write "
				   "the apiserver's",
				   address);
	if (parse_address(address, default_port(m), &s.backend.endpoint, &why) < 0)
		return import_fail(m, s.backend.line, "server %.64s: %s", s.backend.label,
				   why.text);
	r = read_parameters(m, &s, item, 3);
	if (r == 0 && s.ssl_line)
		return import_fail(m, s.ssl_line,
				   "server ... ssl: HAProxy speaks TLS for the clients, which "
				   "KubeLB does not; let clients speak TLS first (check-ssl is "
				   "for the checks)");
	if (r == 0)
		r = take_shared(m, &s);
	return r < 0 ? r : import_add_backend(m, &s.backend);
}

static int read_default_servers(struct import *m, size_t section, struct server *s)
{
	if (section == NONE)
		return 0;
	IMPORT_EACH(&m->words, i, section + 1, m->words.items[section].end)
	{
		int r = 0;

		if (import_is(&m->words, i, "default-server"))
			r = read_parameters(m, s, i, 1);
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_servers(struct import *m, size_t section)
{
	struct server defaults = { .backend.weight = 1 };
	int r = read_default_servers(m, defaults_of(m, section), &defaults);

	IMPORT_EACH(&m->words, i, section + 1, m->words.items[section].end)
	{
		if (r == 0 && import_is(&m->words, i, "default-server"))
			r = read_parameters(m, &defaults, i, 1);
		else if (r == 0 && import_is(&m->words, i, "server"))
			r = read_server(m, i, &defaults);
		if (r < 0)
			return r;
	}
	if (!m->n_backends)
		return import_fail(m, m->words.items[section].line,
				   "'%.64s' has no server; name the haproxy.cfg of the local proxy",
				   import_word(&m->words, section, 1));
	return 0;
}

/* --- reading what was chosen: the rest ---------------------------------------- */

static int read_timeout(struct import *m, size_t section, const char *name, const char *origin,
			struct import_number *field)
{
	size_t item = find_setting(m, section, "timeout", name);
	struct import_number n;
	int r;

	if (item == NONE)
		return 0;
	r = read_time(m, m->words.items[item].line, origin, import_word(&m->words, item, 2), &n);
	if (r == 0 && n.value)
		import_set_number(m, field, &n);
	return r;
}

static void read_balance(struct import *m, size_t section)
{
	static const struct {
		const char *name;
		enum klb_policy policy;
	} same[] = { { "leastconn", KLB_POLICY_LEAST_CONN },
		     { "random", KLB_POLICY_RANDOM },
		     { "source", KLB_POLICY_RENDEZVOUS } };
	size_t item = find_setting(m, section, "balance", NULL);
	const char *name = item == NONE ? "roundrobin" : import_word(&m->words, item, 1);
	unsigned int line = m->words.items[item == NONE ? section : item].line;

	for (size_t i = 0; i < ARRAY_SIZE(same); i++)
		if (strcmp(name, same[i].name) == 0) {
			import_set_policy(m, same[i].policy, line, same[i].name);
			return;
		}
	import_note(m, line, "balance %s%s: least-conn, KubeLB's default, is the nearest to it",
		    name, item == NONE ? ", HAProxy's default" : "");
}

/* The path of an HTTP check: the last word that is a path, of `option httpchk` or http-check. */
static int read_check_path(struct import *m, size_t item)
{
	const char *path = "";
	unsigned int line = m->words.items[item].line;

	for (size_t n = 1; n < m->words.items[item].n_words; n++)
		if (import_word(&m->words, item, n)[0] == '/')
			path = import_word(&m->words, item, n);
	if (!*path || strcmp(path, "/readyz") == 0)
		return 0;
	if (import_listed(path, "/healthz /livez /")) {
		import_note(m, line,
			    "%s as what is asked for: /readyz also tells that an apiserver is "
			    "shutting down",
			    path);
		return 0;
	}
	if (!ascii_all_graph(path) || strlen(path) > 1024) {
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

static bool is_idle_timeout(const char *name)
{
	return import_listed(name, "client server tunnel");
}

/* Notes a line of a chosen section that no other function reads. */
static int note_line(struct import *m, size_t item)
{
	const char *name = import_word(&m->words, item, 0);
	const char *second = import_word(&m->words, item, 1);
	unsigned int line = m->words.items[item].line;
	char text[160];

	if (import_listed(name, "bind server default-server balance default_backend mode log "
				"description"))
		return 0;
	import_join(&m->words, item, text, sizeof(text));
	if (strcmp(name, "timeout") == 0 && import_listed(second, "connect check"))
		return 0;
	if (strcmp(name, "timeout") == 0 && is_idle_timeout(second))
		import_note(m, line, "%s: no connection is ended for being idle", text);
	else if (strcmp(name, "use_backend") == 0)
		import_hint(m, line, "%s: only the default_backend is carried over", text);
	else if (strcmp(name, "http-check") == 0 && strcmp(second, "expect") == 0)
		note_expectation(m, item);
	else if (strcmp(name, "http-check") == 0 ||
		 (strcmp(name, "option") == 0 && strcmp(second, "httpchk") == 0))
		return read_check_path(m, item);
	else
		import_note(m, line, "%s", text);
	return 0;
}

/* Idle timeouts from the defaults section also end connections. */
static void note_idle_timeouts(struct import *m, size_t section)
{
	static const char *const names[] = { "client", "server", "tunnel" };
	char text[160];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		size_t item = find_setting(m, section, "timeout", names[i]);

		if (item != NONE && find(m, section, "timeout", names[i]) == NONE)
			import_note(m, m->words.items[item].line,
				    "%s: no connection is ended for being idle",
				    import_join(&m->words, item, text, sizeof(text)));
	}
}

static int note_section(struct import *m, size_t section)
{
	IMPORT_EACH(&m->words, i, section + 1, m->words.items[section].end)
	{
		int r = note_line(m, i);

		if (r < 0)
			return r;
	}
	return 0;
}

static int read_frontend(struct import *m, size_t section)
{
	if (is_http(m, section))
		return import_fail(m, m->words.items[section].line,
				   "'%.64s' is in mode http, where HAProxy takes requests apart; "
				   "KubeLB does what mode tcp does: see that clients do without",
				   import_word(&m->words, section, 1));
	IMPORT_EACH(&m->words, i, section + 1, m->words.items[section].end)
	{
		int r = import_is(&m->words, i, "bind") ? read_bind_options(m, i) : 0;

		if (r < 0)
			return r;
	}
	note_idle_timeouts(m, section);
	return each_bind(m, section, read_bind);
}

static int read_frontends(struct import *m, size_t backend)
{
	IMPORT_EACH(&m->words, i, 0, m->words.n_items)
	{
		int r = 0;

		if (!is_frontend(m, i) || target_of(m, i) != backend) {
			if (i != backend)
				import_own(m, import_word(&m->words, i,
							  m->words.items[i].n_words > 1));
			continue;
		}
		r = read_frontend(m, i);
		if (r == 0 && i != backend)
			r = note_section(m, i);
		if (r < 0)
			return r;
	}
	if (!m->n_frontends)
		return import_fail(m, m->words.items[backend].line,
				   "nothing that leads to '%.64s' binds to a TCP address; add a "
				   "bind",
				   import_word(&m->words, backend, 1));
	return 0;
}

static int read_backend(struct import *m, size_t section)
{
	int r = read_servers(m, section);

	if (r == 0)
		r = note_section(m, section);
	if (r == 0)
		r = read_timeout(m, section, "connect", "timeout connect", &m->connect_timeout_ms);
	if (r == 0)
		r = read_timeout(m, section, "check", "timeout check", &m->timeout_ms);
	if (r == 0) {
		read_balance(m, section);
		note_idle_timeouts(m, section);
	}
	return r;
}

static int note_port(struct import *m, size_t item, const char *address)
{
	struct klb_endpoint ep;

	(void)item;
	if (parse_address(address, 0, &ep, NULL) == 0)
		import_busy(m, &ep);
	return 0;
}

/* Notes every port on which the file has something listen. */
static int note_ports(struct import *m)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < m->words.n_items; i++)
		if (import_is(&m->words, i, "bind"))
			r = each_address(m, i, note_port);
	return r;
}

int import_read_haproxy(struct import *m, const char *text, size_t length)
{
	struct import_candidate list[IMPORT_CANDIDATES_MAX];
	size_t n = 0, chosen = 0;
	int r;

	m->words.text = strndup(text, length);
	if (!m->words.text)
		return import_fail_memory(m);
	r = scan(m);
	if (r == 0)
		r = list_candidates(m, list, &n);
	if (r == 0 && !n)
		return import_fail(m, m->words.n_items ? m->words.items[0].line : 0,
				   "no frontend with a default_backend, and no listen with a "
				   "server; name the haproxy.cfg of the local proxy");
	if (r == 0)
		r = import_choose(m, list, n, "frontend", &chosen);
	if (r == 0)
		r = read_frontends(m, list[chosen].item);
	if (r == 0)
		r = read_backend(m, list[chosen].item);
	if (r == 0)
		r = note_ports(m);
	return r;
}
