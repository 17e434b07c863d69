/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kubelbctl: shows the state of the data path and changes the operator's settings. It works on the
 * maps and needs no agent.
 */
#include <getopt.h>
#include <limits.h>
#include <string.h>

#include "base/array.h"
#include "base/cli.h"
#include "base/clock.h"
#include "base/log.h"
#include "ctl/brief.h"
#include "ctl/ctl.h"
#include "ctl/help.h"

static int ctl_help(const struct ctl_options *o, int argc, char **argv);

static const struct ctl_command commands[] = {
	{ "status", "", "frontends, backends and how they fare",
	  WITH_WATCH | WITH_JSON | WITH_FORMATS | WITH_COLOR | WITH_BRIEF, ctl_status },
	{ "top", "", "live: connects a second, connections, processes", WITH_TOP | WITH_COLOR,
	  ctl_top },
	{ "connections", "", "the balanced connections, and whose they are", WITH_JSON,
	  ctl_connections },
	{ "events", "", "what has happened to connects", WITH_FOLLOW | WITH_JSON, ctl_events },
	{ "doctor", "", "what is wrong, and what to do about it", WITH_JSON | WITH_BUNDLE,
	  ctl_doctor },
	{ "ping", "[ready]", "whether the agent answers, or is ready", 0, ctl_ping },
	{ "drain", "BACKEND", "no new connections to it while another is ready", 0, ctl_drain },
	{ "undrain", "BACKEND", "take it back in", 0, ctl_undrain },
	{ "weight", "BACKEND N|auto", "its weight: 0 to 1000, or the configuration's", 0,
	  ctl_weight },
	{ "kill", "BACKEND", "end the balanced connections to it", 0, ctl_kill },
	{ "help", "[COMMAND]", "this text, or that of one command", 0, ctl_help },
};

#define N_COMMANDS (ARRAY_SIZE(commands))

/* Options without a letter. */
enum { OPTION_PIN = 256, OPTION_BRIEF, OPTION_COLOR, OPTION_SORT, OPTION_BUNDLE };

static const struct option long_options[] = {
	{ "output", required_argument, NULL, 'o' },
	{ "watch", no_argument, NULL, 'w' },
	{ "follow", no_argument, NULL, 'f' },
	{ "batch", no_argument, NULL, 'b' },
	{ "frames", required_argument, NULL, 'n' },
	{ "delay", required_argument, NULL, 'd' },
	{ "sort", required_argument, NULL, OPTION_SORT },
	{ "brief", no_argument, NULL, OPTION_BRIEF },
	{ "color", required_argument, NULL, OPTION_COLOR },
	{ "bundle", required_argument, NULL, OPTION_BUNDLE },
	{ "config", required_argument, NULL, 'c' },
	{ "pin", required_argument, NULL, OPTION_PIN },
	{ "verbose", no_argument, NULL, 'v' },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ NULL, 0, NULL, 0 },
};

/* What the command line says. */
struct line {
	struct ctl_options options;
	unsigned int with; /* the options that are there */
	const char *last[8]; /* how each of them was written, by the number of its bit */
	bool help;
};

static void note(struct line *l, unsigned int with, const char *written)
{
	l->with |= with;
	l->last[__builtin_ctz(with)] = written;
}

/* These functions return -1 to continue, or an exit status. */
static int take_format(struct line *l, const char *text)
{
	struct ctl_options *o = &l->options;

	o->wide = !strcmp(text, "wide");
	o->yaml = !strcmp(text, "yaml");
	o->json = o->yaml || !strcmp(text, "json");
	if (o->wide || o->yaml)
		note(l, WITH_FORMATS, o->wide ? "-o wide" : "-o yaml");
	else if (o->json)
		note(l, WITH_JSON, "-o json");
	else if (strcmp(text, "text") != 0)
		return cli_usage("-o %s: want text, json, wide or yaml", text);
	return -1;
}

static int take_color(struct line *l, const char *text)
{
	static const char *const names[] = { [CTL_COLOR_AUTO] = "auto",
					     [CTL_COLOR_ALWAYS] = "always",
					     [CTL_COLOR_NEVER] = "never" };

	note(l, WITH_COLOR, "--color");
	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++) {
		l->options.color = i;
		if (!strcmp(text, names[i]))
			return -1;
	}
	return cli_usage("--color %s: want auto, always or never", text);
}

