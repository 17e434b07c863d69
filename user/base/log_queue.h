/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A log that never waits, for a process that must go on when nobody takes its lines: a pipe that is
 * full, a terminal that is held, a file on a disk that hangs. A thread writes the lines, and what
 * does not fit into its queue is dropped and counted.
 *
 * Nothing less keeps the promise. O_NONBLOCK belongs to the open file, which stderr shares with
 * other processes. poll(2) promises nothing when others write to the same pipe, and nothing at all
 * about a file.
 */
#ifndef KUBELB_LOG_QUEUE_H
#define KUBELB_LOG_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* A line with its line feed; what does not fit is cut off. */
#define LOG_LINE_MAX 4096

/*
 * From now on a line for which stderr has no room is dropped. That is the best without the thread,
 * which takes the privileges of its start with it.
 */
void log_queue_never_wait(void);
/* Starts the thread. Returns 0 or a negative errno with e; lines are written as before then. */
int log_queue_start(struct err *e);
/*
 * Lets the thread write what is queued, for wait_ms at the most. Afterwards it is as after
 * log_queue_never_wait.
 */
void log_queue_end(unsigned int wait_ms);

/* How many lines were dropped since the start of the process. */
unsigned long long log_queue_dropped(void);

/* Makes the line about n dropped ones, in ret. Returns its length; 0: no room. */
typedef size_t (*log_queue_dropped_fn)(char *ret, size_t size, unsigned long long n);

/*
 * For log.c: writes one line, which ends with a line feed, or drops it. Once lines can be written
 * again, one from format_dropped tells of those that were dropped.
 */
void log_queue_write(const char *line, size_t length, log_queue_dropped_fn format_dropped);

#endif
