/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the bind lines of a haproxy.cfg. */
#include <errno.h>
#include <string.h>

#include "import/haproxy.h"
#include "net/endpoint.h"

/* --- one line -------------------------------------------------------------------------- */

/* The words of a bind line with and without a value: those of HAProxy 1.5 to 3.2. */
static const char flags[] =
	"defer-accept tfo transparent v4v6 v6only ssl allow-0rtt force-sslv3 force-tlsv10 "
	"force-tlsv11 force-tlsv12 force-tlsv13 generate-certificates no-alpn no-ca-names "
	"no-sslv3 no-strict-sni no-tls-tickets no-tlsv10 no-tlsv11 no-tlsv12 no-tlsv13 "
	"prefer-client-ciphers strict-sni tls-tickets quic-force-retry";
static const char values[] =
	"alpn backlog ca-file ca-ignore-err ca-sign-file ca-sign-pass ca-verify-file cc ciphers "
	"ciphersuites client-sigalgs crl-file crt crt-ignore-err crt-list curves default-crt ecdhe "
	"expose-fd gid group guid-prefix id idle-ping interface ktls label level maxconn mode mss "
	"name namespace nbconn nice npn ocsp-update process proto quic-cc-algo quic-socket "
	"severity-output shards sigalgs ssl-max-ver ssl-min-ver tcp-md5sig tcp-ss tcp-ut thread "
	"tls-ticket-keys uid user verify";

static int fail_proxy_protocol(const struct import *m, unsigned int line, const char *word)
{
	return import_fail(m, line,
			   "bind ... %s: the clients send a PROXY header first, which no apiserver "
			   "understands; see that this bind leads to apiservers, and let clients "
			   "do without",
			   word);
}

/* Reads the other words of a bind line. */
static int read_options(struct import *m, size_t item)
{
	unsigned int line = m->words.items[item].line;

	for (size_t n = 2; n < m->words.items[item].n_words; n++) {
		const char *word = import_word(&m->words, item, n);
		const char *value = import_word(&m->words, item, n + 1);

		if (import_listed(word, "accept-proxy accept-netscaler-cip"))
			return fail_proxy_protocol(m, line, word);
		if (strcmp(word, "ssl") == 0)
			return import_fail(m, line,
					   "bind ... ssl: HAProxy ends the clients' TLS here, "
					   "which KubeLB does not; let clients reach the "
					   "apiserver's own TLS first");
		if (import_listed(word, "v4v6 v6only"))
			continue;
		if (import_listed(word, values)) {
			import_note(m, line, "bind ... %s %s", word, value);
			n++;
		} else if (import_listed(word, flags)) {
			import_note(m, line, "bind ... %s", word);
		} else {
			return haproxy_fail_word(m, line, word, "word of a bind line");
		}
	}
	return 0;
}

/* An IPv6 socket for every address takes IPv4 as well, unless it is told not to. */
static bool takes_ipv4_too(const struct import *m, size_t item, const struct klb_endpoint *ep)
{
	return endpoint_is_unspecified(ep) && !endpoint_is_ipv4(ep) &&
	       !import_has(&m->words, item, "v6only");
}

static int add_port(struct import *m, size_t item, struct klb_endpoint ep, unsigned int port)
{
	static const struct klb_endpoint any = { .addr = { [10] = 0xff, [11] = 0xff } };
	struct klb_endpoint also = any;
	int r;

	ep.port = also.port = port;
	r = import_add_frontend(m, m->words.items[item].line, ep);
	if (r == 0 && takes_ipv4_too(m, item, &ep))
		r = import_add_frontend(m, m->words.items[item].line, also);
	return r;
}

/* Reads a bind's address, which has a port. */
static int parse_bind(struct import *m, size_t item, const char *address,
		      struct haproxy_address *ret)
{
	unsigned int line = m->words.items[item].line;
	struct err why;

