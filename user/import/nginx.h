/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files that read an nginx.conf share. */
#ifndef KUBELB_IMPORT_NGINX_H
#define KUBELB_IMPORT_NGINX_H

#include "import/internal.h"

/* A range of items: what stands inside of a block, or the whole file. */
struct nginx_context {
	size_t first, last;
};

/* All int functions return 0, or a negative errno with m->e, unless they say otherwise. */

/* Splits the text in m->words. */
int nginx_scan(struct import *m);

/* --- finding things, addresses and times (nginx_find.c) --------------------------------- */

struct nginx_context nginx_inside(const struct import *m, size_t item);
/* The first directive of that name in a context, if there is one. */
bool nginx_find(const struct import *m, struct nginx_context in, const char *name, size_t *ret);
/* The same in all blocks inside of the context, too. */
bool nginx_find_deep(const struct import *m, struct nginx_context in, const char *name,
		     size_t *ret);
/* A setting of the server, or of the stream {} around it. */
bool nginx_find_setting(const struct import *m, size_t server, struct nginx_context stream,
			const char *name, size_t *ret);
/* What a server {} passes to, or "". */
const char *nginx_target_of(const struct import *m, size_t server);
/* Whether two servers pass to the same. nginx ignores case. */
bool nginx_same_target(const struct import *m, size_t server, size_t other);
/* A server {} of a stream that balances TCP. */
bool nginx_is_server(const struct import *m, size_t item);
/* A listen directive that takes TCP. */
bool nginx_is_listen(const struct import *m, size_t item);
bool nginx_find_upstream(const struct import *m, struct nginx_context stream, const char *name,
			 size_t *ret);

struct nginx_listen {
	struct klb_endpoint endpoint; /* its port: the first one */
	unsigned int last; /* port */
};

/*
 * `port`, `address:port`, `*:port`, `[v6]:port` or `localhost:port`; a port can be a range.
 * Returns 0, or -EINVAL with e.
 */
int nginx_parse_listen(const char *text, struct nginx_listen *ret, struct err *e);
/* An address with a port. Returns 0, or -EINVAL with e, which knows variables. */
int nginx_parse_server(const char *text, struct klb_endpoint *ret, struct err *e);
/* nginx's times: "1m 30s" in one word or more, seconds where no unit is given. */
bool nginx_parse_time(const char *text, unsigned int *ret_ms);

/* --- what nginx itself refuses (nginx_check.c) -------------------------------------------- */

/* Checks what is on the top of the file. */
int nginx_check_file(const struct import *m, struct nginx_context file);
/* Checks stream {}, and everything inside of it. */
int nginx_check_stream(const struct import *m, struct nginx_context stream);

/* --- includes (nginx_include.c) ----------------------------------------------------------- */

/* The include that could hold what is missing in a context: one inside of stream {} first. */
bool nginx_find_include(const struct import *m, struct nginx_context in, size_t *ret);
/* Notes the includes where they could matter: in stream {}, and inside of that. */
void nginx_note_includes(struct import *m, struct nginx_context stream);

/* --- the choice (nginx_choose.c) ----------------------------------------------------------- */

/* Finds the first server {} that leads to the apiservers. */
int nginx_choose(struct import *m, struct nginx_context file, struct nginx_context stream,
		 size_t *ret);

/* --- reading what was chosen (nginx_upstream.c) ------------------------------------------ */

/* proxy_pass to an upstream, or to a single address. */
int nginx_read_target(struct import *m, struct nginx_context stream, size_t server);

#endif
