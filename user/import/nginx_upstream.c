/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the upstream of an nginx.conf that was chosen. */
#include <string.h>

#include "import/nginx.h"
#include "net/endpoint.h"

/* The value behind name=, or NULL. */
static const char *value_of(const char *word, const char *name)
{
	size_t length = strlen(name);

	return strncmp(word, name, length) == 0 && word[length] == '=' ? word + length + 1 : NULL;
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
	if (endpoint_parse(address, 0, &b.endpoint, &why) < 0)
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

static int read_upstream(struct import *m, size_t upstream)
{
	struct nginx_context in = nginx_inside(m, upstream);
	unsigned int line = m->words.items[upstream].line;
	char text[160];

	IMPORT_EACH(&m->words, i, in.first, in.last)
	{
		int r = 0;

		if (import_is(&m->words, i, "server"))
			r = read_server(m, i);
		else if (import_is(&m->words, i, "least_conn"))
			import_set_policy(m, KLB_POLICY_LEAST_CONN, m->words.items[i].line,
					  "least_conn");
		else if (import_is(&m->words, i, "random"))
			read_random(m, i);
		else if (import_is(&m->words, i, "hash"))
			read_hash(m, i);
		else if (!import_is(&m->words, i, "include")) /* see note_includes */
			import_note(m, m->words.items[i].line, "%s",
				    import_join(&m->words, i, text, sizeof(text)));
		if (r < 0)
			return r;
	}
	if (!m->n_backends)
		return import_fail(m, line,
				   "upstream '%.64s' has no server; is it in another file "
				   "that is included?",
				   import_word(&m->words, upstream, 1));
	if (!m->policy_line)
		import_note(m, line,
			    "round robin, nginx's default: least-conn, KubeLB's, is the "
			    "nearest to it");
	return 0;
}

/* proxy_pass to an upstream, or to a single address. */
int nginx_read_target(struct import *m, struct nginx_context stream, size_t server)
{
	struct import_backend b = { .weight = 1 };
	size_t upstream, pass = server;
	const char *target;
	struct err why;

	nginx_find(m, nginx_inside(m, server), "proxy_pass", &pass);
	target = import_word(&m->words, pass, 1);
	b.line = m->words.items[pass].line;
	if (strchr(target, '$'))
		return import_fail(m, b.line,
				   "proxy_pass %.64s is chosen for each connection by what it "
				   "carries, which KubeLB does not look at; write the upstream "
				   "of the apiservers there in a copy of the file",
				   target);
	if (nginx_find_upstream(m, stream, target, &upstream))
		return read_upstream(m, upstream);
	if (endpoint_parse(target, 0, &b.endpoint, &why) < 0)
		return import_fail(m, b.line,
				   "no upstream '%.64s' in this file, and as an address: %s",
				   target, why.text);
	return import_add_backend(m, &b);
}
