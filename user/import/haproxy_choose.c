/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finds the section with the apiservers in a haproxy.cfg. Each way from a frontend to servers is a
 * candidate: also one on a condition, and one whose end is missing, so that an ingress beside them
 * is not taken for the apiservers. If such a way is chosen, it is refused.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "import/haproxy.h"
#include "net/endpoint.h"

/* What is known of a candidate beside what import_choose looks at. */
struct way {
	size_t frontend; /* NONE: nothing leads there */
	size_t target; /* NONE: not in the file, or unknown */
	size_t via; /* the line that leads there; NONE: a listen's own servers */
};

struct ways {
	struct way list[IMPORT_CANDIDATES_MAX];
	struct import_candidate candidates[IMPORT_CANDIDATES_MAX];
	size_t n;
};

/* --- port 6443 --------------------------------------------------------------------------- */

static int bind_is_6443(struct import *m, size_t item, const char *address, void *arg)
{
	(void)m;
	(void)item;
	(void)arg;
	return !haproxy_is_unix(address) && haproxy_is_6443(address);
}

static bool listens_on_6443(struct import *m, size_t frontend)
{
	return frontend != HAPROXY_NONE && haproxy_each_bind(m, frontend, bind_is_6443, NULL) > 0;
}

/* Whether one of the ports that a bind listens on is this one. */
static int bind_has_port(struct import *m, size_t item, const char *address, void *arg)
{
	struct haproxy_address a;
	unsigned int port = *(const unsigned int *)arg;

	(void)m;
	(void)item;
	return !haproxy_is_unix(address) && haproxy_parse_address(address, &a, NULL) == 0 &&
	       !a.relative && port >= a.first && port <= a.last;
}

static bool server_is_6443(struct import *m, size_t frontend, const char *address)
{
	struct haproxy_address a;
	unsigned int port;

	if (haproxy_is_unix(address))
		return false;
	if (haproxy_parse_address(address, &a, NULL) < 0) { /* a name, say */
		const char *colon = strrchr(address, ':');

		return colon && strcmp(colon, ":6443") == 0;
	}
	if (!a.relative)
		return a.first == KLB_PORT_DEFAULT;
	port = (unsigned int)(KLB_PORT_DEFAULT - a.offset);
	return frontend != HAPROXY_NONE && haproxy_each_bind(m, frontend, bind_has_port, &port) > 0;
}

/* Whether all of a section's servers have port 6443. */
static bool leads_to_6443(struct import *m, size_t frontend, size_t target)
{
	bool all = false;

	if (target == HAPROXY_NONE)
		return false;
	IMPORT_EACH(&m->words, i, target + 1, m->words.items[target].end)
	{
		bool template = import_is(&m->words, i, "server-template");

		if (!template && !import_is(&m->words, i, "server"))
			continue;
		if (!server_is_6443(m, frontend, import_word(&m->words, i, template ? 3 : 2)))
			return false;
		all = true;
	}
	return all;
}

/* --- candidates -------------------------------------------------------------------------- */

static void fill(struct import *m, const struct way *way, struct import_candidate *c)
{
	char from[IMPORT_LABEL_MAX] = "nothing", to[IMPORT_LABEL_MAX];
	size_t end = way->via != HAPROXY_NONE ? way->via : way->target;
	size_t at = way->frontend != HAPROXY_NONE ? way->frontend : way->target;

	*c = (struct import_candidate){ .line = m->words.items[at].line };
	c->listens_6443 = listens_on_6443(m, way->frontend);
	c->leads_to_6443 = leads_to_6443(m, way->frontend, way->target);
	if (way->frontend != HAPROXY_NONE)
		import_ascii(import_word(&m->words, way->frontend, 1), from, sizeof(from));
	import_ascii(import_word(&m->words, end, 1), to, sizeof(to));
	snprintf(c->label, sizeof(c->label), "%s to %s", from, to);
}

/* The candidate that ends at this section, or NULL. */
static struct import_candidate *find_target(struct ways *w, size_t target)
{
	for (size_t i = 0; target != HAPROXY_NONE && i < w->n; i++)
		if (w->list[i].target == target)
			return &w->candidates[i];
	return NULL;
}

