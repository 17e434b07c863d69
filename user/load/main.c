/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelb-load: attaches the data path, or detaches it, and exits. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "load/attach.h"
#include "load/check.h"
#include "load/detach.h"
#include "load/report.h"
#include "base/cli.h"
#include "base/clock.h"
#include "config/config.h"
#include "datapath/datapath.h"
#include "base/file.h"
#include "base/log.h"
#include "base/path.h"
#include "import/import.h"
#include "host/node.h"
#include "host/privileges.h"

/* FILE of --from-... when it means standard input. */
#define STDIN_PATH "-"

/* More -f or -b than any valid configuration has. config_from_args refuses the rest. */
#define ARGS_MAX 256

enum action { ACTION_ATTACH, ACTION_DETACH, ACTION_CHECK, ACTION_IMPORT, ACTION_PRINT };

struct options {
	enum action action;
	bool dry_run, json, this_netns, boot, force;
	int verbosity;
	const char *config, *pin_dir, *cgroup;
	enum import_kind from;
	const char *from_file;
	const char *frontends[ARGS_MAX], *backends[ARGS_MAX];
	size_t n_frontends, n_backends;
};

static void usage(void)
{
	fputs("Usage: kubelb-load [-n] [--boot | --force] [-c FILE]\n"
	      "       kubelb-load [-n] [--boot | --force] [-f ADDR:PORT]... [-b "
	      "ADDR[:PORT][,weight=N]]...\n"
	      "       kubelb-load --detach | --check | --print-config [-c FILE]\n"
	      "       kubelb-load --from-nginx FILE | --from-haproxy FILE | --from-kubeconfig "
	      "FILE\n"
	      "\n"
	      "Attaches the balancer, or brings what is attached in line with the configuration.\n"
	      "Programs are replaced in place; a failed run leaves what was there untouched.\n"
	      "\n"
	      "  -c, --config FILE     configuration (default " CONFIG_PATH_DEFAULT ")\n"
	      "  -f, --frontend ADDR:PORT\n"
	      "                        an address that clients dial\n"
	      "                        (default 127.0.0.1:6443 and [::1]:6443)\n"
	      "  -b, --backend ADDR[:PORT][,weight=N]\n"
	      "                        an apiserver (default port 6443)\n"
	      "      --cgroup DIR      cgroup v2 directory to attach to (default: the root)\n"
	      "      --pin DIR         bpffs directory (default " DATAPATH_PIN_DEFAULT ")\n"
	      "      --this-netns      also if another network namespace is balanced now\n"
	      "  -n, --dry-run         say what would change; change nothing\n"
	      "      --boot            attach a first time though no backend answers, unless\n"
	      "                        somebody serves a frontend now: for units\n"
	      "      --force           attach a first time without a look at the backends\n"
	      "      --print-config    print the configuration in effect, with the defaults\n"
	      "      --detach          remove every program, map and pin\n"
	      "      --check           list the kernel features that are needed\n"
	      "      --from-nginx FILE, --from-haproxy FILE, --from-kubeconfig FILE\n"
	      "                        print the configuration that does what this local proxy\n"
	      "                        does; change nothing (FILE -: standard input)\n"
	      "  -o, --output FORMAT   text (default) or json, for --check\n"
	      "  -v, --verbose         say more\n"
	      "  -h, --help            this text\n"
	      "  -V, --version         version\n"
	      "\n"
	      "Exit status: 0 done, 1 it could not be done, 2 wrong command line or "
	      "configuration.\n",
	      stdout);
}

enum {
	OPT_CGROUP = 256,
	OPT_PIN,
	OPT_THIS_NETNS,
	OPT_BOOT,
	OPT_FORCE,
	OPT_PRINT_CONFIG,
	OPT_DETACH,
	OPT_CHECK,
	OPT_FROM, /* followed by one for each enum import_kind */
};

static const struct option long_options[] = {
	{ "config", required_argument, NULL, 'c' },
	{ "frontend", required_argument, NULL, 'f' },
	{ "backend", required_argument, NULL, 'b' },
	{ "cgroup", required_argument, NULL, OPT_CGROUP },
	{ "pin", required_argument, NULL, OPT_PIN },
	{ "this-netns", no_argument, NULL, OPT_THIS_NETNS },
	{ "dry-run", no_argument, NULL, 'n' },
	{ "boot", no_argument, NULL, OPT_BOOT },
	{ "force", no_argument, NULL, OPT_FORCE },
	{ "print-config", no_argument, NULL, OPT_PRINT_CONFIG },
	{ "detach", no_argument, NULL, OPT_DETACH },
	{ "check", no_argument, NULL, OPT_CHECK },
	{ "from-nginx", required_argument, NULL, OPT_FROM + IMPORT_NGINX },
	{ "from-haproxy", required_argument, NULL, OPT_FROM + IMPORT_HAPROXY },
	{ "from-kubeconfig", required_argument, NULL, OPT_FROM + IMPORT_KUBECONFIG },
	{ "output", required_argument, NULL, 'o' },
	{ "verbose", no_argument, NULL, 'v' },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ NULL, 0, NULL, 0 },
};

