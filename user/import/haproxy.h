/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files that read a haproxy.cfg share. A section is a block; its lines are inside of it.
 */
#ifndef KUBELB_IMPORT_HAPROXY_H
#define KUBELB_IMPORT_HAPROXY_H

#include "import/internal.h"

/* The index of no item. */
#define HAPROXY_NONE SIZE_MAX

/* Splits the text in m->words. Returns 0 or a negative errno with m->e. */
int haproxy_scan(struct import *m);

/* --- sections (haproxy_section.c) ------------------------------------------------------ */

/* The line of a section that begins with these words; the last one counts. */
size_t haproxy_find(const struct import *m, size_t section, const char *name, const char *second);
/* The defaults section that a section builds on: the one that it names, or the last before it. */
size_t haproxy_defaults_of(const struct import *m, size_t section);
/* A setting of the section, or of its defaults. */
size_t haproxy_find_setting(const struct import *m, size_t section, const char *name,
			    const char *second);
/* The section with the servers that a frontend leads to without a condition. */
size_t haproxy_target_of(const struct import *m, size_t section);
bool haproxy_is_frontend(const struct import *m, size_t section);
bool haproxy_is_http(const struct import *m, size_t section);

/* --- addresses, times and numbers (haproxy_address.c) ----------------------------------- */

/*
 * `a.b.c.d:port`, `*:port`, `:port`, `[v6]:port`, and `v6:port`, where the last colon
 * separates the port. default_port as in endpoint_parse.
 */
int haproxy_parse_address(const char *text, unsigned int default_port, struct klb_endpoint *ret,
			  struct err *e);
bool haproxy_is_6443(const char *address);
/* Whether an address is a unix socket of either kind. */
bool haproxy_is_unix(const char *address);
/* Calls one for each address of a bind line. It stops at a result that is not 0, and returns it. */
int haproxy_each_address(struct import *m, size_t item,
			 int (*one)(struct import *m, size_t item, const char *address));
/* The same for each bind line of a section. */
int haproxy_each_bind(struct import *m, size_t section,
		      int (*one)(struct import *m, size_t item, const char *address));

/* Return 0, or -EINVAL with m->e for a value that is no time or no number. */
int haproxy_read_time(struct import *m, unsigned int line, const char *origin, const char *value,
		      struct import_number *ret);
int haproxy_read_count(struct import *m, unsigned int line, const char *origin, const char *value,
		       struct import_number *ret);

/* --- reading what was chosen. All return 0, or a negative errno with m->e. ---------------- */

/* One address of a bind line, and the line's other words (haproxy_bind.c). */
int haproxy_read_bind(struct import *m, size_t item, const char *address);
int haproxy_read_bind_options(struct import *m, size_t item);

/* The servers of a section (haproxy_server.c). */
int haproxy_read_servers(struct import *m, size_t section);

/* Settings (haproxy_settings.c): a timeout, the policy, and notes of what has no counterpart. */
int haproxy_read_timeout(struct import *m, size_t section, const char *name, const char *origin,
			 struct import_number *field);
void haproxy_read_balance(struct import *m, size_t section);
void haproxy_note_idle_timeouts(struct import *m, size_t section);
int haproxy_note_section(struct import *m, size_t section);

#endif
