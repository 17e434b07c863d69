/* SPDX-License-Identifier: BSD-2-Clause */
/* Finds directives of an nginx.conf, and reads addresses and times. */
#include <stdio.h>
#include <string.h>

#include "import/nginx.h"
#include "base/array.h"
#include "net/endpoint.h"

struct nginx_context nginx_inside(const struct import *m, size_t item)
{
	return (struct nginx_context){ item + 1, m->words.items[item].end };
}

/* The first directive of that name in a context, if there is one. */
bool nginx_find(const struct import *m, struct nginx_context in, const char *name, size_t *ret)
{
	IMPORT_EACH(&m->words, i, in.first, in.last)
	if (import_is(&m->words, i, name)) {
		*ret = i;
		return true;
	}
	return false;
}

/* A setting of the server, or of the stream {} around it. */
bool nginx_find_setting(const struct import *m, size_t server, struct nginx_context stream,
			const char *name, size_t *ret)
{
	return nginx_find(m, nginx_inside(m, server), name, ret) ||
	       nginx_find(m, stream, name, ret);
}

const char *nginx_target_of(const struct import *m, size_t server)
{
	size_t pass;

	return nginx_find(m, nginx_inside(m, server), "proxy_pass", &pass)
		       ? import_word(&m->words, pass, 1)
		       : "";
}

/* A server {} of a stream that balances TCP. */
bool nginx_is_server(const struct import *m, size_t item)
{
	size_t listen;

	return m->words.items[item].block && import_is(&m->words, item, "server") &&
	       *nginx_target_of(m, item) &&
	       !(nginx_find(m, nginx_inside(m, item), "listen", &listen) &&
		 import_has(&m->words, listen, "udp"));
}

bool nginx_find_upstream(const struct import *m, struct nginx_context stream, const char *name,
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
int nginx_parse_listen(const char *text, struct klb_endpoint *ret, struct err *e)
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
bool nginx_parse_time(const char *text, unsigned int *ret_ms)
{
	static const struct import_unit units[] = {
		{ "s", 1000000 },	{ "ms", 1000 },		 { "m", 60000000 },
		{ "h", 3600000000 },	{ "d", 86400000000 },	 { "w", 604800000000 },
		{ "M", 2592000000000 }, { "y", 31536000000000 }, { NULL, 0 },
	};

	return import_parse_time(text, units, true, ret_ms);
}
