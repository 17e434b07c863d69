/* SPDX-License-Identifier: BSD-2-Clause */
/* The doctor looks for firewall rules that may stop or divert connects to the backends. */
#include "ctl/doctor.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/array.h"
#include "host/command.h"

#define SECONDS 5
#define LISTING_MAX ((size_t)16 << 20)

/* Where rules are listed; each prints one rule a line. */
static const struct tool {
	const char *argv[4];
} tools[] = {
	{ { "nft", "list", "ruleset", NULL } },
	{ { "iptables-save", NULL } },
	{ { "ip6tables-save", NULL } },
};

static const char *const verdicts[] = { "drop", "reject", "dnat", "redirect", "tproxy" };

/* As a word: a part of another number does not count. */
static bool has_number(const char *line, unsigned int number)
{
	char text[16];
	size_t length = (size_t)snprintf(text, sizeof(text), "%u", number);

	for (const char *at = line; (at = strstr(at, text)); at += length)
		if ((at == line || !isalnum((unsigned char)at[-1])) &&
		    !isalnum((unsigned char)at[length]))
			return true;
	return false;
}

/*
 * Whether the rule is about connects to that port, and does more than to let them through. Where it
 * only appears as the target, as in kube-proxy's rules for the Service, the rule is about another.
 */
static bool matters(const char *line, unsigned int port)
{
	const char *wanted = strstr(line, "dport");

	if (!wanted || !has_number(wanted, port))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(verdicts); i++)
		if (strcasestr(wanted, verdicts[i]))
			return true;
	return false;
}

/* A chain of nft, or a rule of iptables, that a connect of this node's does not pass. */
static bool is_inbound(const char *line, bool *inside)
{
	if (strstr(line, " hook "))
		*inside = strstr(line, "hook input");
	else if (strstr(line, "chain "))
		*inside = false;
	return *inside || strstr(line, "-A INPUT ");
}

static bool is_of_port(const struct doctor_endpoints *list, const char *line)
{
	for (unsigned int i = 0; i < list->n; i++)
		if (matters(line, list->list[i].port))
			return true;
	return false;
}

static void say_rule(struct doctor *d, const char *tool, const char *line)
{
	doctor_say(d, DOCTOR_WARN, "firewall",
		   "a rule may stop or divert connects to a backend: %s",
		   line + strspn(line, " \t"));
	doctor_next(d, "look at it in %s; let this node's connects to the backends pass", tool);
}

/* Returns how many rules may matter. */
static unsigned int read_rules(struct doctor *d, const char *tool, char *text,
			       const struct doctor_endpoints *list)
{
	unsigned int n = 0;
	bool inbound = false;
	char *rest = NULL;

	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		if (is_inbound(line, &inbound) || !is_of_port(list, line))
			continue;
		say_rule(d, tool, line);
		n++;
	}
	return n;
}

void doctor_check_firewall(struct doctor *d)
{
	unsigned int listed = 0, found = 0;
	struct doctor_endpoints list;

	if (geteuid()) {
		doctor_say(d, DOCTOR_SKIP, "firewall", "takes root to list");
		return;
	}
	doctor_backends(d, &list);
	for (size_t i = 0; i < ARRAY_SIZE(tools); i++) {
		char *text = NULL;

		if (!command_run(tools[i].argv, SECONDS, LISTING_MAX, &text)) {
			listed++;
			found += read_rules(d, tools[i].argv[0], text, &list);
		}
		free(text);
		/* It lists those of iptables as well. */
		if (listed && !i)
			break;
	}
	if (!listed)
		doctor_say(d, DOCTOR_SKIP, "firewall",
			   "neither nft nor iptables-save is here to list the rules");
	else if (!found)
		doctor_say(d, DOCTOR_OK, "firewall", "no rule is about the backends' ports");
}
