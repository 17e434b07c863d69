/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelbctl status: reads the state and prints it, with -w again every second. */
#include "ctl/ctl.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/clock.h"
#include "ctl/status.h"

static int print_once(const struct ctl_options *o, struct decides *decides, bool compact)
{
	struct datapath_state *state = malloc(sizeof(*state));
	struct datapath_feature features[DATAPATH_FEATURES_MAX];
	struct datapath_link links[16];
	struct status st = { .state = state,
			     .links = links,
			     .features = features,
			     .decides = decides,
			     .pin_dir = o->pin_dir };
	struct datapath *dp = NULL;
	struct err e = { "" };
	int r;

	if (!state)
		return cli_fail(CLI_FAILED, &(struct err){ "out of memory" });
	r = ctl_open(o->pin_dir, &dp, state, &e);
	if (!r)
		st.n_links = r = datapath_links(o->pin_dir, links, 16, &e);
	if (r >= 0) {
		st.n_features = datapath_features_in_force(dp, &state->control, features,
							   DATAPATH_FEATURES_MAX);
		ctl_log_links(links, r);
		st.now_ns = clock_now_ns();
		decides_take(decides, dp, state, links, st.n_links, st.now_ns);
	}
	if (r >= 0 && (o->json ? status_print_json(&st, compact) : status_print_text(&st)))
		r = err_no_memory(&e);
	datapath_close(dp);
	free(state);
	return r < 0 ? cli_fail(CLI_FAILED, &e) : CLI_OK;
}

/* Until Ctrl-C, the end of stdout's reader, or the end of the data path. */
static int watch(const struct ctl_options *o, struct decides *decides)
{
	bool terminal = isatty(STDOUT_FILENO);
	int status;

	ctl_handle_signals();
	do {
		if (terminal && !o->json)
			fputs("\033[H\033[J", stdout);
		status = print_once(o, decides, true);
		if (!terminal && !o->json && status == CLI_OK)
			putchar('\n');
	} while (status == CLI_OK && ctl_flush() && ctl_pause(1000));
	return status;
}

int ctl_status(const struct ctl_options *o, int argc, char **argv)
{
	struct decides *decides;
	int status;

	(void)argv;
	if (argc)
		return cli_usage("status takes no argument");
	decides = calloc(1, sizeof(*decides));
	if (!decides)
		return cli_fail(CLI_FAILED, &(struct err){ "out of memory" });
	status = o->watch ? watch(o, decides) : print_once(o, decides, false);
	free(decides);
	return status;
}
