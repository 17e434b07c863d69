/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads a haproxy.cfg: frontends and backends, or listen sections that are both, with the settings
 * of the defaults section before them.
 */
#include <errno.h>
#include <string.h>

#include "import/haproxy.h"
#include "net/endpoint.h"

static int check_mode(const struct import *m, size_t section)
{
	if (haproxy_is_http(m, section))
		return import_fail(m, m->words.items[section].line,
				   "'%.64s' is in mode http, where HAProxy takes requests apart; "
				   "KubeLB does what mode tcp does: see that clients do without",
				   import_word(&m->words, section, 1));
	return 0;
}

/* --- frontends --------------------------------------------------------------------------- */

/* Notes the lines of another frontend that lead to the same backend on a condition. */
static void note_conditions(struct import *m, size_t section, size_t backend)
{
	size_t item = HAPROXY_NONE;
	char text[160];

	while (haproxy_next_condition(m, section, &item))
		if (haproxy_find_backend(m, import_word(&m->words, item, 1)) == backend)
			import_hint(m, m->words.items[item].line,
				    "%s: what '%.64s' leads to the apiservers stays with HAProxy",
				    import_join(&m->words, item, text, sizeof(text)),
				    import_word(&m->words, section, 1));
}

/* A section that is not on the way to the apiservers. */
static void note_other(struct import *m, size_t section, size_t backend)
{
	bool named = m->words.items[section].n_words > 1;

	if (section == backend)
		return;
	import_own(m, import_word(&m->words, section, named));
	if (haproxy_is_frontend(m, section) && !haproxy_is_disabled(m, section))
		note_conditions(m, section, backend);
}

static int read_frontend(struct import *m, size_t section, size_t backend, unsigned int port)
{
	int r = check_mode(m, section);

	if (r == 0)
		r = haproxy_read_binds(m, section, port);
	if (r == 0)
		haproxy_note_idle_timeouts(m, section);
	return r < 0 || section == backend ? r : haproxy_note_section(m, section);
}

static int read_frontends(struct import *m, size_t backend)
{
	unsigned int port = 0;
	int r = haproxy_choose_port(m, backend, &port);

	IMPORT_EACH(&m->words, i, 0, m->words.n_items)
	{
		if (r == 0 && haproxy_is_frontend(m, i) && haproxy_target_of(m, i) == backend)
			r = read_frontend(m, i, backend, port);
		else if (r == 0)
			note_other(m, i, backend);
	}
	if (r == 0 && !m->n_frontends)
		return import_fail(m, m->words.items[backend].line,
				   "nothing that leads to '%.64s' binds to a TCP address; add a "
				   "bind",
				   import_word(&m->words, backend, 1));
	return r;
}

/* --- the backend -------------------------------------------------------------------------- */

static int read_backend(struct import *m, size_t section)
{
	int r = check_mode(m, section);

	if (r == 0)
		r = haproxy_read_servers(m, section);
	if (r == 0)
		r = haproxy_note_section(m, section);
	if (r == 0)
		r = haproxy_read_httpchk(m, section);
	if (r == 0)
		r = haproxy_read_timeout(m, section, "connect", "timeout connect",
					 &m->connect_timeout_ms);
	if (r == 0)
		r = haproxy_read_timeout(m, section, "check", "timeout check", &m->timeout_ms);
	if (r == 0) {
		haproxy_read_balance(m, section);
		haproxy_note_idle_timeouts(m, section);
	}
	return r;
}

/* --- together ----------------------------------------------------------------------------- */

static int note_port(struct import *m, size_t item, const char *address, void *arg)
{
	struct haproxy_address a;

	(void)item;
	(void)arg;
	if (haproxy_is_unix(address) || haproxy_parse_address(address, &a, NULL) < 0 || a.relative)
		return 0;
	import_busy(m, &a.endpoint, a.last);
	return 0;
}

/* Notes every port on which the file has something listen. */
static int note_ports(struct import *m)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < m->words.n_items; i++)
		if (import_is(&m->words, i, "bind"))
			r = haproxy_each_address(m, i, note_port, NULL);
	return r;
}

int import_read_haproxy(struct import *m, const char *text, size_t length)
{
	size_t backend = 0;
	int r;

	m->words.text = strndup(text, length);
	if (!m->words.text)
		return import_fail_memory(m);
	r = haproxy_scan(m);
	if (r == 0)
		r = haproxy_check(m);
	if (r == 0)
		r = haproxy_choose(m, &backend);
	if (r == 0)
		r = read_frontends(m, backend);
	if (r == 0)
		r = read_backend(m, backend);
	if (r == 0)
		r = note_ports(m);
	return r;
}
