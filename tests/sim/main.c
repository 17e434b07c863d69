/* SPDX-License-Identifier: BSD-2-Clause */
/* simulate: the command line. scripts/simulate.sh has the usual ways to call it. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

struct sim_options options = { .n_nodes = 10000,
			       .n_servers = 3,
			       .watches = 6,
			       .per_second = 0.1,
			       .seed = 1,
			       .policy = "least-conn",
			       .scenario = "hour",
			       .probe = "",
			       .slow_start = true };

static const char usage[] =
	"usage: simulate [--nodes N] [--apiservers N] [--watches N] [--short PER_SECOND]\n"
	"                [--policy P] [--no-slow-start] [--rebalance] [--probe KEYS] [--seed N]\n"
	"                [--scenario hour|probes|brief] [--break first|spread]\n";

enum {
	NODES = 1,
	SERVERS,
	WATCHES,
	SHORT,
	POLICY,
	NO_SLOW,
	REBALANCE,
	PROBE,
	SEED,
	SCENARIO,
	BREAK
};

static const struct option long_options[] = {
	{ "nodes", required_argument, NULL, NODES },
	{ "apiservers", required_argument, NULL, SERVERS },
	{ "watches", required_argument, NULL, WATCHES },
	{ "short", required_argument, NULL, SHORT },
	{ "policy", required_argument, NULL, POLICY },
	{ "no-slow-start", no_argument, NULL, NO_SLOW },
	{ "rebalance", no_argument, NULL, REBALANCE },
	{ "probe", required_argument, NULL, PROBE },
	{ "seed", required_argument, NULL, SEED },
	{ "scenario", required_argument, NULL, SCENARIO },
	{ "break", required_argument, NULL, BREAK },
	{ 0 },
};

static void refuse(const char *what)
{
	fprintf(stderr, "simulate: %s\n%s", what, usage);
	exit(2);
}

static unsigned int number(const char *text, unsigned long least, unsigned long most)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (end == text || *end || n < least || n > most)
		refuse("a number is not in its range");
	return (unsigned int)n;
}

/* What a test breaks. */
static void break_it(const char *what)
{
	if (!strcmp(what, "first"))
		always_first = true;
	else if (!strcmp(what, "spread"))
		sim_stop_spreading();
	else
		refuse("--break takes first or spread");
}

static void take_option(int option)
{
	switch (option) {
	case NODES:
		options.n_nodes = number(optarg, 1, 100000);
		break;
	case SERVERS:
		options.n_servers = number(optarg, 2, SIM_SERVERS - 1);
		break;
	case WATCHES:
		options.watches = number(optarg, 0, SIM_WATCHES);
		break;
	case SHORT:
		options.per_second = atof(optarg);
		break;
	case POLICY:
		options.policy = optarg;
		break;
	case NO_SLOW:
		options.slow_start = false;
		break;
	case REBALANCE:
		options.rebalance = true;
		break;
	case PROBE:
		options.probe = optarg;
		break;
	case SEED:
		options.seed = strtoull(optarg, NULL, 10);
		break;
	case SCENARIO:
		options.scenario = optarg;
		break;
	case BREAK:
		break_it(optarg);
		break;
	default:
		refuse("unknown option");
	}
}

int main(int argc, char **argv)
{
	int option;

	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		take_option(option);
	if (optind < argc)
		refuse("there are no arguments but options");
	log_init("simulate", LOG_LEVEL_ERROR);
	sim_seed(options.seed);
	servers_init();
	if (scenario_run())
		return 2;
	report_write();
	fprintf(stderr, "simulate: %llu events\n", sim_events_called());
	return 0;
}
