/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finds the server {} of an nginx.conf that leads to the apiservers. Where nginx chooses the
 * upstream for each connection, or by name, nothing is guessed.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "import/nginx.h"
#include "net/endpoint.h"

/* --- candidates -------------------------------------------------------------------------- */

static bool is_6443(const char *address)
{
	struct klb_endpoint ep;
	const char *colon = strrchr(address, ':');

	if (nginx_parse_server(address, &ep, NULL) == 0)
		return ep.port == KLB_PORT_DEFAULT;
	return colon && strcmp(colon, ":6443") == 0; /* behind a name, say */
}

/* Whether all of an upstream's servers have port 6443. */
static bool upstream_is_6443(const struct import *m, size_t upstream)
{
	bool all = false;

	IMPORT_EACH(&m->words, i, upstream + 1, m->words.items[upstream].end)
	{
		if (!import_is(&m->words, i, "server"))
			continue;
		if (!is_6443(import_word(&m->words, i, 1)))
			return false;
		all = true;
	}
	return all;
}

static bool target_is_6443(const struct import *m, struct nginx_context stream, const char *target)
{
	size_t upstream;

	return nginx_find_upstream(m, stream, target, &upstream) ? upstream_is_6443(m, upstream)
								 : is_6443(target);
}

static bool listens_on_6443(const struct import *m, size_t server)
{
	struct nginx_context in = nginx_inside(m, server);
	struct nginx_listen listen;

	IMPORT_EACH(&m->words, i, in.first, in.last)
	if (nginx_is_listen(m, i) &&
	    nginx_parse_listen(import_word(&m->words, i, 1), &listen, NULL) == 0 &&
	    listen.endpoint.port <= KLB_PORT_DEFAULT && listen.last >= KLB_PORT_DEFAULT)
		return true;
	return false;
}

static void fill_server(const struct import *m, struct nginx_context stream, size_t server,
			struct import_candidate *c)
{
	char listens[IMPORT_LABEL_MAX], target[IMPORT_LABEL_MAX];
	size_t listen;

	*c = (struct import_candidate){ .line = m->words.items[server].line, .item = server };
	c->listens_6443 = listens_on_6443(m, server);
	c->leads_to_6443 = target_is_6443(m, stream, nginx_target_of(m, server));
	import_ascii(nginx_find(m, nginx_inside(m, server), "listen", &listen)
			     ? import_word(&m->words, listen, 1)
			     : "nowhere",
		     listens, sizeof(listens));
	snprintf(c->label, sizeof(c->label), "%s to %s", listens,
		 import_ascii(nginx_target_of(m, server), target, sizeof(target)));
}

/* An upstream that no server {} names: by a variable, perhaps. */
static void fill_upstream(const struct import *m, size_t upstream, struct import_candidate *c)
{
	char name[IMPORT_LABEL_MAX];

	*c = (struct import_candidate){ .line = m->words.items[upstream].line, .item = upstream };
	c->leads_to_6443 = true;
	snprintf(c->label, sizeof(c->label), "nothing to %s",
		 import_ascii(import_word(&m->words, upstream, 1), name, sizeof(name)));
}

/*
 * Makes one candidate of all servers that pass to the same upstream, such as one on [::1] and one
 * on 127.0.0.1.
 */
static int list_servers(struct import *m, struct nginx_context stream,
			struct import_candidate *list, size_t *n)
{
	IMPORT_EACH(&m->words, i, stream.first, stream.last)
	{
		size_t same = 0;

		if (!nginx_is_server(m, i))
			continue;
		while (same < *n && !nginx_same_target(m, list[same].item, i))
			same++;
		if (same < *n) {
			list[same].listens_6443 |= listens_on_6443(m, i);
			continue;
		}
		if (*n == IMPORT_CANDIDATES_MAX)
			return import_fail(m, m->words.items[i].line,
					   "more than %d upstreams that servers pass to; leave one "
					   "in a copy of the file and name that",
					   IMPORT_CANDIDATES_MAX);
		fill_server(m, stream, i, &list[(*n)++]);
	}
	return 0;
}

/* Where no server {} has port 6443 on either side, an upstream with it could be what is looked for.
 */
static void list_unreached(const struct import *m, struct nginx_context stream,
			   struct import_candidate *list, size_t *n)
{
	for (size_t i = 0; i < *n; i++)
		if (list[i].leads_to_6443 || list[i].listens_6443)
			return;
	IMPORT_EACH(&m->words, i, stream.first, stream.last)
	if (*n && *n < IMPORT_CANDIDATES_MAX && import_is(&m->words, i, "upstream") &&
	    upstream_is_6443(m, i))
		fill_upstream(m, i, &list[(*n)++]);
}

/* --- what cannot be chosen -------------------------------------------------------------------- */

/* The map that sets a variable: `map SOURCE $variable {`. */
static unsigned int line_of_map(const struct import *m, struct nginx_context stream,
				const char *variable)
{
	IMPORT_EACH(&m->words, i, stream.first, stream.last)
	{
		size_t last = m->words.items[i].n_words;

		if (m->words.items[i].block && last > 1 &&
		    strcmp(import_word(&m->words, i, last - 1), variable) == 0)
			return m->words.items[i].line;
	}
	return 0;
}

