/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the three programs share at the command line: exit codes, the one line of an error,
 * --version, and a last step that notices when the output could not be written.
 */
#ifndef KUBELB_CLI_H
#define KUBELB_CLI_H

#include <stdbool.h>

#include "base/err.h"

#ifndef KLB_VERSION
#define KLB_VERSION "dev"
#endif

/* The commit that this was built from; empty: nobody knows. */
#ifndef KLB_COMMIT
#define KLB_COMMIT ""
#endif

enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1, /* the work could not be done */
	CLI_USAGE = 2, /* the command line or the configuration is wrong */
};

/* Prints `program: text` on stderr. Returns status. */
int cli_fail(int status, const struct err *e);

/*
 * The status for a file that was not taken, from its negative errno: a shortage is not the file's
 * fault.
 */
int cli_file_status(int r);

/* Prints what is wrong with the command line, and that --help explains it. Returns CLI_USAGE. */
int cli_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * After getopt_long returned c, '?' or ':': says that the option is unknown or needs a value.
 * Returns CLI_USAGE.
 */
int cli_bad_option(int c, char *const *argv);

/* The argument of -o. Returns -1, or CLI_USAGE after a message. */
int cli_output_format(const char *text, bool *ret_json);

/* Prints `program VERSION (COMMIT)` on stdout, without the commit if nobody knows it. Returns
 * CLI_OK. */
int cli_version(const char *program);

/*
 * Flushes stdout. Returns status, or CLI_FAILED with a line on stderr when the output could not be
 * written (ENOSPC, EPIPE).
 */
int cli_end(int status);

/* Parses a decimal number from min to max. Returns 0 or -EINVAL. */
int cli_number(const char *text, unsigned long min, unsigned long max, unsigned long *ret);

#endif
