/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the servers of a haproxy.cfg. */
#include <errno.h>
#include <string.h>

#include "import/haproxy.h"
#include "net/endpoint.h"

/* The settings of a server line, and of the default-server lines before it. */
struct server {
	struct import_backend backend;
	bool check;
	unsigned int ssl_line; /* not 0: HAProxy speaks TLS to the server for the clients */
	unsigned int verify_none_line;
	unsigned int proxy_line; /* not 0: HAProxy sends a PROXY header first */
	const char *proxy_word;
	struct import_number interval, rise, fall, user_timeout;
	unsigned int file_line; /* of the ones below */
	const char *ca, *certificate, *name;
};

/* Reads a word that says whether the server is checked, used, or kept back. */
static bool take_switch(struct server *s, const char *word)
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
	else /* the probes speak TLS anyway */
		return strcmp(word, "check-ssl") == 0;
	return true;
}

static void set_proxy(struct server *s, const char *word, unsigned int line)
{
	s->proxy_line = line;
	s->proxy_word = word;
}

/* Reads a word about what HAProxy adds to the clients' bytes. */
static bool take_change(struct server *s, const char *word, unsigned int line)
{
	if (strcmp(word, "ssl") == 0)
		s->ssl_line = line;
	else if (strcmp(word, "no-ssl") == 0)
		s->ssl_line = 0;
	else if (strncmp(word, "no-send-proxy", 13) == 0 ||
		 strcmp(word, "no-check-send-proxy") == 0)
		s->proxy_line = 0;
	else if (strncmp(word, "send-proxy", 10) == 0 || strcmp(word, "check-send-proxy") == 0)
		set_proxy(s, word, line);
	else
		return false;
	return true;
}

/* Words that kubelb.yaml has no key for, without and with a value: HAProxy 1.5 to 3.2. */
static const char flags[] =
	"agent-check allow-0rtt check-pool-conn-reuse check-reuse-pool check-sni-auto "
	"check-via-socks4 force-sslv3 force-tlsv10 force-tlsv11 force-tlsv12 force-tlsv13 "
	"no-agent-check no-check-reuse-pool no-check-sni-auto no-check-ssl no-renegotiate "
	"no-sni-auto no-ssl-reuse no-sslv3 no-strict-maxconn no-tfo no-tls-tickets no-tlsv10 "
	"no-tlsv11 no-tlsv12 no-tlsv13 no-verifyhost non-stick renegotiate sni-auto ssl-reuse "
	"stick strict-maxconn tfo tls-tickets";
static const char values[] =
	"addr agent-addr agent-inter agent-port agent-send alpn cc check-alpn "
	"check-pool-conn-name check-proto ciphers ciphersuites client-sigalgs cookie crl-file "
	"curves downinter error-limit fastinter guid hash-key id idle-ping init-addr init-state "
	"interface ktls log-bufsize log-proto max-reuse maxconn maxqueue minconn namespace npn "
	"observe on-error on-marked-down on-marked-up pool-conn-name pool-low-conn pool-max-conn "
	"pool-purge-delay port proto proxy-v2-options quic-cc-algo redir resolve-net resolve-opts "
	"resolve-prefer resolvers shard sigalgs slowstart sni socks4 source ssl-max-ver "
	"ssl-min-ver tcp-md5sig track usesrc ws";

static int take_weight(struct import *m, struct server *s, const char *value, unsigned int line)
{
	struct import_number weight;
	int r = haproxy_read_count(m, line, "weight", value, &weight);

	if (r == 0 && weight.value > 256)
		return import_fail(m, line,
				   "weight '%.64s' is out of HAProxy's range; write 0..256", value);
	s->backend.weight = r == 0 ? weight.value : 1;
	return r;
}

static int take_verify(struct import *m, struct server *s, const char *value, unsigned int line)
{
	s->verify_none_line = strcmp(value, "none") == 0 ? line : 0;
	if (import_listed(value, "none required"))
		return 0;
	return haproxy_fail_word(m, line, value, "word behind verify");
}

/*
 * Reads a word whose value kubelb.yaml has a key for. Returns 1 for another word, 0, or a negative
 * errno.
 */
static int take_value(struct import *m, struct server *s, const char *word, const char *value,
		      unsigned int line)
{
	if (strcmp(word, "inter") == 0)
		return haproxy_read_time(m, line, "inter", value, &s->interval);
	if (strcmp(word, "tcp-ut") == 0)
		return haproxy_read_time(m, line, "tcp-ut", value, &s->user_timeout);
	if (strcmp(word, "rise") == 0)
		return haproxy_read_count(m, line, "rise", value, &s->rise);
	if (strcmp(word, "fall") == 0)
		return haproxy_read_count(m, line, "fall", value, &s->fall);
	if (strcmp(word, "weight") == 0)
		return take_weight(m, s, value, line);
	if (strcmp(word, "verify") == 0)
		return take_verify(m, s, value, line);
	if (strcmp(word, "ca-file") == 0)
		s->ca = value;
	else if (strcmp(word, "crt") == 0)
		s->certificate = value;
	else if (strcmp(word, "check-sni") == 0 || strcmp(word, "verifyhost") == 0)
		s->name = value;
	else
		return 1;
	s->file_line = line;
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

		if (take_switch(s, word) || take_change(s, word, line))
			continue;
		r = take_value(m, s, word, value, line);
		if (r < 0)
			return r;
		if (r == 0) {
			n++;
		} else if (import_listed(word, values)) {
			import_note(m, line, "%s %s", word, value);
			n++;
		} else if (import_listed(word, flags)) {
			import_note(m, line, "%s", word);
		} else {
			return haproxy_fail_word(m, line, word, "word of a server line");
		}
	}
	return 0;
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

