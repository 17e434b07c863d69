/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelbctl ping: is there an agent that answers? For probes by a command, and for people. */
#include "ctl/ctl.h"

#include <stdio.h>
#include <string.h>

#include "base/cli.h"
#include "config/config.h"
#include "ctl/ask.h"
#include "host/node.h"

int ctl_ping(const struct ctl_options *o, int argc, char **argv)
{
	bool ready = argc == 1 && strcmp(argv[0], "ready") == 0;
	struct ask_answer answer = { 0 };
	struct config *cfg = NULL;
	struct err e = { "" };
	int r;

	if (argc && !ready)
		return cli_usage("ping takes no argument but 'ready'");
	r = config_load(o->config_path ? o->config_path : CONFIG_PATH_DEFAULT, node_has_ipv6(),
			&cfg, &e);
	if (r)
		return cli_fail(cli_file_status(r), &e);
	r = ask_agent(cfg, ready ? "/readyz" : "/healthz", &answer, &e);
	config_free(cfg);
	if (!r && answer.status != 200)
		r = err_set(&e, EIO, "%s: %s", ready ? "not ready" : "not well", answer.line);
	if (r)
		return cli_fail(CLI_FAILED, &e);
	puts(answer.line);
	return CLI_OK;
}