/* All frontends that lead to the same section are one candidate. */
static int add(struct import *m, struct ways *w, const struct way *way)
{
	struct import_candidate *same = find_target(w, way->target);

	if (same) {
		same->listens_6443 |= listens_on_6443(m, way->frontend);
		same->leads_to_6443 |= leads_to_6443(m, way->frontend, way->target);
		return 0;
	}
	if (w->n == IMPORT_CANDIDATES_MAX)
		return import_fail(m, m->words.items[way->frontend].line,
				   "more than %d frontends; leave one in a copy of the file and "
				   "name that",
				   IMPORT_CANDIDATES_MAX);
	fill(m, way, &w->candidates[w->n]);
	w->list[w->n++] = *way;
	return 0;
}

static int add_frontend(struct import *m, struct ways *w, size_t section)
{
	struct way way = { .frontend = section };

	way.via = haproxy_leading_line(m, section);
	way.target = haproxy_target_of(m, section);
	if (way.target == HAPROXY_NONE && way.via == HAPROXY_NONE)
		return 0;
	return add(m, w, &way);
}

/* The ways on a condition, unless they end where one without a condition does. */
static int add_conditions(struct import *m, struct ways *w, size_t section, size_t unconditional)
{
	struct way way = { .frontend = section, .via = HAPROXY_NONE };
	int r = 0;

	while (r == 0 && haproxy_next_condition(m, section, &way.via)) {
		size_t known = 0;

		way.target = haproxy_find_backend(m, import_word(&m->words, way.via, 1));
		while (known < unconditional &&
		       (way.target == HAPROXY_NONE || w->list[known].target != way.target))
			known++;
		if (known == unconditional)
			r = add(m, w, &way);
	}
	return r;
}

static bool any_has_6443(const struct ways *w)
{
	for (size_t i = 0; i < w->n; i++)
		if (w->candidates[i].leads_to_6443 || w->candidates[i].listens_6443)
			return true;
	return false;
}

/* A section of servers on 6443 that no line names: by a rule that is worked out, perhaps. */
static int add_unreached(struct import *m, struct ways *w)
{
	struct way way = { .frontend = HAPROXY_NONE, .via = HAPROXY_NONE };
	int r = 0;

	if (!w->n || any_has_6443(w))
		return 0;
	IMPORT_EACH(&m->words, i, 0, m->words.n_items)
	{
		way.target = i;
		if (r == 0 && import_is(&m->words, i, "backend") && !haproxy_is_disabled(m, i) &&
		    leads_to_6443(m, HAPROXY_NONE, i) && w->n < IMPORT_CANDIDATES_MAX)
			r = add(m, w, &way);
	}
	return r;
}

static int list_ways(struct import *m, struct ways *w)
{
	size_t unconditional;
	int r = 0;

	IMPORT_EACH(&m->words, i, 0, m->words.n_items)
	if (r == 0 && haproxy_is_frontend(m, i) && !haproxy_is_disabled(m, i))
		r = add_frontend(m, w, i);
	unconditional = w->n;
	IMPORT_EACH(&m->words, i, 0, m->words.n_items)
	if (r == 0 && haproxy_is_frontend(m, i) && !haproxy_is_disabled(m, i))
		r = add_conditions(m, w, i, unconditional);
	return r < 0 ? r : add_unreached(m, w);
}

/* --- ways that lead nowhere ----------------------------------------------------------------- */

/* "lines 5, 6 and 9": the use_backend lines of a frontend that have a condition. */
static const char *condition_lines(const struct import *m, size_t frontend, char *buf, size_t size)
{
	size_t item = HAPROXY_NONE, next, length = 0;
	bool more = haproxy_next_condition(m, frontend, &item);
	const char *before = "line ";

	buf[0] = '\0';
	for (size_t n = 0; more && length + 24 < size; n++) {
		next = item;
		more = haproxy_next_condition(m, frontend, &next);
		if (n || more)
			before = !n ? "lines " : more ? ", " : " and ";
		length += (size_t)snprintf(buf + length, size - length, "%s%u", before,
					   m->words.items[item].line);
		item = next;
	}
	return buf;
}

