/* SPDX-License-Identifier: BSD-2-Clause */
/* Formats times and the names of processes for people. Pure. */
#ifndef KUBELB_FORMAT_H
#define KUBELB_FORMAT_H

#include <linux/types.h>

#include "base/err.h"

/* The size of the buffer for a time. Each function returns its buffer. */
#define FORMAT_TIME_MAX 24

/*
 * How long ago then_ns was: "12s", "3m", "5h", "2d"; "-" for never (0). Both are nanoseconds of
 * CLOCK_MONOTONIC.
 */
const char *format_age(__u64 then_ns, __u64 now_ns, char *buf);

/* "0.42ms", "1003ms", and from 10 s on like format_age: "12s", "3m". */
const char *format_duration(__u64 ns, char *buf);

/*
 * A moment of the wall clock (clock_wall_ns) as RFC 3339 has it, in UTC and to the millisecond:
 * "2026-11-22T19:07:08.123Z". buf: FORMAT_WALL_MAX bytes.
 */
#define FORMAT_WALL_MAX 48
const char *format_wall(__u64 wall_ns, char *buf);

/*
 * A process as "name[pid]"; "-" for pid 0. comm: 16 bytes. The process's owner chooses them, so
 * what must not reach a terminal is replaced. buf: FORMAT_PROCESS_MAX bytes.
 */
#define FORMAT_PROCESS_MAX 32
const char *format_process(const char *comm, __u32 pid, char *buf);

/* The name alone, as one line of valid UTF-8. buf: FORMAT_COMM_MAX bytes. */
#define FORMAT_COMM_MAX 17
const char *format_comm(const char *comm, char *buf);

#endif
