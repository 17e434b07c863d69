/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the upstream of an nginx.conf that was chosen. */
#include <string.h>

#include "base/array.h"
#include "import/nginx.h"
#include "net/endpoint.h"

/* The value behind name=, or NULL. */
static const char *value_of(const char *word, const char *name)
{
	size_t length = strlen(name);

	return strncmp(word, name, length) == 0 && word[length] == '=' ? word + length + 1 : NULL;
}

/* A parameter with a value that has no key here; nginx refuses one that is no number or time. */
static bool is_limit(const char *word)
{
	static const char *const numbers[] = { "max_fails", "max_conns" };
	static const char *const times[] = { "fail_timeout", "slow_start" };
	unsigned int value;

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		if (value_of(word, numbers[i]))
			return import_uint(value_of(word, numbers[i]), &value);
	for (size_t i = 0; i < ARRAY_SIZE(times); i++)
		if (value_of(word, times[i]))
			return nginx_parse_time(value_of(word, times[i]), &value);
	return value_of(word, "service") || value_of(word, "route") || value_of(word, "id") ||
	       import_listed(word, "resolve drain");
}

static int read_parameter(struct import *m, struct import_backend *b, const char *word)
{
	const char *weight = value_of(word, "weight");

	if (weight && (!import_uint(weight, &b->weight) || !b->weight))
		return import_fail(m, b->line, "'%.64s' is no weight; write weight=1 or more",
				   word);
	if (strcmp(word, "down") == 0)
		b->off = true;
	else if (strcmp(word, "backup") == 0)
		b->backup = true;
	else if (!weight && !is_limit(word))
		return import_fail(m, b->line,
				   "server ... '%.64s' is no parameter that nginx takes; correct "
				   "it (is a ; missing?)",
				   word);
	else if (value_of(word, "max_fails") || value_of(word, "fail_timeout"))
		import_note(m, b->line, "%s: has no key; probes tell who is dead", word);
	else if (!weight)
		import_note(m, b->line, "server ... %s", word);
	return 0;
}

static int read_server(struct import *m, size_t item)
{
	struct import_backend b = { .line = m->words.items[item].line, .weight = 1 };
	const char *address = import_word(&m->words, item, 1);
	struct err why;
	int r = 0;

	if (strncmp(address, "unix:", 5) == 0)
		return import_fail(m, b.line,
				   "'%.64s' is a unix socket, and backends are "
				   "addresses; write the apiserver's",
				   address);
	if (nginx_parse_server(address, &b.endpoint, &why) < 0)
		return import_fail(m, b.line, "server: %s", why.text);
	for (size_t n = 2; r == 0 && n < m->words.items[item].n_words; n++)
		r = read_parameter(m, &b, import_word(&m->words, item, n));
	return r < 0 ? r : import_add_backend(m, &b);
}

/* random [two [least_conn]] */
static void read_random(struct import *m, size_t item)
{
	bool counts = import_has(&m->words, item, "least_conn");

	import_set_policy(m, counts ? KLB_POLICY_LEAST_CONN : KLB_POLICY_RANDOM,
			  m->words.items[item].line, "random");
	if (counts)
		import_note(m, m->words.items[item].line,
			    "random two least_conn: least-conn compares them all");
}

static void read_hash(struct import *m, size_t item)
{
	import_set_policy(m, KLB_POLICY_RENDEZVOUS, m->words.items[item].line, "hash");
	import_note(m, m->words.items[item].line,
		    "hash %s: rendezvous goes by the node, which is always the same one",
		    import_word(&m->words, item, 1));
}

/* Lines of an upstream that say, in another place, what its servers are. */
static int fail_elsewhere(const struct import *m, size_t item, size_t upstream)
{
	if (import_is(&m->words, item, "include"))
		return import_fail(m, m->words.items[item].line,
				   "include %.128s is not followed, and has servers of upstream "
				   "'%.64s'; write its lines here in a copy of the file",
				   import_word(&m->words, item, 1),
				   import_word(&m->words, upstream, 1));
	return import_fail(m, m->words.items[item].line,
			   "'%.64s': a program chooses among the servers of upstream '%.64s'; "
			   "remove it in a copy of the file",
			   import_word(&m->words, item, 0), import_word(&m->words, upstream, 1));
}

