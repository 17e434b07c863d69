/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints what kubelb-load has done, or would do. */
#ifndef KUBELB_LOAD_REPORT_H
#define KUBELB_LOAD_REPORT_H

#include "load/attach.h"

/*
 * On stdout, with warnings on stderr. from_args: cfg is from -f and -b. verbose: also prints what
 * has changed; a dry run always does.
 */
void report_print(const struct attach_report *rep, const struct config *cfg, const char *pin_dir,
		  bool from_args, bool verbose);

/* What the preflight has found, before the line that says why nothing is attached. */
void report_preflight(const struct preflight *p);
/* On stdout: how many have answered, if any was dialled. */
void report_answers(const struct preflight *p);

/* The command that comes after a first attachment, or its dry run; and after an import. */
void report_next(bool attached);
void report_imported(void);

/* --print-config: on stdout. Returns an exit status. */
int report_config(const struct config *cfg);

/* dataPath: relay: nothing is attached, and the agent listens. */
void report_relay(const struct config *cfg, const char *pin_dir);
/* dataPath: auto, and the kernel refuses to be the data path, as e says. */
void report_refused(const struct err *e);

#endif