/* The port of a server without one of its own: that of the first frontend, and the offset. */
static int resolve_port(struct import *m, struct haproxy_address *a, const struct server *s)
{
	int port = (int)(m->n_frontends ? m->frontends[0].endpoint.port : 0) + a->offset;

	if (!a->relative)
		return 0;
	if (port < 1 || port > 65535)
		return import_fail(m, s->backend.line,
				   "server %.64s: port %d, from the one that clients dial and the "
				   "offset; write the port",
				   s->backend.label, port);
	a->endpoint.port = (unsigned int)port;
	return 0;
}

static int read_address(struct import *m, const char *address, struct server *s)
{
	struct haproxy_address a;
	struct err why;
	int r;

	if (!*address)
		return import_fail(m, s->backend.line,
				   "server without an address; write server NAME ADDRESS:PORT");
	if (haproxy_is_unix(address))
		return import_fail(m, s->backend.line,
				   "'%.64s' is a unix socket or the like, and backends are "
				   "addresses; write the apiserver's",
				   address);
	if (haproxy_parse_address(address, &a, &why) < 0)
		return import_fail(m, s->backend.line, "server %.64s: %s", s->backend.label,
				   why.text);
	if (a.first != a.last)
		return import_fail(m, s->backend.line,
				   "server %.64s: '%.64s' is a range of ports; write one",
				   s->backend.label, address);
	r = resolve_port(m, &a, s);
	s->backend.endpoint = a.endpoint;
	return r;
}

/* Refuses settings with which HAProxy changes the bytes: KubeLB is not in their path. */
static int check_changes(const struct import *m, const struct server *s)
{
	if (s->ssl_line)
		return import_fail(m, s->ssl_line,
				   "server ... ssl: HAProxy speaks TLS for the clients, which "
				   "KubeLB does not; let clients speak TLS first (check-ssl is for "
				   "the checks)");
	if (s->proxy_line)
		return import_fail(m, s->proxy_line,
				   "server ... %.64s: a PROXY header, which no apiserver "
				   "understands; see that this server is one",
				   s->proxy_word);
	return 0;
}

static int check_name(const struct import *m, size_t section, size_t item)
{
	const char *name = import_word(&m->words, item, 1);

	for (size_t i = section + 1; i < item; i++)
		if (import_is(&m->words, i, "server") &&
		    strcmp(import_word(&m->words, i, 1), name) == 0)
			return import_fail(m, m->words.items[item].line,
					   "server '%.64s' is there already (line %u), which "
					   "HAProxy refuses; rename one",
					   name, m->words.items[i].line);
	return 0;
}

static int read_server(struct import *m, size_t item, const struct server *defaults)
{
	struct server s = *defaults;
	int r;

	s.backend.line = m->words.items[item].line;
	import_ascii(import_word(&m->words, item, 1), s.backend.label, sizeof(s.backend.label));
	r = read_address(m, import_word(&m->words, item, 2), &s);
	if (r == 0)
		r = read_parameters(m, &s, item, 3);
	if (r == 0)
		r = check_changes(m, &s);
	if (r == 0)
		r = take_shared(m, &s);
	return r < 0 ? r : import_add_backend(m, &s.backend);
}

/* What every server of a section gets, beginning with the defaults that others inherit from. */
static int read_default_servers(struct import *m, size_t section, struct server *s)
{
	int r = 0;

	if (section == HAPROXY_NONE)
		return 0;
	/* haproxy_check bounds how deep this goes. */
	r = read_default_servers(m, haproxy_defaults_of(m, section), s);
	IMPORT_EACH(&m->words, i, section + 1, m->words.items[section].end)
	if (r == 0 && import_is(&m->words, i, "default-server"))
		r = read_parameters(m, s, i, 1);
	return r;
}

/* Servers without an address of their own. */
static int check_servers(const struct import *m, size_t section)
{
	size_t item = haproxy_find(m, section, "server-template", NULL);

	if (item != HAPROXY_NONE)
		return import_fail(m, m->words.items[item].line,
				   "server-template takes the addresses of '%.64s' from DNS, which "
				   "KubeLB does not ask; write a server line with the address of "
				   "each apiserver in a copy of the file",
				   import_word(&m->words, item, 3));
	if (haproxy_find(m, section, "server", NULL) != HAPROXY_NONE)
		return 0;
	item = haproxy_find(m, section, "dispatch", NULL);
	if (item != HAPROXY_NONE)
		return import_fail(m, m->words.items[item].line,
				   "dispatch %.64s: write it as a server in a copy of the file",
				   import_word(&m->words, item, 1));
	return import_fail(m, m->words.items[section].line,
			   "'%.64s' has no server; is the file cut off? name the haproxy.cfg of "
			   "the local proxy",
			   import_word(&m->words, section, 1));
}

int haproxy_read_servers(struct import *m, size_t section)
{
	struct server defaults = { .backend.weight = 1 };
	int r = check_servers(m, section);

	if (r == 0)
		r = read_default_servers(m, haproxy_defaults_of(m, section), &defaults);
	IMPORT_EACH(&m->words, i, section + 1, m->words.items[section].end)
	{
		if (r == 0 && import_is(&m->words, i, "default-server"))
			r = read_parameters(m, &defaults, i, 1);
		else if (r == 0 && import_is(&m->words, i, "server"))
			r = check_name(m, section, i) < 0 ? -EINVAL : read_server(m, i, &defaults);
		if (r < 0)
			return r;
	}
	return r;
}
