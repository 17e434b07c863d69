/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelbctl: look and operate. Works on the maps alone; needs no agent. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cli.h"
#include "ctl/ctl.h"
#include "net/endpoint.h"
#include "base/log.h"
#include "host/node.h"
#include "ctl/status.h"
#include "balance/backend_status.h"

static void usage(void);

/* --- what repeats itself ------------------------------------------------------------- */

static volatile sig_atomic_t stop;

static void on_signal(int signal_number)
{
	(void)signal_number;
	stop = 1;
}

void ctl_catch_end(void)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* Waits up to ms for it; a signal ends the wait. */
static bool reader_gone(int ms)
{
	struct pollfd out = { .fd = STDOUT_FILENO };

	return poll(&out, 1, ms) > 0;
}

bool ctl_pause(int ms)
{
	return !stop && !reader_gone(ms) && !stop;
}

bool ctl_flush(void)
{
	if (!fflush(stdout) && !ferror(stdout))
		return true;
	if (reader_gone(0)) {
		__fpurge(stdout);
		clearerr(stdout);
	}
	return false;
}

/* --- status -------------------------------------------------------------------------- */

static int print_once(const struct ctl_options *o, bool compact)
{
	struct datapath_state *state = malloc(sizeof(*state));
	struct datapath_feature features[DATAPATH_FEATURES_MAX];
	struct datapath_link links[16];
	struct status st = {
		.state = state, .links = links, .features = features, .pin_dir = o->pin_dir
	};
	struct datapath *dp = NULL;
	struct err e = { "" };
	int r;

	if (!state)
		return cli_fail(CLI_FAILED, &(struct err){ "out of memory" });
	r = datapath_open(o->pin_dir, &dp, &e);
	if (!r)
		r = datapath_read(dp, state, &e);
	if (!r)
		st.n_links = r = datapath_links(o->pin_dir, links, 16, &e);
	if (r >= 0) {
		st.n_features = datapath_features_in_force(dp, &state->control, features,
							   DATAPATH_FEATURES_MAX);
		ctl_say_state(o->pin_dir, state);
		ctl_say_links(links, r);
	}
	st.now_ns = node_now_ns();
	if (r >= 0 && o->json)
		status_print_json(&st, compact);
	else if (r >= 0 && status_print_text(&st))
		r = err_set(&e, ENOMEM, "out of memory");
	datapath_close(dp);
	free(state);
	return r < 0 ? cli_fail(CLI_FAILED, &e) : CLI_OK;
}

/* Until Ctrl-C, the reader's end, or the end of the data path. */
static int watch(const struct ctl_options *o)
{
	bool terminal = isatty(STDOUT_FILENO);
	int status;

	ctl_catch_end();
	do {
		if (terminal && !o->json)
			fputs("\033[H\033[J", stdout);
		status = print_once(o, true);
		if (!terminal && !o->json && status == CLI_OK)
			putchar('\n');
	} while (status == CLI_OK && ctl_flush() && ctl_pause(1000));
	return status;
}

static int cmd_status(const struct ctl_options *o, int argc, char **argv)
{
	(void)argv;
	if (argc)
		return cli_usage("status takes no argument");
	return o->watch ? watch(o) : print_once(o, false);
}

/* --- the operator's wishes ---------------------------------------------------------- */

/* What a command does to the wish. */
struct wish {
	enum { WISH_DRAIN, WISH_UNDRAIN, WISH_WEIGHT, WISH_WEIGHT_AUTO } kind;
	unsigned int weight;
};

static void change_wish(struct klb_admin *wish, const void *arg)
{
	const struct wish *c = arg;

	switch (c->kind) {
	case WISH_DRAIN:
	case WISH_UNDRAIN:
		wish->drained = c->kind == WISH_DRAIN;
		break;
	case WISH_WEIGHT:
	case WISH_WEIGHT_AUTO:
		wish->weight_set = c->kind == WISH_WEIGHT;
		wish->weight = c->weight;
		break;
	}
}

