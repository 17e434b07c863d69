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
/* Refuses what HAProxy itself does not start with (haproxy_check.c). As above. */
int haproxy_check(struct import *m);
/* Says that the first word of a line is none of HAProxy's, of which kind; yields -EINVAL. */
int haproxy_fail_word(const struct import *m, unsigned int line, const char *word,
		      const char *kind);

/* --- sections (haproxy_section.c) ------------------------------------------------------ */

/* The line of a section that begins with these words; the last one counts. */
size_t haproxy_find(const struct import *m, size_t section, const char *name, const char *second);
/* The name of the defaults section that a section asks for, or "". */
const char *haproxy_from_of(const struct import *m, size_t section);
/* The defaults section that a section builds on: the one that it names, or the last before it. */
size_t haproxy_defaults_of(const struct import *m, size_t section);
/* A setting of the section, or the nearest of those that it inherits from. */
size_t haproxy_find_setting(const struct import *m, size_t section, const char *name,
			    const char *second);
bool haproxy_is_frontend(const struct import *m, size_t section);
bool haproxy_is_backend(const struct import *m, size_t section);
bool haproxy_is_http(const struct import *m, size_t section);
bool haproxy_is_disabled(const struct import *m, size_t section);
/* Whether a section says where connections go, in whichever way. */
bool haproxy_has_servers(const struct import *m, size_t section);
size_t haproxy_find_backend(const struct import *m, const char *name);

/* When a use_backend holds. */
enum haproxy_condition { HAPROXY_ALWAYS, HAPROXY_SOMETIMES, HAPROXY_NEVER };

enum haproxy_condition haproxy_condition_of(const struct import *m, size_t item);
/* The line that says where a frontend leads when no condition holds; NONE: no line does. */
size_t haproxy_leading_line(const struct import *m, size_t section);
/* The section with the servers to which that is; NONE: it is not in the file. */
size_t haproxy_target_of(const struct import *m, size_t section);
/* Goes over the use_backend lines with a condition. *item: NONE at first, then the line. */
bool haproxy_next_condition(const struct import *m, size_t section, size_t *item);

/* --- addresses, times and numbers (haproxy_address.c) ----------------------------------- */

struct haproxy_address {
	struct klb_endpoint endpoint; /* its port: the first one */
	unsigned int first, last; /* ports; the same unless it is a range */
	bool relative; /* to the port that was dialled, which offset is added to */
	int offset;
};

/*
 * Parses `a.b.c.d:port`, `*:port`, `:port`, `[v6]:port`, `v6:port`, where the last colon separates
 * the port, and the same behind `ipv6@` and the like. Returns 0, or -EINVAL with e.
 */
int haproxy_parse_address(const char *text, struct haproxy_address *ret, struct err *e);
bool haproxy_is_6443(const char *address);
/* Whether an address is none of TCP: a unix socket, a descriptor. */
bool haproxy_is_unix(const char *address);

typedef int haproxy_address_reader(struct import *m, size_t item, const char *address, void *arg);
/* Calls one for each address of a bind line. It stops at a result that is not 0, and returns it. */
int haproxy_each_address(struct import *m, size_t item, haproxy_address_reader *one, void *arg);
/* The same for each bind line of a section. */
int haproxy_each_bind(struct import *m, size_t section, haproxy_address_reader *one, void *arg);

/* Return 0, or -EINVAL with m->e for a value that is no time or no number. */
int haproxy_read_time(struct import *m, unsigned int line, const char *origin, const char *value,
		      struct import_number *ret);
int haproxy_read_count(struct import *m, unsigned int line, const char *origin, const char *value,
		       struct import_number *ret);

/* --- the choice (haproxy_choose.c) ------------------------------------------------------- */

/*
 * Finds the section with the apiservers. Returns 0, or -EINVAL with m->e where no line leads to
 * one without a condition.
 */
int haproxy_choose(struct import *m, size_t *ret);

/* --- reading what was chosen. All return 0, or a negative errno with m->e. ---------------- */

/*
 * Ports (haproxy_bind.c): where servers have no port of their own, HAProxy sends each port to the
 * same port of the servers. KubeLB has one port for each server. *ret: the one port to keep of the
 * binds that lead to target; 0: all.
 */
int haproxy_choose_port(struct import *m, size_t target, unsigned int *ret);
/* The bind lines of a frontend, for that port or all (0). */
int haproxy_read_binds(struct import *m, size_t section, unsigned int port);

/* The servers of a section, which get the first frontend's port (haproxy_server.c). */
int haproxy_read_servers(struct import *m, size_t section);

/* Settings (haproxy_settings.c): a timeout, the policy, and notes of what has no counterpart. */
int haproxy_read_timeout(struct import *m, size_t section, const char *name, const char *origin,
			 struct import_number *field);
void haproxy_read_balance(struct import *m, size_t section);
void haproxy_note_idle_timeouts(struct import *m, size_t section);
int haproxy_note_section(struct import *m, size_t section);

/* Health checks: what is asked for, and what is expected (haproxy_httpchk.c). */
int haproxy_read_httpchk(struct import *m, size_t section);

#endif