/* The options of top. */
static int take_top(struct line *l, int c)
{
	unsigned long n = 1;

	note(l, WITH_TOP, c == 'b' ? "-b" : c == 'n' ? "-n" : c == 'd' ? "-d" : "--sort");
	if (c == 'b')
		l->options.batch = true;
	else if (c == OPTION_SORT)
		l->options.sort = optarg;
	else if (cli_number(optarg, 1, c == 'n' ? UINT_MAX : CTL_DELAY_MAX_S, &n))
		return c == 'n' ? cli_usage("-n %s: want a number of frames", optarg)
				: cli_usage("-d %s: want 1 to %d seconds", optarg, CTL_DELAY_MAX_S);
	else if (c == 'n')
		l->options.frames = (unsigned int)n;
	else
		l->options.delay_ms = (unsigned int)n * 1000;
	return -1;
}

/* Those that say nothing about what the command prints. */
static int take_common(struct line *l, int c, char **argv)
{
	switch (c) {
	case 'c':
		l->options.config_path = optarg;
		return -1;
	case OPTION_PIN:
		l->options.pin_dir = optarg;
		return optarg[0] == '/' ? -1 : cli_usage("--pin takes an absolute path");
	case 'v':
		log_init("kubelbctl", LOG_LEVEL_DEBUG);
		return -1;
	case 'h':
		l->help = true;
		return -1;
	case 'V':
		return cli_version("kubelbctl");
	default:
		return cli_bad_option(c, argv);
	}
}

static int take_option(struct line *l, int c, char **argv)
{
	switch (c) {
	case 'o':
		return take_format(l, optarg);
	case 'w':
		note(l, WITH_WATCH, "-w");
		l->options.watch = true;
		return -1;
	case 'f':
		note(l, WITH_FOLLOW, "-f");
		l->options.follow = true;
		return -1;
	case OPTION_BRIEF:
		note(l, WITH_BRIEF, "--brief");
		l->options.brief = true;
		return -1;
	case OPTION_BUNDLE:
		note(l, WITH_BUNDLE, "--bundle");
		l->options.bundle = optarg;
		return -1;
	case OPTION_COLOR:
		return take_color(l, optarg);
	case 'b':
	case 'n':
	case 'd':
	case OPTION_SORT:
		return take_top(l, c);
	default:
		return take_common(l, c, argv);
	}
}

static int parse_options(int argc, char **argv, struct line *l)
{
	int c, status = -1;

	*l = (struct line){ .options = { .pin_dir = DATAPATH_PIN_DEFAULT, .delay_ms = 1000 } };
	opterr = 0;
	while (status < 0 &&
	       (c = getopt_long(argc, argv, ":o:wfbn:d:c:vhV", long_options, NULL)) != -1)
		status = take_option(l, c, argv);
	return status;
}

/* How the first option that the command does not accept was written, or NULL. */
static const char *unsupported_option(const struct line *l, const struct ctl_command *c)
{
	unsigned int extra = l->with & ~c->with;

	return extra ? l->last[__builtin_ctz(extra)] : NULL;
}

static int print_help(const char *name)
{
	const struct ctl_command *c = name ? help_find(commands, N_COMMANDS, name) : NULL;

	if (name && !c)
		return help_unknown(commands, N_COMMANDS, name);
	if (c)
		help_print_command(c);
	else
		help_print(commands, N_COMMANDS);
	return CLI_OK;
}

static int ctl_help(const struct ctl_options *o, int argc, char **argv)
{
	(void)o;
	return argc > 1 ? cli_usage("help takes one COMMAND") : print_help(argc ? argv[0] : NULL);
}

static int run(const struct line *l, int argc, char **argv)
{
	const struct ctl_command *c = argc ? help_find(commands, N_COMMANDS, argv[0]) : NULL;
	const char *unsupported = c ? unsupported_option(l, c) : NULL;

	if (!argc)
		return help_missing(commands, N_COMMANDS);
	if (!c)
		return help_unknown(commands, N_COMMANDS, argv[0]);
	if (unsupported)
		return cli_usage("%s does not take %s", argv[0], unsupported);
	return c->run(&l->options, argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
	struct line l;
	struct err e = { "" };
	__s64 offset_ns;
	int status;

	log_init("kubelbctl", LOG_LEVEL_WARN);
	status = parse_options(argc, argv, &l);
	if (status < 0 && l.help)
		status = print_help(optind < argc ? argv[optind] : NULL);
	if (status < 0 && clock_adopt_kernels(&offset_ns, &e))
		status = cli_fail(CLI_FAILED, &e);
	if (status < 0)
		status = run(&l, argc - optind, argv + optind);
	return brief_exit(cli_end(status), argc, argv);
}
