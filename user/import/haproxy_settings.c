/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the settings of a haproxy.cfg, and notes those that have no counterpart. */
#include <string.h>

#include "import/haproxy.h"
#include "base/array.h"
#include "base/ascii.h"

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

	for (size_t i = 0; i < ARRAY_SIZE(same); i++)
		if (strcmp(name, same[i].name) == 0) {
			import_set_policy(m, same[i].policy, line, same[i].name);
			return;
		}
	import_note(m, line, "balance %s%s: least-conn, KubeLB's default, is the nearest to it",
		    name, item == HAPROXY_NONE ? ", HAProxy's default" : "");
}

/* The path of an HTTP check: the last word that is a path, of `option httpchk` or http-check. */
static int read_check_path(struct import *m, size_t item)
{
	const char *path = "";
	unsigned int line = m->words.items[item].line;

	for (size_t n = 1; n < m->words.items[item].n_words; n++)
		if (import_word(&m->words, item, n)[0] == '/')
			path = import_word(&m->words, item, n);
	if (!*path || strcmp(path, "/readyz") == 0)
		return 0;
	if (import_listed(path, "/healthz /livez /")) {
		import_note(m, line,
			    "%s as what is asked for: /readyz also tells that an apiserver is "
			    "shutting down",
			    path);
		return 0;
	}
	if (!ascii_all_graph(path) || strlen(path) > 1024) {
		import_note(m, line, "a path that is no plain ASCII");
		return 0;
	}
	return import_set_text(m, &m->path, line, "option httpchk", path);
}

static void note_expectation(struct import *m, size_t item)
{
	const char *status = import_word(&m->words, item, 3);
	unsigned int line = m->words.items[item].line;
	char text[160];

	import_join(&m->words, item, text, sizeof(text));
	if (strcmp(text, "http-check expect status 200") == 0)
		return;
	if (strcmp(status, "401") == 0 || strcmp(status, "403") == 0)
		import_hint(m, line,
			    "%s: a cluster without anonymous access; set probe.clientCert and "
			    "probe.clientKey",
			    text);
	else
		import_note(m, line, "%s: 200 is what makes an apiserver ready", text);
}

static bool is_idle_timeout(const char *name)
{
	return import_listed(name, "client server tunnel");
}

/* Notes a line of a chosen section that no other function reads. */
static int note_line(struct import *m, size_t item)
{
	const char *name = import_word(&m->words, item, 0);
	const char *second = import_word(&m->words, item, 1);
	unsigned int line = m->words.items[item].line;
	char text[160];

	if (import_listed(name, "bind server default-server balance default_backend mode log "
				"description"))
		return 0;
	import_join(&m->words, item, text, sizeof(text));
	if (strcmp(name, "timeout") == 0 && import_listed(second, "connect check"))
		return 0;
	if (strcmp(name, "timeout") == 0 && is_idle_timeout(second))
		import_note(m, line, "%s: no connection is ended for being idle", text);
	else if (strcmp(name, "use_backend") == 0)
		import_hint(m, line, "%s: only the default_backend is carried over", text);
	else if (strcmp(name, "http-check") == 0 && strcmp(second, "expect") == 0)
		note_expectation(m, item);
	else if (strcmp(name, "http-check") == 0 ||
		 (strcmp(name, "option") == 0 && strcmp(second, "httpchk") == 0))
		return read_check_path(m, item);
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

int haproxy_note_section(struct import *m, size_t section)
{
	IMPORT_EACH(&m->words, i, section + 1, m->words.items[section].end)
	{
		int r = note_line(m, i);

		if (r < 0)
			return r;
	}
	return 0;
}