static int read_line(struct import *m, size_t item, size_t upstream)
{
	const char *name = import_word(&m->words, item, 0);
	char text[160];

	if (strcmp(name, "server") == 0)
		return read_server(m, item);
	if (strcmp(name, "include") == 0 || strstr(name, "_by_lua"))
		return fail_elsewhere(m, item, upstream);
	if (strcmp(name, "least_conn") == 0)
		import_set_policy(m, KLB_POLICY_LEAST_CONN, m->words.items[item].line,
				  "least_conn");
	else if (strcmp(name, "random") == 0)
		read_random(m, item);
	else if (strcmp(name, "hash") == 0)
		read_hash(m, item);
	else
		import_note(m, m->words.items[item].line, "%s",
			    import_join(&m->words, item, text, sizeof(text)));
	return 0;
}

/* nginx takes backup servers neither alone, nor with these policies. */
static int check_backups(const struct import *m, size_t upstream)
{
	size_t method = upstream;
	unsigned int first = 0, n = 0;
	bool fixed = nginx_find(m, nginx_inside(m, upstream), "hash", &method) ||
		     nginx_find(m, nginx_inside(m, upstream), "random", &method);

	for (unsigned int i = 0; i < m->n_backends; i++)
		if (m->backends[i].backup && !n++)
			first = m->backends[i].line;
	if (n && fixed)
		return import_fail(m, first, "nginx refuses backup with '%.64s'; remove one",
				   import_word(&m->words, method, 0));
	if (n && n == m->n_backends)
		return import_fail(m, first,
				   "every server of upstream '%.64s' is a backup, which nginx "
				   "refuses; remove the word",
				   import_word(&m->words, upstream, 1));
	return 0;
}

static int read_upstream(struct import *m, size_t upstream)
{
	struct nginx_context in = nginx_inside(m, upstream);
	unsigned int line = m->words.items[upstream].line;
	int r = 0;

	IMPORT_EACH(&m->words, i, in.first, in.last)
	if (r == 0)
		r = read_line(m, i, upstream);
	if (r < 0)
		return r;
	if (!m->n_backends)
		return import_fail(m, line,
				   "upstream '%.64s' has no server; add the apiservers, or name "
				   "the file that is in use",
				   import_word(&m->words, upstream, 1));
	if (!m->policy_line)
		import_note(m, line,
			    "round robin, nginx's default: least-conn, KubeLB's, is the "
			    "nearest to it");
	return check_backups(m, upstream);
}

/* A proxy_pass to what is no upstream of this file, and no address. */
static int fail_target(const struct import *m, struct nginx_context stream, unsigned int line,
		       const char *target, const char *why)
{
	size_t include;

	if (nginx_find(m, stream, "include", &include))
		return import_fail(
			m, line,
			"no upstream '%.64s' in this file; it is perhaps in the include "
			"of line %u (%.128s), which is not followed: put its lines there "
			"in a copy of the file",
			target, m->words.items[include].line, import_word(&m->words, include, 1));
	return import_fail(m, line, "no upstream '%.64s' in this file, and as an address: %s",
			   target, why);
}

int nginx_read_target(struct import *m, struct nginx_context stream, size_t server)
{
	struct import_backend b = { .weight = 1 };
	size_t upstream, pass = server;
	const char *target;
	struct err why;

	nginx_find(m, nginx_inside(m, server), "proxy_pass", &pass);
	target = import_word(&m->words, pass, 1);
	b.line = m->words.items[pass].line;
	if (nginx_find_upstream(m, stream, target, &upstream))
		return read_upstream(m, upstream);
	if (nginx_parse_server(target, &b.endpoint, &why) < 0)
		return fail_target(m, stream, b.line, target, why.text);
	return import_add_backend(m, &b);
}