static int add_arg(const char **list, size_t *n, const char *what)
{
	if (*n >= ARGS_MAX)
		return cli_usage("more than %d arguments of %s", ARGS_MAX, what);
	list[(*n)++] = optarg;
	return -1;
}

static int take_action(struct options *o, enum action action)
{
	if (o->action != ACTION_ATTACH && o->action != action)
		return cli_usage("--detach, --check, --print-config and --from-... do not go "
				 "together");
	o->action = action;
	return -1;
}

static int take_source(struct options *o, enum import_kind from)
{
	if (o->from_file)
		return cli_usage("more than one file to take a configuration from");
	o->from = from;
	o->from_file = optarg;
	return take_action(o, ACTION_IMPORT);
}

/* The options that only set something. */
static void take_setting(int c, struct options *o)
{
	switch (c) {
	case 'c':
		o->config = optarg;
		break;
	case OPT_CGROUP:
		o->cgroup = optarg;
		break;
	case OPT_PIN:
		o->pin_dir = optarg;
		break;
	case OPT_THIS_NETNS:
		o->this_netns = true;
		break;
	case OPT_BOOT:
		o->boot = true;
		break;
	case OPT_FORCE:
		o->force = true;
		break;
	case 'n':
		o->dry_run = true;
		break;
	case 'v':
		o->verbosity++;
		break;
	default:
		break;
	}
}

/* Returns -1 to continue, or an exit status. */
static int take_option(int c, struct options *o)
{
	switch (c) {
	case OPT_DETACH:
		return take_action(o, ACTION_DETACH);
	case OPT_CHECK:
		return take_action(o, ACTION_CHECK);
	case OPT_PRINT_CONFIG:
		return take_action(o, ACTION_PRINT);
	case OPT_FROM + IMPORT_NGINX:
	case OPT_FROM + IMPORT_HAPROXY:
	case OPT_FROM + IMPORT_KUBECONFIG:
		return take_source(o, (enum import_kind)(c - OPT_FROM));
	case 'o':
		return cli_output_format(optarg, &o->json);
	case 'f':
		return add_arg(o->frontends, &o->n_frontends, "--frontend");
	case 'b':
		return add_arg(o->backends, &o->n_backends, "--backend");
	case 'h':
		usage();
		return CLI_OK;
	case 'V':
		return cli_version("kubelb-load");
	default:
		take_setting(c, o);
		return -1;
	}
}

/* Returns -1, or an exit status: these options do not go together. */
static int check_options(const struct options *o)
{
	bool configured = o->config || o->n_frontends || o->n_backends;

	if (o->pin_dir[0] != '/' || (o->cgroup && o->cgroup[0] != '/'))
		return cli_usage("--pin and --cgroup take absolute paths");
	if (o->config && (o->n_frontends || o->n_backends))
		return cli_usage("-c and -f/-b do not go together");
	if (o->action != ACTION_ATTACH && o->action != ACTION_PRINT && configured)
		return cli_usage("--detach, --check and --from-... take no configuration");
	if (o->action != ACTION_ATTACH && o->dry_run)
		return cli_usage("--dry-run goes with attaching alone");
	if (o->action != ACTION_ATTACH && o->this_netns)
		return cli_usage("--this-netns goes with attaching alone");
	if (o->action != ACTION_ATTACH && (o->boot || o->force))
		return cli_usage("--boot and --force go with attaching alone");
	if (o->json && o->action != ACTION_CHECK)
		return cli_usage("-o json goes with --check");
	return -1;
}

static int parse_options(int argc, char **argv, struct options *o)
{
	int c, status;

	*o = (struct options){ .pin_dir = DATAPATH_PIN_DEFAULT };
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":c:f:b:no:vhV", long_options, NULL)) != -1) {
		if (c == '?' || c == ':')
			return cli_bad_option(c, argv);
		status = take_option(c, o);
		if (status >= 0)
			return status;
	}
	if (optind < argc)
		return cli_usage("unexpected argument '%s'", argv[optind]);
	return check_options(o);
}

static int read_config(const struct options *o, struct config **ret, struct err *e)
{
	if (o->n_frontends || o->n_backends)
		return config_from_args(o->frontends, o->n_frontends, o->backends, o->n_backends,
					node_has_ipv6(), ret, e);
	return config_load(o->config ? o->config : CONFIG_PATH_DEFAULT, node_has_ipv6(), ret, e);
}

static enum preflight_mode mode_of(const struct options *o)
{
	return o->force ? PREFLIGHT_OFF : o->boot ? PREFLIGHT_BOOT : PREFLIGHT_STRICT;
}

