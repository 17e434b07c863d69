/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the servers of a haproxy.cfg. */
#include <string.h>

#include "import/haproxy.h"

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
		return haproxy_read_time(m, line, "inter", value, &s->interval);
	if (strcmp(word, "tcp-ut") == 0)
		return haproxy_read_time(m, line, "tcp-ut", value, &s->user_timeout);
	if (strcmp(word, "rise") == 0)
		return haproxy_read_count(m, line, "rise", value, &s->rise);
	if (strcmp(word, "fall") == 0)
		return haproxy_read_count(m, line, "fall", value, &s->fall);
	if (strcmp(word, "weight") == 0) {
		r = haproxy_read_count(m, line, "weight", value, &weight);
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
	if (haproxy_is_unix(address))
		return import_fail(m, s.backend.line,
				   "'%.64s' is a unix socket, and backends are addresses; write "
				   "the apiserver's",
				   address);
	if (haproxy_parse_address(address, default_port(m), &s.backend.endpoint, &why) < 0)
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
	if (section == HAPROXY_NONE)
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

int haproxy_read_servers(struct import *m, size_t section)
{
	struct server defaults = { .backend.weight = 1 };
	int r = read_default_servers(m, haproxy_defaults_of(m, section), &defaults);

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
