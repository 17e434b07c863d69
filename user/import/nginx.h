/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files that read an nginx.conf share. */
#ifndef KUBELB_IMPORT_NGINX_H
#define KUBELB_IMPORT_NGINX_H

#include "import/internal.h"

/* A range of items: what stands inside of a block, or the whole file. */
struct nginx_context {
	size_t first, last;
};

/* Splits the text in m->words. Returns 0 or a negative errno with m->e. */
int nginx_scan(struct import *m);

/* --- finding things, addresses and times (nginx_find.c) --------------------------------- */

struct nginx_context nginx_inside(const struct import *m, size_t item);
/* The first directive of that name in a context, if there is one. */
bool nginx_find(const struct import *m, struct nginx_context in, const char *name, size_t *ret);
/* A setting of the server, or of the stream {} around it. */
bool nginx_find_setting(const struct import *m, size_t server, struct nginx_context stream,
			const char *name, size_t *ret);
/* What a server {} passes to, or "". */
const char *nginx_target_of(const struct import *m, size_t server);
/* A server {} of a stream that balances TCP. */
bool nginx_is_server(const struct import *m, size_t item);
bool nginx_find_upstream(const struct import *m, struct nginx_context stream, const char *name,
			 size_t *ret);

/* `port`, `address:port`, `*:port`, `[v6]:port` or `localhost:port`. As endpoint_parse. */
int nginx_parse_listen(const char *text, struct klb_endpoint *ret, struct err *e);
/* nginx's times: "1m 30s" in one word or more, seconds where no unit is given. */
bool nginx_parse_time(const char *text, unsigned int *ret_ms);

/* --- reading what was chosen (nginx_upstream.c) ------------------------------------------ */

/* proxy_pass to an upstream, or to a single address. Returns 0, or a negative errno with m->e. */
int nginx_read_target(struct import *m, struct nginx_context stream, size_t server);

#endif