	if (haproxy_parse_address(address, ret, &why) < 0)
		return import_fail(m, line, "bind: %s", why.text);
	if (ret->relative)
		return import_fail(m, line, "bind: '%.64s' has no port; write ADDRESS:6443",
				   address);
	return 0;
}

static int read_bind(struct import *m, size_t item, const char *address, void *arg)
{
	unsigned int line = m->words.items[item].line, only = *(const unsigned int *)arg;
	struct haproxy_address a;
	int r;

	if (haproxy_is_unix(address)) {
		import_note(m, line, "bind %s: only addresses are balanced", address);
		return 0;
	}
	r = parse_bind(m, item, address, &a);
	for (unsigned int port = a.first; r == 0 && !only && port <= a.last; port++)
		r = add_port(m, item, a.endpoint, port);
	if (r < 0 || !only)
		return r;
	if (a.first > only || a.last < only || a.first != a.last)
		import_hint(m, line,
			    "bind %s: the servers have no port of their own, so HAProxy sends "
			    "other ports than %u elsewhere: those stay with HAProxy",
			    address, only);
	return a.first <= only && a.last >= only ? add_port(m, item, a.endpoint, only) : 0;
}

int haproxy_read_binds(struct import *m, size_t section, unsigned int port)
{
	IMPORT_EACH(&m->words, i, section + 1, m->words.items[section].end)
	{
		int r = import_is(&m->words, i, "bind") ? read_options(m, i) : 0;

		if (r < 0)
			return r;
	}
	return haproxy_each_bind(m, section, read_bind, &port);
}

/* --- servers without a port of their own -------------------------------------------------- */

struct ports {
	unsigned int wanted; /* the one that leads to port 6443 of the servers */
	bool has_wanted;
	unsigned int first; /* of the file; 0: none yet */
	unsigned int other_line; /* not 0: where one is that differs from it */
};

static int see_ports(struct import *m, size_t item, const char *address, void *arg)
{
	struct ports *p = arg;
	struct haproxy_address a;

	if (haproxy_is_unix(address) || haproxy_parse_address(address, &a, NULL) < 0 || a.relative)
		return 0;
	p->has_wanted |= p->wanted >= a.first && p->wanted <= a.last;
	if (!p->first)
		p->first = a.first;
	if ((a.first != p->first || a.last != p->first) && !p->other_line)
		p->other_line = m->words.items[item].line;
	return 0;
}

/* The first server line without a port of its own. */
static size_t find_relative(const struct import *m, size_t target, int *ret_offset)
{
	struct haproxy_address a;

	IMPORT_EACH(&m->words, i, target + 1, m->words.items[target].end)
	if (import_is(&m->words, i, "server") && !haproxy_is_unix(import_word(&m->words, i, 2)) &&
	    haproxy_parse_address(import_word(&m->words, i, 2), &a, NULL) == 0 && a.relative) {
		*ret_offset = a.offset;
		return i;
	}
	return HAPROXY_NONE;
}

int haproxy_choose_port(struct import *m, size_t target, unsigned int *ret)
{
	struct ports p = { .first = 0 };
	int offset = 0;
	size_t server = find_relative(m, target, &offset);

	*ret = 0;
	if (server == HAPROXY_NONE)
		return 0;
	p.wanted = (unsigned int)(KLB_PORT_DEFAULT - offset);
	IMPORT_EACH(&m->words, i, 0, m->words.n_items)
	if (haproxy_is_frontend(m, i) && haproxy_target_of(m, i) == target)
		haproxy_each_bind(m, i, see_ports, &p);
	if (!p.other_line)
		return 0;
	if (!p.has_wanted)
		return import_fail(m, m->words.items[server].line,
				   "server %.64s has no port of its own, so HAProxy sends each "
				   "port that it binds (line %u) to another one; leave one bind in "
				   "a copy of the file",
				   import_word(&m->words, server, 1), p.other_line);
	*ret = p.wanted;
	return 0;
}
