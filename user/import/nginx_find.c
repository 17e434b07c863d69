/* SPDX-License-Identifier: BSD-2-Clause */
/* Finds directives of an nginx.conf, and reads addresses and times. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "import/nginx.h"
#include "base/array.h"
#include "net/endpoint.h"

struct nginx_context nginx_inside(const struct import *m, size_t item)
{
	return (struct nginx_context){ item + 1, m->words.items[item].end };
}

/* The first directive of that name in a context, if there is one. */
bool nginx_find(const struct import *m, struct nginx_context in, const char *name, size_t *ret)
{
	IMPORT_EACH(&m->words, i, in.first, in.last)
	if (import_is(&m->words, i, name)) {
		*ret = i;
		return true;
	}
	return false;
}

/* A setting of the server, or of the stream {} around it. */
bool nginx_find_setting(const struct import *m, size_t server, struct nginx_context stream,
			const char *name, size_t *ret)
{
	return nginx_find(m, nginx_inside(m, server), name, ret) ||
	       nginx_find(m, stream, name, ret);
}

bool nginx_find_deep(const struct import *m, struct nginx_context in, const char *name, size_t *ret)
{
	for (size_t i = in.first; i < in.last; i++)
		if (import_is(&m->words, i, name)) {
			*ret = i;
			return true;
		}
	return false;
}

const char *nginx_target_of(const struct import *m, size_t server)
{
	size_t pass;

	return nginx_find(m, nginx_inside(m, server), "proxy_pass", &pass)
		       ? import_word(&m->words, pass, 1)
		       : "";
}

bool nginx_same_target(const struct import *m, size_t server, size_t other)
{
	return strcasecmp(nginx_target_of(m, server), nginx_target_of(m, other)) == 0;
}

bool nginx_is_listen(const struct import *m, size_t item)
{
	return import_is(&m->words, item, "listen") && !import_has(&m->words, item, "udp");
}

bool nginx_is_server(const struct import *m, size_t item)
{
	struct nginx_context in = nginx_inside(m, item);
	bool udp = false;

	if (!m->words.items[item].block || !import_is(&m->words, item, "server") ||
	    !*nginx_target_of(m, item))
		return false;
	IMPORT_EACH(&m->words, i, in.first, in.last)
	{
		if (nginx_is_listen(m, i))
			return true;
		udp = udp || import_is(&m->words, i, "listen");
	}
	return !udp;
}

bool nginx_find_upstream(const struct import *m, struct nginx_context stream, const char *name,
			 size_t *ret)
{
	IMPORT_EACH(&m->words, i, stream.first, stream.last)
	if (m->words.items[i].block && import_is(&m->words, i, "upstream") &&
	    strcasecmp(import_word(&m->words, i, 1), name) == 0) {
		*ret = i;
		return true;
	}
	return false;
}

/* --- addresses and times ------------------------------------------------------ */

static int fail_variable(const char *text, struct err *e)
{
	return err_set(e, EINVAL,
		       "'%.64s' is a variable, which nginx does not take here: a template that was "
		       "not rendered? give the file of a node",
		       text);
}

/* Takes the end of a range of ports off the text. */
static bool take_range(char *text, unsigned int *ret_last)
{
	char *dash = strrchr(text, '-');

	*ret_last = 0;
	if (!dash || strchr(dash, ']'))
		return true;
	*dash = '\0';
	return endpoint_parse_port(dash + 1, ret_last);
}

static int parse_listen(const char *text, struct klb_endpoint *ret, struct err *e)
{
	static const char *const names[][2] = { { "*:", "0.0.0.0:" },
						{ "localhost:", "127.0.0.1:" } };
	char full[ENDPOINT_TEXT_MAX + 16];
	unsigned int port;

	if (import_uint(text, &port)) {
		snprintf(full, sizeof(full), "0.0.0.0:%.32s", text);
		return endpoint_parse(full, 0, ret, e);
	}
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strncmp(text, names[i][0], strlen(names[i][0])) == 0) {
			snprintf(full, sizeof(full), "%s%.32s", names[i][1],
				 text + strlen(names[i][0]));
			return endpoint_parse(full, 0, ret, e);
		}
	return endpoint_parse(text, 0, ret, e);
}

int nginx_parse_listen(const char *text, struct nginx_listen *ret, struct err *e)
{
	char copy[ENDPOINT_TEXT_MAX + 16];
	int r;

	if (strchr(text, '$'))
		return fail_variable(text, e);
	snprintf(copy, sizeof(copy), "%s", text);
	if (!take_range(copy, &ret->last))
		return err_set(e, EINVAL, "'%.64s' is no range of ports; write FIRST-LAST", text);
	r = parse_listen(copy, &ret->endpoint, e);
	if (r == 0 && !ret->last)
		ret->last = ret->endpoint.port;
	if (r == 0 && ret->last < ret->endpoint.port)
		return err_set(e, EINVAL, "'%.64s' is no range of ports; write FIRST-LAST", text);
	return r;
}

int nginx_parse_server(const char *text, struct klb_endpoint *ret, struct err *e)
{
	return strchr(text, '$') ? fail_variable(text, e) : endpoint_parse(text, 0, ret, e);
}

/* nginx's times: "1m 30s" in one word or more, seconds where no unit is given. */
bool nginx_parse_time(const char *text, unsigned int *ret_ms)
{
	static const struct import_unit units[] = {
		{ "s", 1000000 },	{ "ms", 1000 },		 { "m", 60000000 },
		{ "h", 3600000000 },	{ "d", 86400000000 },	 { "w", 604800000000 },
		{ "M", 2592000000000 }, { "y", 31536000000000 }, { NULL, 0 },
	};

	return import_parse_time(text, units, true, ret_ms);
}