/* Returns an exit status. */
static int attach(const struct options *o, const struct config *cfg, struct err *e)
{
	const struct datapath_load_options options = { .pin_dir = o->pin_dir,
						       .cgroup = o->cgroup,
						       .dry_run = o->dry_run,
						       .this_netns = o->this_netns };
	struct attach_report *rep = calloc(1, sizeof(*rep));
	bool from_args = o->n_frontends || o->n_backends;
	int r, status;

	if (!rep)
		return cli_fail(CLI_FAILED, &(struct err){ "out of memory" });
	r = attach_run(cfg, &options, mode_of(o), rep, e);
	status = r ? CLI_FAILED : CLI_OK;
	if (!r) {
		report_print(rep, cfg, o->pin_dir, from_args, o->verbosity > 0);
		if (!rep->upgrade && !from_args && !o->boot)
			report_next(!o->dry_run);
	} else if (rep->refused && cfg->data_path == CONFIG_DATA_PATH_AUTO) {
		report_refused(e);
		status = CLI_OK;
	} else {
		report_preflight(&rep->preflight);
		if (rep->misconfigured)
			status = CLI_USAGE;
	}
	free(rep);
	return status ? cli_fail(status, e) : status;
}

/* The agent listens, beside nobody else: nothing can be lost. */
static int attach_nothing(const struct options *o, const struct config *cfg, struct err *e)
{
	struct preflight *p = NULL;
	int r = o->force ? 0 : preflight_check_addresses(cfg, e);

	if (r)
		return cli_fail(CLI_USAGE, e);
	report_relay(cfg, o->pin_dir);
	if (!o->dry_run || o->force)
		return CLI_OK;
	p = calloc(1, sizeof(*p));
	if (!p)
		return cli_fail(CLI_FAILED, &(struct err){ "out of memory" });
	for (unsigned int i = 0; i < cfg->n_backends; i++)
		if (cfg->backends[i].weight)
			preflight_add_backend(p, &cfg->backends[i].endpoint);
	r = preflight_dial(cfg, false, p, e);
	if (!r) {
		report_preflight(p);
		report_answers(p);
	}
	free(p);
	return r ? cli_fail(CLI_FAILED, e) : CLI_OK;
}

static int run_attach(const struct options *o)
{
	struct config *cfg = NULL;
	struct err e = { "" };
	int status, r = read_config(o, &cfg, &e);

	if (r)
		return cli_fail(cli_file_status(r), &e);
	status = cfg->data_path == CONFIG_DATA_PATH_RELAY ? attach_nothing(o, cfg, &e)
							  : attach(o, cfg, &e);
	config_free(cfg);
	return status;
}

static int run_print(const struct options *o)
{
	struct config *cfg = NULL;
	struct err e = { "" };
	int status, r = read_config(o, &cfg, &e);

	if (r)
		return cli_fail(cli_file_status(r), &e);
	status = report_config(cfg);
	config_free(cfg);
	return status;
}

/* Refuses what $KUBECONFIG may hold, unless it is one file's name. */
static int check_single(const struct options *o, struct err *e)
{
	if (o->from != IMPORT_KUBECONFIG || !strchr(o->from_file, ':') ||
	    !access(o->from_file, F_OK))
		return 0;
	return err_set(e, EINVAL,
		       "%s: several files, as in KUBECONFIG; name one, or give what kubectl config "
		       "view --flatten --minify prints, on standard input (-)",
		       o->from_file);
}

/* Prints the configuration that replaces the proxy. Changes nothing. */
static int run_import(const struct options *o)
{
	bool from_stdin = !strcmp(o->from_file, STDIN_PATH);
	char option[32], *text = NULL, *made = NULL, *directory = NULL;
	struct err e = { "" };
	size_t length = 0;
	int r;

	/* A kubeconfig has keys. */
	if (privileges_hide_memory(&e))
		return cli_fail(CLI_FAILED, &e);
	snprintf(option, sizeof(option), "%s FILE", import_option(o->from));
	if (!from_stdin)
		directory = path_directory(o->from_file);
	r = check_single(o, &e);
	if (from_stdin)
		r = file_read_stdin(option, CONFIG_BYTES_MAX, &text, &length, &e);
	else if (!r)
		r = file_read_named(o->from_file, option, CONFIG_BYTES_MAX, &text, &length, &e);
	if (!r)
		r = import_convert(o->from, text, length, from_stdin ? FILE_STDIN : o->from_file,
				   directory, &made, &e);
	if (!r)
		fputs(made, stdout);
	/* A terminal has the text above, and nothing is saved; nor is it where writing fails. */
	if (!r && !fflush(stdout) && !isatty(STDOUT_FILENO))
		report_imported();
	free(directory);
	free(made);
	free(text);
	return r ? cli_fail(cli_file_status(r), &e) : CLI_OK;
}

int main(int argc, char **argv)
{
	struct err e = { "" };
	struct options o;
	__s64 offset_ns;
	int status;

	log_init("kubelb-load", LOG_LEVEL_WARN);
	status = parse_options(argc, argv, &o);
	if (status < 0 && clock_adopt_kernels(&offset_ns, &e))
		status = cli_fail(CLI_FAILED, &e);
	if (status < 0)
		status = o.action == ACTION_DETACH   ? detach(o.pin_dir)
			 : o.action == ACTION_CHECK  ? check_kernel(o.pin_dir, o.cgroup, o.json)
			 : o.action == ACTION_IMPORT ? run_import(&o)
			 : o.action == ACTION_PRINT  ? run_print(&o)
						     : run_attach(&o);
	return cli_end(status);
}
