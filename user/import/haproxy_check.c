/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Refuses what HAProxy itself does not start with: a file that it refuses is not what balances,
 * and what it says about a line may be that a server is missing.
 */
#include <errno.h>
#include <string.h>

#include "base/ascii.h"
#include "import/haproxy.h"

/* More than any real file has; both bound the time that comparing takes. */
#define SECTIONS_MAX 1024
#define CHAIN_MAX 32

/* What may begin a line in defaults, frontend, backend and listen: all of HAProxy 1.5 to 3.2. */
static const char keywords[] =
	"acl appsession backlog balance bind bind-process block capture clitcpka-cnt clitcpka-idle "
	"clitcpka-intvl clitimeout compression contimeout cookie crt declare default "
	"default-server default_backend description disabled dispatch dynamic-cookie-key "
	"email-alert enabled error-log-format errorfile errorfiles errorloc errorloc302 "
	"errorloc303 external-check filter filter-sequence force-be-switch force-persist fullconn "
	"grace guid hash-balance-factor hash-preserve-affinity hash-type http-after-response "
	"http-check http-error http-request http-response http-reuse http-send-name-header id "
	"ignore-persist load-server-state-from-file log log-format log-format-sd log-steps log-tag "
	"max-keep-alive-queue max-session-srv-conns maxconn mode monitor monitor-net monitor-uri "
	"monitor-fail no option persist quic-initial rate-limit redirect redisp redispatch reqadd "
	"reqallow reqdel reqdeny reqiallow reqidel reqideny reqipass reqirep reqisetbe reqitarpit "
	"reqpass reqrep reqsetbe reqtarpit retries retry-on rspadd rspdel rspdeny rspidel "
	"rspideny rspirep rsprep server server-state-file-name server-template source "
	"srvtcpka-cnt srvtcpka-idle srvtcpka-intvl srvtimeout stats stick stick-table tcp-check "
	"tcp-request tcp-response tcpka timeout transparent unique-id-format unique-id-header "
	"use-fcgi-app use-server use_backend userlist";

static bool is_proxy(const struct import *m, size_t section)
{
	return haproxy_is_frontend(m, section) || haproxy_is_backend(m, section);
}

int haproxy_fail_word(const struct import *m, unsigned int line, const char *word, const char *kind)
{
	char plain[IMPORT_LABEL_MAX];

	if (!ascii_all_print(word))
		return import_fail(
			m, line,
			"'%s': what is shown as ?? here is no plain character (a no-break "
			"space?) and makes this no %s of HAProxy's; remove it",
			import_ascii(word, plain, sizeof(plain)), kind);
	if (strchr(word, '$'))
		return import_fail(
			m, line,
			"'%.64s' is a variable where HAProxy wants a %s: a template that "
			"was not rendered? give the file of a node",
			word, kind);
	return import_fail(m, line,
			   "'%.64s' is no %s of HAProxy's, which refuses the file; correct it, or "
			   "remove it in a copy of the file",
			   word, kind);
}

/* --- lines ----------------------------------------------------------------------------- */

/* What the kind of a section does not take. */
static int check_place(const struct import *m, size_t section, size_t item)
{
	const char *kind = import_word(&m->words, section, 0);
	const char *word = import_word(&m->words, item, 0);
	const char *refused = "";

	if (strcmp(kind, "defaults") == 0)
		refused = "acl bind dispatch server server-template use-server use_backend";
	else if (strcmp(kind, "frontend") == 0)
		refused = "dispatch server server-template use-server";
	if (import_listed(word, refused))
		return import_fail(m, m->words.items[item].line,
				   "HAProxy takes no '%s' in a section '%s'; is the line that "
				   "begins another section missing?",
				   word, kind);
	return 0;
}

/* The number of words, its own included, that a keyword takes at the most; 0: any. */
static size_t most_words(const char *keyword)
{
	if (import_listed(keyword, "default_backend fullconn maxconn mode retries"))
		return 2;
	return strcmp(keyword, "timeout") == 0 ? 3 : 0;
}

/* Where the end of a line is missing, the next one looks like words of it. */
static bool begins_line(const struct import *m, size_t item, size_t n)
{
	return import_listed(import_word(&m->words, item, 0), "balance http-check log option") &&
	       import_listed(import_word(&m->words, item, n),
			     "bind default-server default_backend server server-template "
			     "use_backend") &&
	       n + 2 < m->words.items[item].n_words;
}

static const char timeouts[] =
	"check client client-fin client-hs clitimeout connect contimeout http-keep-alive "
	"http-request queue server server-fin srvtimeout tarpit tunnel";

