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

#endif
