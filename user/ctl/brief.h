/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `kubelbctl status --brief`: one line and an exit status for scripts, in the form of a monitoring
 * plugin (monitoring-plugins.org, guidelines). It goes by the document of `status -o json`, so it
 * is the same whoever is the data path.
 */
#ifndef KUBELB_CTL_BRIEF_H
#define KUBELB_CTL_BRIEF_H

#include <stdio.h>

#include <jansson.h>

#include "base/err.h"

/* The exit statuses of a plugin, which are others than those of cli.h. */
enum brief { BRIEF_OK = 0, BRIEF_WARNING = 1, BRIEF_CRITICAL = 2, BRIEF_UNKNOWN = 3 };

/* Prints the line about a document. */
enum brief brief_print(const json_t *document, FILE *to);
/* The same without the numbers and the newline. */
enum brief brief_print_text(const json_t *document, FILE *to);
/* Prints the line when there is none. r: the negative errno of take_json. */
enum brief brief_print_failure(int r, const struct err *e, FILE *to);

/*
 * What ctl_status returns for a brief, so that it is no exit status of cli.h; brief_exit makes the
 * program's exit status of either. A command line with --brief never ends with one of cli.h but 0:
 * a failure is BRIEF_UNKNOWN.
 */
int brief_return(enum brief b);
int brief_exit(int status, int argc, char **argv);

#endif