/* The first word that is one too many, or none that HAProxy knows; 0: none is. */
static size_t find_extra(const struct import *m, size_t item)
{
	const char *word = import_word(&m->words, item, 0);
	size_t n = m->words.items[item].n_words, most = most_words(word);

	if (most && n > most)
		return most;
	if (strcmp(word, "use_backend") == 0 && n > 2 &&
	    !import_listed(import_word(&m->words, item, 2), "if unless"))
		return 2;
	if (strcmp(word, "mode") == 0 &&
	    !import_listed(import_word(&m->words, item, 1), "tcp http health log spop haterm"))
		return 1;
	if (strcmp(word, "timeout") == 0 &&
	    !import_listed(import_word(&m->words, item, 1), timeouts))
		return 1;
	for (size_t i = 2; i < n; i++)
		if (begins_line(m, item, i))
			return i;
	return 0;
}

static int check_words(const struct import *m, size_t item)
{
	size_t extra = find_extra(m, item);

	if (!extra)
		return 0;
	return import_fail(
		m, m->words.items[item].line,
		"%s ... '%.64s': HAProxy takes no such word here; correct it (is the end "
		"of a line missing?)",
		import_word(&m->words, item, 0), import_word(&m->words, item, extra));
}

static int check_lines(const struct import *m, size_t section)
{
	IMPORT_EACH(&m->words, i, section + 1, m->words.items[section].end)
	{
		const char *word = import_word(&m->words, i, 0);
		int r = check_place(m, section, i);

		if (r == 0)
			r = check_words(m, i);
		if (r < 0)
			return r;
		if (!import_listed(word, keywords))
			return haproxy_fail_word(m, m->words.items[i].line, word, "keyword");
	}
	return 0;
}

/* --- sections -------------------------------------------------------------------------- */

static int check_from(const struct import *m, size_t section)
{
	const char *from = haproxy_from_of(m, section);
	unsigned int line = m->words.items[section].line, found = 0;

	if (!*from)
		return 0;
	IMPORT_EACH(&m->words, i, 0, section)
	{
		if (!import_is(&m->words, i, "defaults") ||
		    strcmp(import_word(&m->words, i, 1), from) != 0)
			continue;
		if (found)
			return import_fail(m, line,
					   "from '%.64s': two defaults sections have that name "
					   "(lines %u and %u); rename one",
					   from, found, m->words.items[i].line);
		found = m->words.items[i].line;
	}
	return found ? 0
		     : import_fail(m, line,
				   "from '%.64s': no defaults section before this line has that "
				   "name; correct it, or add the section",
				   from);
}

static int check_chain(const struct import *m, size_t section)
{
	size_t at = haproxy_defaults_of(m, section);

	for (unsigned int n = 0; at != HAPROXY_NONE; n++) {
		if (n == CHAIN_MAX)
			return import_fail(m, m->words.items[section].line,
					   "more than %d defaults sections from one another; "
					   "write the settings into fewer",
					   CHAIN_MAX);
		at = haproxy_defaults_of(m, at);
	}
	return 0;
}

/* What a section's own line has behind the name, but for `from NAME`. */
static int check_header(const struct import *m, size_t section)
{
	size_t named = strcmp(import_word(&m->words, section, 2), "from") == 0 ? 4 : 2;
	const char *word = import_word(&m->words, section, named);

	if (!*import_word(&m->words, section, 1))
		return import_fail(m, m->words.items[section].line, "a %s without a name; add one",
				   import_word(&m->words, section, 0));
	if (!*word)
		return 0;
	return import_fail(
		m, m->words.items[section].line,
		"'%.64s' behind the name, which HAProxy refuses; write bind %.64s on a line "
		"of its own if it is an address",
		word, word);
}

/* Two frontends, or two backends, of one name; a listen is both. */
static int check_name(const struct import *m, size_t section)
{
	const char *name = import_word(&m->words, section, 1);
	unsigned int line = m->words.items[section].line;

	IMPORT_EACH(&m->words, i, 0, section)
	if (((haproxy_is_frontend(m, i) && haproxy_is_frontend(m, section)) ||
	     (haproxy_is_backend(m, i) && haproxy_is_backend(m, section))) &&
	    strcmp(import_word(&m->words, i, 1), name) == 0)
		return import_fail(m, line,
				   "'%.64s' is there already (line %u), which HAProxy refuses; "
				   "rename one, or remove it",
				   name, m->words.items[i].line);
	return 0;
}

int haproxy_check(struct import *m)
{
	unsigned int n = 0;
	int r = 0;

	IMPORT_EACH(&m->words, i, 0, m->words.n_items)
	{
		bool proxy = is_proxy(m, i);

		if (++n > SECTIONS_MAX)
			return import_fail(m, m->words.items[i].line,
					   "more than %d sections; leave those of the apiservers "
					   "in a copy of the file",
					   SECTIONS_MAX);
		if (!proxy && !import_is(&m->words, i, "defaults"))
			continue;
		r = proxy ? check_header(m, i) : 0;
		if (r == 0 && proxy)
			r = check_name(m, i);
		if (r == 0)
			r = check_from(m, i);
		if (r == 0)
			r = check_chain(m, i);
		if (r == 0)
			r = check_lines(m, i);
		if (r < 0)
			return r;
	}
	return 0;
}
