/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelb-agent: probes the apiservers and updates the maps. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "load/attach.h"
#include "load/report.h"
#include "base/cli.h"
#include "base/clock.h"
#include "datapath/datapath.h"
#include "base/log.h"
#include "base/log_queue.h"
#include "host/node.h"
#include "host/privileges.h"
#include "agent/probe.h"

struct options {
	struct agent_options agent;
	int verbosity;
	bool print_config;
};

static void usage(void)
{
	fputs("Usage: kubelb-agent [-c FILE] [--pin DIR] [--relay] [--print-config]\n"
	      "\n"
	      "Probes the apiservers and keeps the balancer's maps up to date, in the\n"
	      "foreground. Attaches first if nothing is attached.\n"
	      "\n"
	      "  -c, --config FILE  configuration (default " CONFIG_PATH_DEFAULT ")\n"
	      "      --pin DIR      bpffs directory (default " DATAPATH_PIN_DEFAULT ")\n"
	      "      --relay        relay connects, whatever the configuration says: needs no\n"
	      "                     BPF, and no privileges for ports from 1024 on\n"
	      "      --print-config print the configuration that is in effect, with the\n"
	      "                     defaults, and exit\n"
	      "  -v, --verbose      log each probe\n"
	      "  -h, --help         this text\n"
	      "  -V, --version      version\n"
	      "\n"
	      "SIGHUP reloads the configuration. SIGTERM ends the agent; the data path stays\n"
	      "attached and goes on without it.\n"
	      "\n"
	      "Exit status: 0 ended by a signal, 1 it could not run, 2 wrong command line or\n"
	      "configuration.\n",
	      stdout);
}

static const struct option long_options[] = {
	{ "config", required_argument, NULL, 'c' }, { "pin", required_argument, NULL, 'p' },
	{ "relay", no_argument, NULL, 'r' },	    { "print-config", no_argument, NULL, 'P' },
	{ "verbose", no_argument, NULL, 'v' },	    { "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },	    { NULL, 0, NULL, 0 },
};

/* Returns -1 to continue, or an exit status. */
static int parse_options(int argc, char **argv, struct options *o)
{
	int c;

	*o = (struct options){ .agent = { .config_path = CONFIG_PATH_DEFAULT,
					  .pin_dir = DATAPATH_PIN_DEFAULT } };
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":c:vhV", long_options, NULL)) != -1) {
		switch (c) {
		case 'c':
			o->agent.config_path = optarg;
			break;
		case 'p':
			o->agent.pin_dir = optarg;
			break;
		case 'r':
			o->agent.relay = true;
			break;
		case 'P':
			o->print_config = true;
			break;
		case 'v':
			o->verbosity++;
			break;
		case 'h':
			usage();
			return CLI_OK;
		case 'V':
			return cli_version("kubelb-agent");
		default:
			return cli_bad_option(c, argv);
		}
	}
	if (optind < argc)
		return cli_usage("unexpected argument '%s'", argv[optind]);
	if (o->agent.pin_dir[0] != '/')
		return cli_usage("--pin takes an absolute path");
	return -1;
}

/* Of the child, for the agent: why the kernel refuses; "": it does not. */
struct refusal {
	char text[ERR_TEXT_MAX];
};

/* Runs in the child: the exit status is the result, and the line goes to stderr. */
static int attach_here(const struct options *o, const struct config *cfg, struct refusal *refusal)
{
	const struct datapath_load_options options = { .pin_dir = o->agent.pin_dir };
	struct attach_report *report = calloc(1, sizeof(*report));
	struct err e = { "out of memory" };
	int r = report ? attach_run(cfg, &options, PREFLIGHT_BOOT, report, &e) : -ENOMEM;

	if (r && report && report->refused && cfg->data_path == CONFIG_DATA_PATH_AUTO) {
		snprintf(refusal->text, sizeof(refusal->text), "%s", e.text);
		return CLI_OK;
	}
	if (r && report)
		report_preflight(&report->preflight);
	if (r)
		return cli_fail(report && report->misconfigured ? CLI_USAGE : CLI_FAILED, &e);
	log_event(LOG_LEVEL_INFO, "attached", "cgroup=%s pin=%s", log_quoted(report->cgroup),
		  log_quoted(o->agent.pin_dir));
	if (report->moved[0])
		log_event(LOG_LEVEL_WARN, report->moved, "pin=%s", log_quoted(o->agent.pin_dir));
	free(report);
	return CLI_OK;
}

/*
 * Attaches in a child process: to load programs, libbpf parses all type information of the kernel,
 * tens of megabytes that the agent would keep.
 */
static int attach_in_child(const struct options *o, const struct config *cfg,
			   struct refusal *refusal)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid)
		_exit(attach_here(o, cfg, refusal));
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		log_line("cannot attach: %s", err_reason(errno));
	else if (WIFEXITED(status))
		return WEXITSTATUS(status);
	else
		/* SIGKILL usually comes from the kernel, when memory is short. */
		log_line("cannot attach: ended by signal %d (SIG%s); run kubelb-load first, or "
			 "allow it more memory: attaching takes 16 MiB",
			 WTERMSIG(status), sigabbrev_np(WTERMSIG(status)));
	return CLI_FAILED;
}

