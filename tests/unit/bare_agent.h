/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An agent with nothing attached, in the directory of make_dir: it reads files, makes probes
 * and writes its log, and its event loop does not run. No kernel is asked for anything.
 */
#ifndef KUBELB_TESTS_BARE_AGENT_H
#define KUBELB_TESTS_BARE_AGENT_H

#include "agent/internal.h"
#include "unit.h"

extern struct agent bare;

/* Fixtures of a test: nothing is left behind, and the log can be read (captured). */
int bare_open(void **state);
int bare_close(void **state);

#endif