static int fail_variable(const struct import *m, struct nginx_context stream, size_t server)
{
	const char *target = nginx_target_of(m, server);
	unsigned int map = line_of_map(m, stream, target);
	size_t pass = server;
	char from[48] = "";

	nginx_find(m, nginx_inside(m, server), "proxy_pass", &pass);
	if (map)
		snprintf(from, sizeof(from), " (by the block of line %u)", map);
	return import_fail(m, m->words.items[pass].line,
			   "proxy_pass %.64s is chosen for each connection by what it carries%s, "
			   "which KubeLB does not look at; write the upstream of the apiservers "
			   "there in a copy of the file",
			   target, from);
}

/* nginx refuses a second listen on an address, or chooses by name among the servers. */
static int check_same_listen(const struct import *m, size_t listen, size_t server, size_t other)
{
	struct nginx_context in = nginx_inside(m, other);
	struct nginx_listen here, there;

	if (nginx_parse_listen(import_word(&m->words, listen, 1), &here, NULL) < 0)
		return 0;
	IMPORT_EACH(&m->words, i, in.first, in.last)
	if (i != listen && nginx_is_listen(m, i) &&
	    nginx_parse_listen(import_word(&m->words, i, 1), &there, NULL) == 0 &&
	    endpoint_equal(&here.endpoint, &there.endpoint) &&
	    (server == other || !nginx_same_target(m, server, other)))
		return import_fail(m, m->words.items[i].line,
				   "listen %.64s is there already (line %u): nginx refuses that, "
				   "or chooses by server_name, which KubeLB does not look at; "
				   "leave one in a copy of the file",
				   import_word(&m->words, i, 1), m->words.items[listen].line);
	return 0;
}

static int check_listens(const struct import *m, struct nginx_context stream, size_t server)
{
	struct nginx_context in = nginx_inside(m, server);

	IMPORT_EACH(&m->words, listen, in.first, in.last)
	{
		if (!nginx_is_listen(m, listen))
			continue;
		IMPORT_EACH(&m->words, i, stream.first, stream.last)
		if (nginx_is_server(m, i) && check_same_listen(m, listen, server, i) < 0)
			return -EINVAL;
	}
	return 0;
}

static int check_chosen(const struct import *m, struct nginx_context stream, size_t item)
{
	if (import_is(&m->words, item, "upstream"))
		return import_fail(m, m->words.items[item].line,
				   "upstream '%.64s' has the only servers on port 6443, and no "
				   "server {} passes there but by a variable; write proxy_pass "
				   "%.64s in a copy of the file",
				   import_word(&m->words, item, 1),
				   import_word(&m->words, item, 1));
	if (strchr(nginx_target_of(m, item), '$'))
		return fail_variable(m, stream, item);
	IMPORT_EACH(&m->words, i, stream.first, stream.last)
	if (nginx_is_server(m, i) && nginx_same_target(m, i, item) &&
	    check_listens(m, stream, i) < 0)
		return -EINVAL;
	return 0;
}

/* --- nothing to choose ---------------------------------------------------------------------- */

#define NO_SERVER "no server {} with a proxy_pass in a stream {}"

static int fail_none(const struct import *m, struct nginx_context file)
{
	size_t item;

	if (!m->words.n_items)
		return import_fail(m, 0, "empty; name the nginx.conf of the local proxy");
	if (nginx_find_include(m, file, &item))
		return import_fail(m, m->words.items[item].line,
				   NO_SERVER ", but an include (line %u), which is not followed; "
					     "name that file: %.128s",
				   m->words.items[item].line, import_word(&m->words, item, 1));
	if (nginx_find(m, file, "stream", &item))
		return import_fail(m, m->words.items[item].line,
				   NO_SERVER "; name the nginx.conf of the local proxy");
	if (nginx_find(m, file, "http", &item) || nginx_find_deep(m, file, "location", &item) ||
	    nginx_find_deep(m, file, "proxy_pass", &item))
		return import_fail(m, m->words.items[item].line,
				   NO_SERVER
				   "; a proxy in http {} ends the clients' TLS, and has "
				   "no counterpart: let clients reach the apiservers' own "
				   "TLS, through stream {}, first");
	return import_fail(m, m->words.items[0].line,
			   NO_SERVER "; name the nginx.conf of the local proxy");
}

int nginx_choose(struct import *m, struct nginx_context file, struct nginx_context stream,
		 size_t *ret)
{
	struct import_candidate list[IMPORT_CANDIDATES_MAX];
	size_t n = 0, chosen = 0;
	int r = list_servers(m, stream, list, &n);

	if (r < 0)
		return r;
	if (!n)
		return fail_none(m, file);
	list_unreached(m, stream, list, &n);
	r = import_choose(m, list, n, "upstream", &chosen);
	if (r == 0)
		r = check_chosen(m, stream, list[chosen].item);
	if (r == 0)
		*ret = list[chosen].item;
	return r;
}