/* With dataPath: auto, a kernel that refuses is no failure: o->agent.refused says why it does. */
static int attach_first(struct options *o, const struct config *cfg)
{
	struct refusal *refusal =
		/* -1 is what belongs there (mmap(2)). */
		/* cppcheck-suppress invalidFunctionArg */
		mmap(NULL, sizeof(*refusal), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	int status;

	if (refusal == MAP_FAILED)
		return cli_fail(CLI_FAILED, &(struct err){ "out of memory" });
	status = attach_in_child(o, cfg, refusal);
	/* It stays mapped: the agent shows it. */
	if (refusal->text[0])
		o->agent.refused = refusal->text;
	return status;
}

/* Whether an attachment of this version exists, or it cannot be told: the loop tries again. */
static bool is_attached(const struct options *o)
{
	struct datapath *dp = NULL;
	struct err e = { "" };
	int r = datapath_open(o->agent.pin_dir, DATAPATH_WAIT_MS, &dp, &e);

	datapath_close(dp);
	return !r || err_is_shortage(-r);
}

/* At the end, for the lines that nobody has taken yet. */
#define LOG_END_MS 500

/* Attaching needs more privileges than running. */
static int run_reduced(struct options *o, struct config *cfg)
{
	struct privileges_need need;
	struct err e = { "" };
	int r = attacher_start(o->agent.config_path, o->agent.pin_dir, cfg, &o->agent.attacher, &e);

	agent_needs(cfg, &need);
	need.relay |= o->agent.relay;
	if (!r)
		r = privileges_reduce(&need, &e);
	/* Not before: a thread keeps the privileges that it begins with. */
	if (!r && log_queue_start(&e))
		log_event(LOG_LEVEL_WARN, "lines of the log may be dropped", "error=%s",
			  log_quoted(e.text));
	if (r)
		config_free(cfg);
	else
		r = agent_run(&o->agent, cfg, &e);
	log_queue_end(LOG_END_MS);
	attacher_free(o->agent.attacher);
	return r ? cli_fail(CLI_FAILED, &e) : CLI_OK;
}

/* A configuration that the agent cannot run with counts as invalid. */
static int read_config(const struct options *o, struct config **ret, struct err *e)
{
	struct probe_tls *tls = NULL;
	int r = config_load(o->agent.config_path, node_has_ipv6(), ret, e);

	if (r)
		return r;
	if (o->agent.relay)
		(*ret)->data_path = CONFIG_DATA_PATH_RELAY;
	r = probe_tls_new(&(*ret)->probe, &tls, e);
	probe_tls_free(tls);
	if (r) {
		config_free(*ret);
		err_set(e, EINVAL, "%s: %s", o->agent.config_path, e->text);
	}
	return r;
}

/* Needs no privileges, and no file that the configuration names. */
static int print_config(const struct options *o)
{
	struct config *cfg = NULL;
	struct err e = { "" };
	int status, r = config_load(o->agent.config_path, node_has_ipv6(), &cfg, &e);

	if (r)
		return cli_fail(cli_file_status(r), &e);
	if (o->agent.relay)
		cfg->data_path = CONFIG_DATA_PATH_RELAY;
	status = report_config(cfg);
	config_free(cfg);
	return status;
}

/* Attaching takes seconds, and the file may have changed meanwhile. */
static void read_again(const struct options *o, struct config **cfg)
{
	struct config *newer = NULL;
	struct err e = { "" };

	/* An invalid file is reported when it is read the next time. */
	if (read_config(o, &newer, &e))
		return;
	config_free(*cfg);
	*cfg = newer;
}

/* The kernel compares the heartbeat with its own clock. */
static int adopt_clock(struct err *e)
{
	__s64 offset_ns;
	int r = clock_adopt_kernels(&offset_ns, e);

	if (!r && offset_ns)
		log_event(LOG_LEVEL_WARN,
			  "this process is in a time namespace, and goes by the kernel's own clock",
			  "monotonic_offset=%llds", (long long)(offset_ns / (__s64)NS_PER_S));
	return r;
}

static int run(struct options *o)
{
	struct config *cfg = NULL;
	struct err e = { "" };
	int r, status = CLI_OK;

	if (adopt_clock(&e) || privileges_begin(&e))
		return cli_fail(CLI_FAILED, &e);
	/* Before anything is attached. */
	r = read_config(o, &cfg, &e);
	if (r)
		return cli_fail(cli_file_status(r), &e);
	if (cfg->data_path != CONFIG_DATA_PATH_RELAY && !is_attached(o)) {
		status = attach_first(o, cfg);
		if (status == CLI_OK)
			read_again(o, &cfg);
	}
	if (status != CLI_OK) {
		config_free(cfg);
		return status;
	}
	return run_reduced(o, cfg);
}

int main(int argc, char **argv)
{
	struct options o;
	int status;

	signal(SIGPIPE, SIG_IGN);
	log_init("kubelb-agent", LOG_LEVEL_INFO);
	log_queue_never_wait();
	status = parse_options(argc, argv, &o);
	if (status < 0) {
		log_init("kubelb-agent", o.verbosity ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
		status = o.print_config ? print_config(&o) : run(&o);
	}
	return cli_end(status);
}
