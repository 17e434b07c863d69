/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the settings of a haproxy.cfg, and notes those that have no counterpart. */
#include <errno.h>
#include <string.h>

#include "import/haproxy.h"
#include "base/array.h"

int haproxy_read_timeout(struct import *m, size_t section, const char *name, const char *origin,
			 struct import_number *field)
{
	size_t item = haproxy_find_setting(m, section, "timeout", name);
	struct import_number n;
	int r;

	if (item == HAPROXY_NONE)
		return 0;
	r = haproxy_read_time(m, m->words.items[item].line, origin, import_word(&m->words, item, 2),
			      &n);
	if (r == 0 && n.value)
		import_set_number(m, field, &n);
	return r;
}

void haproxy_read_balance(struct import *m, size_t section)
{
	static const struct {
		const char *name;
		enum klb_policy policy;
	} same[] = { { "leastconn", KLB_POLICY_LEAST_CONN },
		     { "random", KLB_POLICY_RANDOM },
		     { "source", KLB_POLICY_RENDEZVOUS } };
	size_t item = haproxy_find_setting(m, section, "balance", NULL);
	const char *name = item == HAPROXY_NONE ? "roundrobin" : import_word(&m->words, item, 1);
	unsigned int line = m->words.items[item == HAPROXY_NONE ? section : item].line;

	/* "random(2)" is random with two draws. */
	for (size_t i = 0; i < ARRAY_SIZE(same); i++)
		if (strncmp(name, same[i].name, strcspn(name, "(")) == 0 &&
		    !same[i].name[strcspn(name, "(")]) {
			import_set_policy(m, same[i].policy, line, same[i].name);
			return;
		}
	import_note(m, line, "balance %s%s: least-conn, KubeLB's default, is the nearest to it",
		    name, item == HAPROXY_NONE ? ", HAProxy's default" : "");
}

static bool is_idle_timeout(const char *name)
{
	return import_listed(name, "client server tunnel");
}

/* What HAProxy does with each connection that no KubeLB can do. */
static int check_rule(const struct import *m, size_t item)
{
	unsigned int line = m->words.items[item].line;

	if (import_has(&m->words, item, "expect-proxy") ||
	    import_has(&m->words, item, "expect-netscaler-cip"))
		return import_fail(
			m, line,
			"the clients send a PROXY header first, which no apiserver "
			"understands; see that this leads to apiservers, and let clients "
			"do without");
	if (import_has(&m->words, item, "set-dst") || import_has(&m->words, item, "set-dst-port"))
		return import_fail(m, line,
				   "set-dst: HAProxy works out the address of each connection, "
				   "which KubeLB does not; remove the line in a copy of the file "
				   "if the servers' own addresses are right");
	return 0;
}

static int note_rule(struct import *m, size_t item, const char *text)
{
	int r = check_rule(m, item);

	if (r == 0)
		import_note(m, m->words.items[item].line, "%s", text);
	return r;
}

/* Whether another function reads this line. */
static bool is_read(const struct import *m, size_t item)
{
	const char *name = import_word(&m->words, item, 0);
	const char *second = import_word(&m->words, item, 1);

	if (strcmp(name, "timeout") == 0)
		return import_listed(second, "connect check");
	if (strcmp(name, "http-check") == 0)
		return import_listed(second, "send expect connect");
	if (import_listed(name, "option no default"))
		return import_has(&m->words, item, "httpchk");
	return import_listed(name, "bind server default-server balance default_backend mode log "
				   "description enabled");
}

/* A route that KubeLB does not follow; one that another always overrides is none. */
static void note_route(struct import *m, size_t section, size_t item, const char *text)
{
	size_t route = item - 1;

	if (haproxy_next_condition(m, section, &route) && route == item)
		import_hint(m, m->words.items[item].line,
			    "%s: only what holds without a condition is carried over: "
			    "see that those clients may go to the apiservers below",
			    text);
}

/* Notes a line of a chosen section that no other function reads. */
static int note_line(struct import *m, size_t section, size_t item)
{
	const char *name = import_word(&m->words, item, 0);
	unsigned int line = m->words.items[item].line;
	char text[160];

	if (is_read(m, item))
		return 0;
	import_join(&m->words, item, text, sizeof(text));
	if (strcmp(name, "timeout") == 0 && is_idle_timeout(import_word(&m->words, item, 1)))
		import_note(m, line, "%s: no connection is ended for being idle", text);
	else if (strcmp(name, "use_backend") == 0)
		note_route(m, section, item, text);
	else if (strcmp(name, "use-server") == 0)
		import_hint(m, line, "%s: every apiserver below gets connections, by its weight",
			    text);
	else if (strncmp(name, "tcp-request", 11) == 0)
		return note_rule(m, item, text);
	else
		import_note(m, line, "%s", text);
	return 0;
}

/* Idle timeouts from the defaults section also end connections. */
void haproxy_note_idle_timeouts(struct import *m, size_t section)
{
	static const char *const names[] = { "client", "server", "tunnel" };
	char text[160];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		size_t item = haproxy_find_setting(m, section, "timeout", names[i]);

		if (item != HAPROXY_NONE &&
		    haproxy_find(m, section, "timeout", names[i]) == HAPROXY_NONE)
			import_note(m, m->words.items[item].line,
				    "%s: no connection is ended for being idle",
				    import_join(&m->words, item, text, sizeof(text)));
	}
}

/* Rules of the defaults apply as well. */
static int check_inherited_rules(const struct import *m, size_t section)
{
	size_t from = haproxy_defaults_of(m, section);

	for (; from != HAPROXY_NONE; from = haproxy_defaults_of(m, from))
		IMPORT_EACH(&m->words, i, from + 1, m->words.items[from].end)
	if (strncmp(import_word(&m->words, i, 0), "tcp-request", 11) == 0 && check_rule(m, i) < 0)
		return -EINVAL;
	return 0;
}

int haproxy_note_section(struct import *m, size_t section)
{
	int r = check_inherited_rules(m, section);

	IMPORT_EACH(&m->words, i, section + 1, m->words.items[section].end)
	if (r == 0)
		r = note_line(m, section, i);
	return r;
}
