/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelbctl's parts: the commands that have a file of their own. */
#ifndef KUBELB_CTL_H
#define KUBELB_CTL_H

#include <stdbool.h>
#include <stddef.h>

#include "datapath.h"
#include "err.h"

struct ctl_options {
	const char *pin_dir;
	bool json, watch, follow;
};

/*
 * SIGINT and SIGTERM, and a reader of stdout who has gone, end what repeats itself.
 * A broken pipe is no signal any more.
 */
void ctl_catch_end(void);
/* Waits for so long, or for the end. Returns false when it has come. */
bool ctl_pause(int ms);
/* Flushes stdout. Returns false when its reader is gone, which is no failure. */
bool ctl_flush(void);

/* -ENOENT with e: there is no such backend, and these are there. */
int ctl_unknown_backend(const struct plan *p, const struct klb_endpoint *endpoint, struct err *e);

/* Return an exit status (cli.h). */
int ctl_connections(const struct ctl_options *o, int argc, char **argv);
int ctl_events(const struct ctl_options *o, int argc, char **argv);
int ctl_kill(const struct ctl_options *o, int argc, char **argv);

#endif
