/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelbctl's parts: the commands that have a file of their own. */
#ifndef KUBELB_CTL_H
#define KUBELB_CTL_H

#include <stdbool.h>
#include <stddef.h>

#include "datapath/datapath.h"
#include "base/err.h"

struct ctl_options {
	const char *pin_dir;
	bool json, watch, follow;
};

/*
 * SIGINT and SIGTERM, and a reader of stdout who has gone, end what repeats itself.
 * A broken pipe is no signal any more.
 */
void ctl_handle_signals(void);
/* Waits for so long, or for the end. Returns false when it has come. */
bool ctl_pause(int ms);
/* Flushes stdout. Returns false when its reader is gone, which is no failure. */
bool ctl_flush(void);

/* -ENOENT with e: there is no such backend, and these are there. */
int ctl_unknown_backend(const struct plan *p, const struct klb_endpoint *endpoint, struct err *e);

/* With -v, in logfmt on stderr, what was read, */
void ctl_log_state(const char *pin_dir, const struct datapath_state *s);
void ctl_log_links(const struct datapath_link *links, int n);
void ctl_log_list(unsigned int records, unsigned int open);
/* the admin about b as it is in the map now, */
void ctl_log_admin(const struct datapath *dp, const struct plan_backend *b);
/* and a connection that was ended, or (gone) had ended before it could be. */
void ctl_log_end(const struct klb_connection *c, bool gone);

/* Return an exit status (cli.h). */
int ctl_connections(const struct ctl_options *o, int argc, char **argv);
int ctl_events(const struct ctl_options *o, int argc, char **argv);
int ctl_kill(const struct ctl_options *o, int argc, char **argv);
int ctl_drain(const struct ctl_options *o, int argc, char **argv);
int ctl_undrain(const struct ctl_options *o, int argc, char **argv);
int ctl_weight(const struct ctl_options *o, int argc, char **argv);

#endif
