/* SPDX-License-Identifier: BSD-2-Clause */
/* Shared by the files of kubelbctl: the commands, and what they have in common. */
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
 * From now on SIGINT, SIGTERM and the end of stdout's reader end a repeating command. A broken pipe
 * does not raise SIGPIPE any more.
 */
void ctl_handle_signals(void);
/* Waits for this many milliseconds, or for the end. Returns false at the end. */
bool ctl_pause(int ms);
/* Flushes stdout. Returns false when its reader is gone, which is no failure. */
bool ctl_flush(void);

/* Opens the data path and reads it; *ret is to be closed also on failure. Begin with *ret NULL. */
int ctl_open(const char *pin_dir, struct datapath **ret, struct datapath_state *ret_state,
	     struct err *e);

/* The backend with this address, as status shows it; NULL when there is none. */
const struct plan_backend *ctl_find_backend(const struct datapath_state *s,
					    const struct klb_endpoint *endpoint);

/* -ENOENT with e: the backend is not known, and the line names those that are. */
int ctl_unknown_backend(const struct plan *p, const struct klb_endpoint *endpoint, struct err *e);

/* With -v, log to stderr in logfmt: what was read, */
void ctl_log_state(const char *pin_dir, const struct datapath_state *s);
void ctl_log_links(const struct datapath_link *links, int n);
void ctl_log_list(unsigned int records, unsigned int open);
/* the admin state of b as it is in the map now, */
void ctl_log_admin(const struct datapath *dp, const struct plan_backend *b);
/* and a connection that was ended, or that (gone) had ended by itself before. */
void ctl_log_end(const struct datapath_ending *x);

/* Return an exit status (cli.h). */
int ctl_status(const struct ctl_options *o, int argc, char **argv);
int ctl_connections(const struct ctl_options *o, int argc, char **argv);
int ctl_events(const struct ctl_options *o, int argc, char **argv);
int ctl_kill(const struct ctl_options *o, int argc, char **argv);
int ctl_drain(const struct ctl_options *o, int argc, char **argv);
int ctl_undrain(const struct ctl_options *o, int argc, char **argv);
int ctl_weight(const struct ctl_options *o, int argc, char **argv);

#endif
