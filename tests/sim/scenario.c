/* SPDX-License-Identifier: BSD-2-Clause */
/* What happens in the hour. */
#include <stdio.h>
#include <string.h>

#include "sim.h"

#define N_STEPS 64
#define SAMPLE_S 10
#define BOOT_S 60.0

/* The list as the nodes know it. */
static unsigned int listed[SIM_SERVERS], n_listed;

/* --- the configuration --------------------------------------------------------------------- */

static int configure(struct probe_tls *credentials)
{
	struct config *file;
	struct err e = { "" };
	char text[1024];
	int at = snprintf(text, sizeof(text),
			  "frontends: [127.0.0.1:6443]\npolicy: %s\nslowStart: %s\nrebalance: %s\n"
			  "probe: {%s}\nbackends:\n",
			  options.policy, options.slow_start ? "30s" : "0",
			  options.rebalance ? "true" : "false", options.probe);

	for (unsigned int i = 0; i < n_listed; i++)
		at += snprintf(text + at, sizeof(text) - (size_t)at, "- 10.0.0.%u\n",
			       listed[i] + 1);
	if (config_parse(text, (size_t)at, "the simulation", false, &file, &e)) {
		fprintf(stderr, "simulate: %s\n", e.text);
		return -1;
	}
	nodes_configure(file, credentials);
	return 0;
}

/* --- what can happen --------------------------------------------------------------------- */

static void up(unsigned int i)
{
	report_watch("return", 60, -1, (int)i);
	server_set(&servers[i], SERVER_UP);
}

static void killed(unsigned int i)
{
	report_watch("kill", 60, (int)i, -1);
	server_set(&servers[i], SERVER_DOWN);
}

static void vanishes(unsigned int i)
{
	report_watch("vanish", 60, (int)i, -1);
	server_set(&servers[i], SERVER_GONE);
}

/* SIGTERM: it says that it is not ready, and ends soon. */
static void shuts_down(unsigned int i)
{
	server_set(&servers[i], SERVER_NOT_READY);
}

static void ends(unsigned int i)
{
	report_watch("restart", 60, (int)i, -1);
	server_set(&servers[i], SERVER_DOWN);
}

static void starts(unsigned int i)
{
	server_set(&servers[i], SERVER_NOT_READY);
}

static void serves(unsigned int i)
{
	server_set(&servers[i], SERVER_UP);
}

/* The client certificate of all nodes is another one. */
static void reload(unsigned int i)
{
	(void)i;
	report_watch("reload", 60, -1, -1);
	if (!configure(server_credentials()))
		nodes_change();
}

/* The last of the list gives its place to another one. */
static void replaced(unsigned int i)
{
	report_watch("list", 60, -1, (int)i);
	listed[n_listed - 1] = i;
	if (!configure(nodes[0].agent.tls))
		nodes_change();
}

static void settled(unsigned int i)
{
	(void)i;
	report_watch("steady", 60, -1, -1);
}

/* --- when it does -------------------------------------------------------------------------- */

struct step {
	unsigned int at_s;
	void (*happens)(unsigned int server);
	unsigned int server;
	const char *mark; /* instead: what the numbers of connections are noted for */
};

static struct step steps[N_STEPS];
static unsigned int n_steps;

static void plan(unsigned int at_s, void (*happens)(unsigned int server), unsigned int server)
{
	steps[n_steps++] = (struct step){ .at_s = at_s, .happens = happens, .server = server };
}

static void mark(unsigned int at_s, const char *what)
{
	steps[n_steps++] = (struct step){ .at_s = at_s, .mark = what };
}

/* One after another, a minute each: 5 s of shutting down, 15 s down, 5 s of starting. */
static unsigned int plan_restarts(unsigned int from_s)
{
	for (unsigned int i = 0; i < options.n_servers; i++) {
		plan(from_s, shuts_down, i);
		plan(from_s + 5, ends, i);
		plan(from_s + 20, starts, i);
		plan(from_s + 25, serves, i);
		from_s += 60;
	}
	return from_s - 35;
}

static unsigned int plan_hour(void)
{
	unsigned int end;

	mark(599, "steady");
	plan(600, killed, 0);
	mark(660, "killed");
	plan(900, up, 0);
	mark(1199, "returned");
	plan(1200, vanishes, 1);
	mark(1260, "vanished");
	plan(1500, up, 1);
	end = plan_restarts(1800);
	mark(end, "restarted");
	mark(end + 600, "restarted + 10 min");
	plan(2850, reload, 0);
	plan(3000, replaced, options.n_servers);
	plan(3060, killed, options.n_servers - 1);
	mark(3599, "end");
	return 3600;
}

/* Nothing happens: what probes cost. */
static unsigned int plan_probes(void)
{
	plan(300, settled, 0);
	mark(360, "steady");
	return 360;
}

/* The same as the hour, as short as it can be: for tests. */
static unsigned int plan_brief(void)
{
	mark(119, "steady");
	plan(120, killed, 0);
	mark(150, "killed");
	plan(180, up, 0);
	mark(239, "returned");
	plan(240, vanishes, 1);
	plan(300, up, 1);
	plan(360, reload, 0);
	mark(399, "end");
	return 400;
}

/* Its length in seconds; 0: there is none of this name. */
static unsigned int plan_scenario(void)
{
	if (!strcmp(options.scenario, "hour"))
		return plan_hour();
	if (!strcmp(options.scenario, "probes"))
		return plan_probes();
	if (!strcmp(options.scenario, "brief"))
		return plan_brief();
	fprintf(stderr, "simulate: --scenario takes hour, probes or brief\n");
	return 0;
}

/* --- the hour ------------------------------------------------------------------------------- */

static void run_until(unsigned int second)
{
	static unsigned int sampled;

	for (; sampled <= second; sampled += SAMPLE_S) {
		sim_run_until(sampled * NS_PER_S);
		report_sample();
	}
	sim_run_until(second * NS_PER_S);
}

int scenario_run(void)
{
	unsigned int end = plan_scenario();

	for (; n_listed < options.n_servers; n_listed++)
		listed[n_listed] = n_listed;
	if (!end || configure(server_credentials()))
		return -1;
	nodes_init(options.n_nodes, BOOT_S, options.watches, options.per_second);
	for (unsigned int i = 0; i < n_steps; i++) {
		run_until(steps[i].at_s);
		if (steps[i].mark)
			report_mark(steps[i].mark);
		else
			steps[i].happens(steps[i].server);
	}
	run_until(end);
	return 0;
}
