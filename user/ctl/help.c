/* SPDX-License-Identifier: BSD-2-Clause */
/* What --help and `kubelbctl help` print. */
#include "ctl/help.h"

#include <stdio.h>
#include <string.h>

#include "base/array.h"
#include "base/cli.h"
#include "base/similar.h"
#include "config/config.h"

/* Completions read these lines: two blanks before the text, and words to choose from as a|b. */
static const struct {
	const char *flags, *text;
	unsigned int with; /* the commands that accept one of these; 0: every command */
} options[] = {
	{ "-o, --output FORMAT", "text|json; status also wide|yaml", WITH_JSON },
	{ "    --brief", "status: one line and an exit status for monitoring", WITH_BRIEF },
	{ "    --color WHEN", "auto|always|never", WITH_COLOR },
	{ "-w, --watch", "status: refresh every second", WITH_WATCH },
	{ "-f, --follow", "events: go on with those to come", WITH_FOLLOW },
	{ "-b, --batch", "top: plain frames, for a file or a pipe", WITH_TOP },
	{ "-n, --frames N", "top: so many plain frames, then end", WITH_TOP },
	{ "-d, --delay SECONDS", "top: the time of a frame (default 1)", WITH_TOP },
	{ "    --sort KEY", "top: by backend|state|active|rate|failed|rtt", WITH_TOP },
	{ "    --bundle FILE", "doctor: also write a bug report, without secrets", WITH_BUNDLE },
	{ "-c, --config FILE", "the configuration (default " CONFIG_PATH_DEFAULT ")", 0 },
	{ "    --pin DIR", "bpffs directory (default " DATAPATH_PIN_DEFAULT ")", 0 },
	{ "-v, --verbose", "say on standard error what is read, written and ended", 0 },
	{ "-h, --help", "this text", 0 },
	{ "-V, --version", "version", 0 },
};

/* with: of a command; ~0u: all options. */
static void print_options(unsigned int with)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (!options[i].with || options[i].with & with)
			printf("  %-21s %s\n", options[i].flags, options[i].text);
}

#define BACKEND_TEXT "BACKEND is an address as in the configuration; port 6443 unless given."

void help_print(const struct ctl_command *list, size_t n)
{
	puts("Usage: kubelbctl [OPTION]... COMMAND [ARGUMENT]...\n\nCommands:");
	for (size_t i = 0; i < n; i++)
		printf("  %-11s %-15s %s\n", list[i].name, list[i].arguments, list[i].help);
	puts("\n" BACKEND_TEXT "\n");
	print_options(~0u);
	puts("\nExit status: 0 done, 1 it could not be done, 2 wrong command line.\n"
	     "kubelbctl help COMMAND says more about one of them, kubelbctl(8) everything.");
}

void help_print_command(const struct ctl_command *c)
{
	printf("Usage: kubelbctl %s [OPTION]...%s%s\n\n%s: %s.\n\n", c->name,
	       c->arguments[0] ? " " : "", c->arguments, c->name, c->help);
	if (strstr(c->arguments, "BACKEND"))
		puts(BACKEND_TEXT "\n");
	print_options(c->with);
	puts("\nExit status: 0 done, 1 it could not be done, 2 wrong command line.");
	if (c->with & WITH_BRIEF)
		puts("With --brief: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN, also when it fails.");
}

const struct ctl_command *help_find(const struct ctl_command *list, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(list[i].name, name))
			return &list[i];
	return NULL;
}

int help_unknown(const struct ctl_command *list, size_t n, const char *name)
{
	struct similar s = { .text = name };

	for (size_t i = 0; i < n; i++)
		similar_offer(&s, list[i].name);
	return s.best ? cli_usage("unknown command '%s'; did you mean %s?", name, s.best)
		      : cli_usage("unknown command '%s'", name);
}

int help_missing(const struct ctl_command *list, size_t n)
{
	char names[256] = "";
	size_t used = 0;

	for (size_t i = 0; i < n && used < sizeof(names); i++)
		used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", i ? ", " : "",
					 list[i].name);
	return cli_usage("which command? (%s)", names);
}