static int fail_condition(const struct import *m, const struct way *way)
{
	char text[160], lines[96];

	import_join(&m->words, way->via, text, sizeof(text));
	return import_fail(m, m->words.items[way->via].line,
			   "%s: leads there on a condition only ('%.64s' has such on %s), and "
			   "KubeLB asks none; if these are the apiservers, write "
			   "default_backend %.64s in a copy of the file, without the use_backend "
			   "lines",
			   text, import_word(&m->words, way->frontend, 1),
			   condition_lines(m, way->frontend, lines, sizeof(lines)),
			   import_word(&m->words, way->via, 1));
}

static int fail_unreached(const struct import *m, size_t target)
{
	return import_fail(m, m->words.items[target].line,
			   "'%.64s' has the only servers on port 6443, and no line leads there "
			   "without a condition; write default_backend %.64s into the frontend of "
			   "the apiservers, in a copy of the file",
			   import_word(&m->words, target, 1), import_word(&m->words, target, 1));
}

static int fail_missing(const struct import *m, size_t via)
{
	const char *name = import_word(&m->words, via, 1);
	unsigned int line = m->words.items[via].line;

	if (strchr(name, '%') || strchr(name, '$'))
		return import_fail(m, line,
				   "%s %.64s: worked out for each connection, or from the "
				   "environment; write the name of the apiservers' backend in a "
				   "copy of the file",
				   import_word(&m->words, via, 0), name);
	return import_fail(m, line,
			   "%s %.64s: not in this file; is it in another one, or is the file cut "
			   "off? give one file that has both, on standard input (-), say",
			   import_word(&m->words, via, 0), name);
}

static int check_way(const struct import *m, const struct way *way)
{
	bool condition = way->frontend != HAPROXY_NONE && way->via != HAPROXY_NONE &&
			 import_is(&m->words, way->via, "use_backend") &&
			 haproxy_condition_of(m, way->via) == HAPROXY_SOMETIMES;

	if (condition)
		return fail_condition(m, way);
	if (way->target == HAPROXY_NONE)
		return fail_missing(m, way->via);
	if (way->frontend == way->target && way->via != HAPROXY_NONE)
		return import_fail(
			m, m->words.items[way->via].line,
			"'%.64s' leads to itself, which HAProxy refuses; remove the line",
			import_word(&m->words, way->target, 1));
	if (way->frontend == HAPROXY_NONE)
		return fail_unreached(m, way->target);
	if (haproxy_is_disabled(m, way->target))
		return import_fail(m, m->words.items[way->target].line,
				   "'%.64s' is disabled; remove that in a copy of the file, or "
				   "give the file that is in use",
				   import_word(&m->words, way->target, 1));
	return 0;
}

static int fail_none(const struct import *m)
{
	IMPORT_EACH(&m->words, i, 0, m->words.n_items)
	{
		unsigned int line = m->words.items[i].line;

		if (haproxy_is_frontend(m, i) && haproxy_is_disabled(m, i))
			return import_fail(m, line,
					   "'%.64s' is disabled, and no other frontend leads to "
					   "servers; give the file that is in use",
					   import_word(&m->words, i, 1));
		if (haproxy_is_frontend(m, i))
			return import_fail(m, line,
					   "'%.64s' leads nowhere: no frontend has a "
					   "default_backend, and no listen a server; name the "
					   "haproxy.cfg of the local proxy",
					   import_word(&m->words, i, 1));
	}
	return import_fail(m, m->words.n_items ? m->words.items[0].line : 0,
			   "no frontend and no listen; name the haproxy.cfg of the local proxy");
}

int haproxy_choose(struct import *m, size_t *ret)
{
	struct ways w = { .n = 0 };
	size_t chosen = 0;
	int r = list_ways(m, &w);

	if (r == 0 && !w.n)
		return fail_none(m);
	if (r == 0)
		r = import_choose(m, w.candidates, w.n, "frontend", &chosen);
	if (r == 0)
		r = check_way(m, &w.list[chosen]);
	if (r == 0)
		*ret = w.list[chosen].target;
	return r;
}
