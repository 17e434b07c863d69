/* SPDX-License-Identifier: BSD-2-Clause */
/* Times, and the names of processes, for people. Pure. */
#ifndef KUBELB_FORMAT_H
#define KUBELB_FORMAT_H

#include <linux/types.h>

#include "base/err.h"

/* What each of these fills, and returns. */
#define FORMAT_TIME_MAX 24

/* How long ago, both CLOCK_MONOTONIC: "12s", "3m", "5h", "2d"; "-" for never (0). */
const char *format_age(__u64 then_ns, __u64 now_ns, char *buf);

/* "0.42ms", "1003ms", and from 10 s on as format_age: "12s", "3m". */
const char *format_duration(__u64 ns, char *buf);

/*
 * A process as "name[pid]". comm: 16 bytes that whoever runs it has chosen, which a
 * terminal must not get to see as they are. "-" for pid 0. buf: FORMAT_PROCESS_MAX.
 */
#define FORMAT_PROCESS_MAX 32
const char *format_process(const char *comm, __u32 pid, char *buf);

/* The name alone: valid UTF-8 in one line. buf: FORMAT_COMM_MAX. */
#define FORMAT_COMM_MAX 17
const char *format_comm(const char *comm, char *buf);

#endif