static void list_backends(const struct plan *p, char *ret, size_t size)
{
	char text[ENDPOINT_TEXT_MAX];
	size_t used = 0;

	ret[0] = '\0';
	for (unsigned int i = 0; i < p->n_backends && used < size; i++)
		used += (size_t)snprintf(ret + used, size - used, "%s%s", i ? ", " : "",
					 endpoint_format(&p->backends[i].value.endpoint, text));
}

int ctl_unknown_backend(const struct plan *p, const struct klb_endpoint *endpoint, struct err *e)
{
	char text[ENDPOINT_TEXT_MAX], known[512];

	list_backends(p, known, sizeof(known));
	return err_set(e, ENOENT, "%s: no such backend; there are: %s",
		       endpoint_format(endpoint, text), known);
}

/* Backends, other than this one, that take new connections without reserve. */
static unsigned int others_ready(const struct datapath_state *s, const struct plan_backend *b)
{
	struct verdict v;
	unsigned int n = 0;

	for (unsigned int i = 0; i < s->applied.n_backends; i++) {
		verdict_of(s, &s->applied.backends[i], node_now_ns(), &v);
		n += s->applied.backends[i].id != b->id && !strcmp(v.state, "ready") && v.weight;
	}
	return n;
}

/* Whether any other backend has a weight, ready or not. */
static bool others_weighted(const struct datapath_state *s, const struct plan_backend *b)
{
	struct verdict v;

	for (unsigned int i = 0; i < s->applied.n_backends; i++) {
		verdict_of(s, &s->applied.backends[i], node_now_ns(), &v);
		if (s->applied.backends[i].id != b->id && v.weight)
			return true;
	}
	return false;
}

static void report_change(const struct wish *c, const struct datapath_state *s,
			  const struct plan_backend *b)
{
	char text[ENDPOINT_TEXT_MAX];
	struct verdict v;

	endpoint_format(&b->value.endpoint, text);
	switch (c->kind) {
	case WISH_DRAIN:
		printf("%s: draining; %llu connections to it stay until they close\n", text,
		       s->stats[b->id].active);
		verdict_of(s, b, node_now_ns(), &v);
		if (!others_ready(s, b) && v.weight)
			printf("note: no other backend is ready; it still gets what no other can "
			       "take\n");
		break;
	case WISH_UNDRAIN:
		printf("%s: takes new connections again\n", text);
		break;
	case WISH_WEIGHT:
		printf("%s: weight %u, until `kubelbctl weight %s auto`\n", text, c->weight, text);
		if (!c->weight && !others_weighted(s, b))
			printf("note: every backend has weight 0 now: connects go through "
			       "untouched, "
			       "to nobody in all likelihood\n");
		break;
	case WISH_WEIGHT_AUTO:
		printf("%s: weight %u, from the configuration, slow start included\n", text,
		       b->value.weight);
		break;
	}
}

static int apply_change(const struct ctl_options *o, const struct klb_endpoint *endpoint,
			const struct wish *c, struct err *e)
{
	struct datapath_state *state = malloc(sizeof(*state));
	struct datapath *dp = NULL;
	const struct plan_backend *b;
	int r = state ? 0 : err_set(e, ENOMEM, "out of memory");

	if (!r)
		r = datapath_open(o->pin_dir, &dp, e);
	if (!r)
		r = datapath_read(dp, state, e);
	if (r)
		goto out;
	ctl_say_state(o->pin_dir, state);
	b = plan_find(&state->applied, endpoint);
	if (!b) {
		r = ctl_unknown_backend(&state->applied, endpoint, e);
		goto out;
	}
	r = datapath_change_admin(dp, b, change_wish, c, e);
	if (r)
		goto out;
	ctl_say_wish(dp, b);
	report_change(c, state, b);
out:
	datapath_close(dp);
	free(state);
	return r;
}

