/* SPDX-License-Identifier: BSD-2-Clause */
/* Ends a repeating command: on a signal, or when the reader of stdout is gone. */
#include "ctl/ctl.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <unistd.h>

static volatile sig_atomic_t stop;

static void on_signal(int signal_number)
{
	(void)signal_number;
	stop = 1;
}

void ctl_handle_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* Waits up to ms for the end of the reader. A signal ends the wait. */
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
