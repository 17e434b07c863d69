/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads a haproxy.cfg: frontends and backends, or listen sections that are both, with the settings
 * of the defaults section before them.
 */
#include "import/haproxy.h"

#include <stdio.h>
#include <string.h>

#include "net/endpoint.h"

/* --- the choice --------------------------------------------------------------- */

static int bind_is_6443(struct import *m, size_t item, const char *address)
{
	(void)m;
	(void)item;
	return haproxy_is_6443(address);
}

static bool listens_on_6443(struct import *m, size_t section)
{
	return haproxy_each_bind(m, section, bind_is_6443) > 0;
}

static bool leads_to_6443(const struct import *m, size_t backend)
{
	bool all = false;

	IMPORT_EACH(&m->words, i, backend + 1, m->words.items[backend].end)
	{
		if (!import_is(&m->words, i, "server"))
			continue;
		if (!haproxy_is_6443(import_word(&m->words, i, 2)))
			return false;
		all = true;
	}
	return all;
}

static void fill_candidate(struct import *m, size_t section, size_t target,
			   struct import_candidate *c)
{
	char from[IMPORT_LABEL_MAX], to[IMPORT_LABEL_MAX];

	*c = (struct import_candidate){ .line = m->words.items[section].line, .item = target };
	c->listens_6443 = listens_on_6443(m, section);
	c->leads_to_6443 = leads_to_6443(m, target);
	import_ascii(import_word(&m->words, section, 1), from, sizeof(from));
	import_ascii(import_word(&m->words, target, 1), to, sizeof(to));
	snprintf(c->label, sizeof(c->label), "%s to %s", from, to);
}

/* Makes one candidate of all frontends that lead to the same section with servers. */
static int list_candidates(struct import *m, struct import_candidate *list, size_t *n)
{
	IMPORT_EACH(&m->words, i, 0, m->words.n_items)
	{
		size_t target, same = 0;

		if (!haproxy_is_frontend(m, i) ||
		    (target = haproxy_target_of(m, i)) == HAPROXY_NONE)
			continue;
		while (same < *n && list[same].item != target)
			same++;
		if (same < *n) {
			list[same].listens_6443 |= listens_on_6443(m, i);
			continue;
		}
		if (*n == IMPORT_CANDIDATES_MAX)
			return import_fail(m, m->words.items[i].line,
					   "more than %d frontends; leave one in a copy of the "
					   "file and name that",
					   IMPORT_CANDIDATES_MAX);
		fill_candidate(m, i, target, &list[(*n)++]);
	}
	return 0;
}

static int read_frontend(struct import *m, size_t section)
{
	if (haproxy_is_http(m, section))
		return import_fail(m, m->words.items[section].line,
				   "'%.64s' is in mode http, where HAProxy takes requests apart; "
				   "KubeLB does what mode tcp does: see that clients do without",
				   import_word(&m->words, section, 1));
	IMPORT_EACH(&m->words, i, section + 1, m->words.items[section].end)
	{
		int r = import_is(&m->words, i, "bind") ? haproxy_read_bind_options(m, i) : 0;

		if (r < 0)
			return r;
	}
	haproxy_note_idle_timeouts(m, section);
	return haproxy_each_bind(m, section, haproxy_read_bind);
}

static int read_frontends(struct import *m, size_t backend)
{
	IMPORT_EACH(&m->words, i, 0, m->words.n_items)
	{
		int r = 0;

		if (!haproxy_is_frontend(m, i) || haproxy_target_of(m, i) != backend) {
			if (i != backend)
				import_own(m, import_word(&m->words, i,
							  m->words.items[i].n_words > 1));
			continue;
		}
		r = read_frontend(m, i);
		if (r == 0 && i != backend)
			r = haproxy_note_section(m, i);
		if (r < 0)
			return r;
	}
	if (!m->n_frontends)
		return import_fail(m, m->words.items[backend].line,
				   "nothing that leads to '%.64s' binds to a TCP address; add a "
				   "bind",
				   import_word(&m->words, backend, 1));
	return 0;
}

static int read_backend(struct import *m, size_t section)
{
	int r = haproxy_read_servers(m, section);

	if (r == 0)
		r = haproxy_note_section(m, section);
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

static int note_port(struct import *m, size_t item, const char *address)
{
	struct klb_endpoint ep;

	(void)item;
	if (haproxy_parse_address(address, 0, &ep, NULL) == 0)
		import_busy(m, &ep);
	return 0;
}

/* Notes every port on which the file has something listen. */
static int note_ports(struct import *m)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < m->words.n_items; i++)
		if (import_is(&m->words, i, "bind"))
			r = haproxy_each_address(m, i, note_port);
	return r;
}

int import_read_haproxy(struct import *m, const char *text, size_t length)
{
	struct import_candidate list[IMPORT_CANDIDATES_MAX];
	size_t n = 0, chosen = 0;
	int r;

	m->words.text = strndup(text, length);
	if (!m->words.text)
		return import_fail_memory(m);
	r = haproxy_scan(m);
	if (r == 0)
		r = list_candidates(m, list, &n);
	if (r == 0 && !n)
		return import_fail(m, m->words.n_items ? m->words.items[0].line : 0,
				   "no frontend with a default_backend, and no listen with a "
				   "server; name the haproxy.cfg of the local proxy");
	if (r == 0)
		r = import_choose(m, list, n, "frontend", &chosen);
	if (r == 0)
		r = read_frontends(m, list[chosen].item);
	if (r == 0)
		r = read_backend(m, list[chosen].item);
	if (r == 0)
		r = note_ports(m);
	return r;
}