static int change_backend(const struct ctl_options *o, const char *backend, const struct wish *c)
{
	struct klb_endpoint endpoint;
	struct err e = { "" };

	if (endpoint_parse(backend, KLB_PORT_DEFAULT, &endpoint, &e))
		return cli_fail(CLI_USAGE, &e);
	return apply_change(o, &endpoint, c, &e) ? cli_fail(CLI_FAILED, &e) : CLI_OK;
}

static int cmd_drain(const struct ctl_options *o, int argc, char **argv)
{
	const struct wish c = { .kind = WISH_DRAIN };

	return argc == 1 ? change_backend(o, argv[0], &c) : cli_usage("drain takes one BACKEND");
}

static int cmd_undrain(const struct ctl_options *o, int argc, char **argv)
{
	const struct wish c = { .kind = WISH_UNDRAIN };

	return argc == 1 ? change_backend(o, argv[0], &c) : cli_usage("undrain takes one BACKEND");
}

static int cmd_weight(const struct ctl_options *o, int argc, char **argv)
{
	struct wish c = { .kind = WISH_WEIGHT_AUTO };
	unsigned long weight;

	if (argc != 2)
		return cli_usage("weight takes a BACKEND and a number or auto");
	if (strcmp(argv[1], "auto") != 0) {
		if (cli_number(argv[1], 0, KLB_WEIGHT_MAX, &weight))
			return cli_usage("weight '%s': want 0 to %d, or auto", argv[1],
					 KLB_WEIGHT_MAX);
		c.kind = WISH_WEIGHT;
		c.weight = (unsigned int)weight;
	}
	return change_backend(o, argv[0], &c);
}

/* --- main ------------------------------------------------------------------------------ */

/* Which options a command goes with. */
#define WITH_WATCH 1u
#define WITH_FOLLOW 2u
#define WITH_JSON 4u

static const struct command {
	const char *name, *arguments, *help;
	unsigned int with;
	int (*run)(const struct ctl_options *o, int argc, char **argv);
} commands[] = {
	{ "status", "[-w] [-o json]", "frontends, backends and how they fare",
	  WITH_WATCH | WITH_JSON, cmd_status },
	{ "connections", "[-o json]", "the balanced connections, and whose they are", WITH_JSON,
	  ctl_connections },
	{ "events", "[-f] [-o json]", "what has happened to connects", WITH_FOLLOW | WITH_JSON,
	  ctl_events },
	{ "drain", "BACKEND", "no new connections to it while another is ready", 0, cmd_drain },
	{ "undrain", "BACKEND", "take it back in", 0, cmd_undrain },
	{ "weight", "BACKEND N|auto", "set its weight (0..1000), or leave it to the configuration",
	  0, cmd_weight },
	{ "kill", "BACKEND", "end the balanced connections to it", 0, ctl_kill },
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

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

/* Returns -1 to go on, or an exit status. */
static int parse_options(int argc, char **argv, struct ctl_options *o)
{
	int c;

	*o = (struct ctl_options){ .pin_dir = DATAPATH_PIN_DEFAULT };
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":o:wfvhV", long_options, NULL)) != -1) {
		switch (c) {
		case 'o':
			o->json = !strcmp(optarg, "json");
			if (!o->json && strcmp(optarg, "text") != 0)
				return cli_usage("-o %s: want text or json", optarg);
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
			return cli_usage("%s: %s", argv[optind - 1],
					 c == ':' ? "needs a value" : "unknown option");
		}
	}
	if (o->pin_dir[0] != '/')
		return cli_usage("--pin takes an absolute path");
	return -1;
}

/* The first option that this command does not go with, or NULL. */
static const char *stray_option(const struct ctl_options *o, const struct command *c)
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
		const char *stray = stray_option(o, &commands[i]);

		if (strcmp(argv[0], commands[i].name) != 0)
			continue;
		if (stray)
			return cli_usage("%s does not take %s", argv[0], stray);
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
