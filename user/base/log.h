/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The programs' log on stderr: one line in logfmt for each event. When stderr is the journal, each
 * line starts with journald's <N> priority (sd-daemon(3), JOURNAL_STREAM).
 */
#ifndef KUBELB_LOG_H
#define KUBELB_LOG_H

#include <stdbool.h>

#include "base/err.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/*
 * program: the prefix of log_line; it is not copied. level: the most detailed level that is
 * printed.
 */
void log_init(const char *program, enum log_level level);
/* Whether a line of this level is printed. Saves the work of making one. */
bool log_enabled(enum log_level level);

/*
 * Prints `level=… msg="…" key=value …`. keys is a printf format of key=value pairs, or "" for none.
 * A value that comes from outside must go through log_quoted first.
 */
void log_event(enum log_level level, const char *msg, const char *keys, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * Copies text into buf as a logfmt value, quoted and escaped. What does not fit is cut off. Returns
 * buf.
 */
const char *log_quote(char *buf, unsigned long size, const char *text);

/* The same with a buffer of its own, which lives as long as the enclosing block. */
#define LOG_QUOTED_MAX 1024
#define log_quoted(text) log_quote((char[LOG_QUOTED_MAX]){ 0 }, LOG_QUOTED_MAX, (text))

/*
 * For work that is retried: logs text once for as long as it fails for the same reason, which is
 * e's text. last: the reason that was logged last; the caller keeps it. An empty e clears it, so
 * that the next failure is logged again.
 */
void log_failure(char last[ERR_TEXT_MAX], enum log_level level, const char *text,
		 const struct err *e);

/* Prints `program: text` for a person at a terminal: the one line of a failure. */
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
