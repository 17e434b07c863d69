/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the bind lines of a haproxy.cfg. */
#include <string.h>

#include "import/haproxy.h"
#include "net/endpoint.h"

int haproxy_read_bind(struct import *m, size_t item, const char *address)
{
	unsigned int line = m->words.items[item].line;
	struct klb_endpoint ep, any;
	struct err why;
	int r;

	if (haproxy_is_unix(address)) {
		import_note(m, line, "bind %s: only addresses are balanced", address);
		return 0;
	}
	if (haproxy_parse_address(address, 0, &ep, &why) < 0)
		return import_fail(m, line, "bind: %s", why.text);
	r = import_add_frontend(m, line, ep);
	if (r == 0 && import_has(&m->words, item, "v4v6") && endpoint_is_unspecified(&ep) &&
	    haproxy_parse_address("*:1", 0, &any, NULL) == 0) {
		any.port = ep.port;
		r = import_add_frontend(m, line, any);
	}
	return r;
}

/* Reads the other words of a bind line. */
int haproxy_read_bind_options(struct import *m, size_t item)
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
