/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kubelbctl: shows the state of the data path and changes the operator's settings. It works on the
 * maps and needs no agent.
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/array.h"
#include "base/cli.h"
#include "ctl/ctl.h"
#include "base/log.h"

/* The options that a command accepts. */
#define WITH_WATCH 1u
#define WITH_FOLLOW 2u
#define WITH_JSON 4u

static const struct command {
	const char *name, *arguments, *help;
	unsigned int with;
	int (*run)(const struct ctl_options *o, int argc, char **argv);
} commands[] = {
	{ "status", "[-w] [-o json]", "frontends, backends and how they fare",
	  WITH_WATCH | WITH_JSON, ctl_status },
	{ "connections", "[-o json]", "the balanced connections, and whose they are", WITH_JSON,
	  ctl_connections },
	{ "events", "[-f] [-o json]", "what has happened to connects", WITH_FOLLOW | WITH_JSON,
	  ctl_events },
	{ "drain", "BACKEND", "no new connections to it while another is ready", 0, ctl_drain },
	{ "undrain", "BACKEND", "take it back in", 0, ctl_undrain },
	{ "weight", "BACKEND N|auto", "set its weight (0..1000), or leave it to the configuration",
	  0, ctl_weight },
	{ "kill", "BACKEND", "end the balanced connections to it", 0, ctl_kill },
};

#define N_COMMANDS (ARRAY_SIZE(commands))

static void usage(void)
{
	puts("Usage: kubelbctl [OPTION]... COMMAND [ARGUMENT]...\n\nCommands:");
	for (size_t i = 0; i < N_COMMANDS; i++)
		printf("  %-11s %-15s %s\n", commands[i].name, commands[i].arguments,
		       commands[i].help);
	puts("\nBACKEND is an address as in the configuration; port 6443 unless given.\n"
	     "\n"
	     "  -o, --output FORMAT   text (default) or json\n"
	     "  -w, --watch           status: refresh every second\n"
	     "  -f, --follow          events: go on with those to come\n"
	     "      --pin DIR         bpffs directory (default " DATAPATH_PIN_DEFAULT ")\n"
	     "  -v, --verbose         say on standard error what is read, written and ended\n"
	     "  -h, --help            this text\n"
	     "  -V, --version         version\n"
	     "\n"
	     "Exit status: 0 done, 1 it could not be done, 2 wrong command line.");
}

static const struct option long_options[] = {
	{ "output", required_argument, NULL, 'o' }, { "watch", no_argument, NULL, 'w' },
	{ "follow", no_argument, NULL, 'f' },	    { "pin", required_argument, NULL, 'p' },
	{ "verbose", no_argument, NULL, 'v' },	    { "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },	    { NULL, 0, NULL, 0 },
};

/* Returns -1 to continue, or an exit status. */
static int parse_options(int argc, char **argv, struct ctl_options *o)
{
	int c;

	*o = (struct ctl_options){ .pin_dir = DATAPATH_PIN_DEFAULT };
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":o:wfvhV", long_options, NULL)) != -1) {
		switch (c) {
		case 'o':
			if (cli_output_format(optarg, &o->json) >= 0)
				return CLI_USAGE;
			break;
		case 'w':
			o->watch = true;
			break;
		case 'f':
			o->follow = true;
			break;
		case 'p':
			o->pin_dir = optarg;
			break;
		case 'v':
			log_init("kubelbctl", LOG_LEVEL_DEBUG);
			break;
		case 'h':
			usage();
			return CLI_OK;
		case 'V':
			return cli_version("kubelbctl");
		default:
			return cli_bad_option(c, argv);
		}
	}
	if (o->pin_dir[0] != '/')
		return cli_usage("--pin takes an absolute path");
	return -1;
}

/* The first option that the command does not accept, or NULL. */
static const char *unsupported_option(const struct ctl_options *o, const struct command *c)
{
	if (o->watch && !(c->with & WITH_WATCH))
		return "-w";
	if (o->follow && !(c->with & WITH_FOLLOW))
		return "-f";
	return o->json && !(c->with & WITH_JSON) ? "-o json" : NULL;
}

static int run(const struct ctl_options *o, int argc, char **argv)
{
	if (!argc)
		return cli_usage("which command? (status, connections, events, drain, undrain, "
				 "weight, kill)");
	for (size_t i = 0; i < N_COMMANDS; i++) {
		const char *unsupported = unsupported_option(o, &commands[i]);

		if (strcmp(argv[0], commands[i].name) != 0)
			continue;
		if (unsupported)
			return cli_usage("%s does not take %s", argv[0], unsupported);
		return commands[i].run(o, argc - 1, argv + 1);
	}
	return cli_usage("unknown command '%s'", argv[0]);
}

int main(int argc, char **argv)
{
	struct ctl_options o;
	int status;

	log_init("kubelbctl", LOG_LEVEL_WARN);
	status = parse_options(argc, argv, &o);
	if (status < 0)
		status = run(&o, argc - optind, argv + optind);
	return cli_end(status);
}
