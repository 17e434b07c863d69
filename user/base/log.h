/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The programs' voice on stderr: one line per thing that happened, in logfmt,
 * with journald's <N> priority prefix when stderr is the journal
 * (sd-daemon(3), JOURNAL_STREAM).
 */
#ifndef KUBELB_LOG_H
#define KUBELB_LOG_H

#include <stdbool.h>

#include "base/err.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* program: for the prefix of log_line; not copied. level: the most talkative level that
 * is printed. */
void log_init(const char *program, enum log_level level);
/* Whether a line of this level would be printed: spares making one. */
bool log_enabled(enum log_level level);

/*
 * Prints `level=… msg="…" key=value …`. keys is a printf format that already
 * holds key=value pairs, or "" for none; a value from outside goes through
 * log_quote first.
 */
void log_event(enum log_level level, const char *msg, const char *keys, ...)
	__attribute__((format(printf, 3, 4)));

/* Copies text into buf as a logfmt value, quoted and escaped; returns buf. */
const char *log_quote(char *buf, unsigned long size, const char *text);

/*
 * For what is tried again and again: logs text once for as long as it fails for the same
 * reason, e's. last: the reason logged last, the caller's to keep; empties it when e is empty,
 * as what has been mended may fail again.
 */
void log_failure(char last[ERR_TEXT_MAX], enum log_level level, const char *text,
		 const struct err *e);

/* Prints `program: text` for a person at a terminal: the one line of a failure. */
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
