/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the three programs have in common at the command line: exit codes, the one
 * line of an error, --version, and an end that notices a full disk.
 */
#ifndef KUBELB_CLI_H
#define KUBELB_CLI_H

#include "base/err.h"

#ifndef KLB_VERSION
#define KLB_VERSION "dev"
#endif

enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1, /* it could not be done */
	CLI_USAGE = 2, /* the command line or the configuration is wrong */
};

/* Prints `program: text` on stderr; returns status. */
int cli_fail(int status, const struct err *e);

/* Prints what is wrong with the command line and where help is; returns CLI_USAGE. */
int cli_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints `program VERSION` on stdout; returns CLI_OK. */
int cli_version(const char *program);

/*
 * Flushes stdout. Returns status, or CLI_FAILED with a line on stderr when what was
 * printed did not get out (ENOSPC, EPIPE).
 */
int cli_end(int status);

/* A decimal number from min to max. Returns 0 or -EINVAL. */
int cli_number(const char *text, unsigned long min, unsigned long max, unsigned long *ret);

#endif
