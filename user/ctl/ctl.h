/* SPDX-License-Identifier: BSD-2-Clause */
/* Shared by the files of kubelbctl: the commands, and what they have in common. */
#ifndef KUBELB_CTL_H
#define KUBELB_CTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "datapath/datapath.h"
#include "base/err.h"
#include "ctl/ask.h"

/* Of -d. */
#define CTL_DELAY_MAX_S 3600

struct ctl_options {
	const char *pin_dir;
	const char *config_path;
	const char *bundle; /* file for doctor to write; NULL: none */
	bool json, watch, follow;
	bool wide, yaml; /* -o; json: as well */
	bool brief, batch;
	enum { CTL_COLOR_AUTO, CTL_COLOR_ALWAYS, CTL_COLOR_NEVER } color;
	const char *sort; /* NULL: by what top sorts unless told otherwise */
	unsigned int frames; /* 0: until it is ended */
	unsigned int delay_ms;
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
/* The same, with another wait for an upgrade that is half-way. */
int ctl_open_within(const char *pin_dir, unsigned int wait_ms, struct datapath **ret,
		    struct datapath_state *ret_state, struct err *e);

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

/*
 * Where the agent is the data path, and not the kernel, it is asked. These return 0, or a negative
 * errno with e when the agent refuses, or 1 when it is not so, and what the caller has found out
 * about the maps counts.
 *
 * ctl_relayed_ask: takes the whole answer, whose text is to be freed. ctl_relayed_page: prints a
 * page for root alone ("connections"), in the format of o. ctl_relayed_order: has it do something
 * to a backend ("drain"), and prints what it says.
 */
int ctl_relayed_ask(const struct ctl_options *o, enum ask_how how, const char *path,
		    struct ask_body *ret, struct err *e);
int ctl_relayed_page(const struct ctl_options *o, const char *name, FILE *to, struct err *e);
int ctl_relayed_order(const struct ctl_options *o, const struct klb_endpoint *backend,
		      const char *what, FILE *to, struct err *e);

struct admin_change;

/* What drain, undrain and weight do; prints the result. Returns 0, or a negative errno with e. */
int ctl_change_backend(const struct ctl_options *o, const struct klb_endpoint *backend,
		       const struct admin_change *c, FILE *to, struct err *e);

/*
 * The same of the events. attached: something was attached while they were followed, so it is the
 * maps that are to be followed from now on; returns -1 then.
 */
int ctl_relayed_events(const struct ctl_options *o, bool *ret_attached);

/* Return an exit status (cli.h). */
int ctl_status(const struct ctl_options *o, int argc, char **argv);
int ctl_top(const struct ctl_options *o, int argc, char **argv);
int ctl_connections(const struct ctl_options *o, int argc, char **argv);
int ctl_events(const struct ctl_options *o, int argc, char **argv);
int ctl_doctor(const struct ctl_options *o, int argc, char **argv);
int ctl_ping(const struct ctl_options *o, int argc, char **argv);
int ctl_kill(const struct ctl_options *o, int argc, char **argv);
int ctl_drain(const struct ctl_options *o, int argc, char **argv);
int ctl_undrain(const struct ctl_options *o, int argc, char **argv);
int ctl_weight(const struct ctl_options *o, int argc, char **argv);

#endif
