/* SPDX-License-Identifier: BSD-2-Clause */
/* Formats times and process names for people. */
#include "base/format.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/array.h"
#include "base/clock.h"

#define COMM_SIZE 16 /* TASK_COMM_LEN, include/linux/sched.h */

static const char *in_seconds(__u64 seconds, char *buf)
{
	static const struct {
		__u64 seconds;
		char unit;
	} units[] = { { 86400, 'd' }, { 3600, 'h' }, { 60, 'm' }, { 1, 's' } };

	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (seconds >= 2 * units[i].seconds || units[i].seconds == 1) {
			snprintf(buf, FORMAT_TIME_MAX, "%llu%c", seconds / units[i].seconds,
				 units[i].unit);
			break;
		}
	}
	return buf;
}

const char *format_age(__u64 then_ns, __u64 now_ns, char *buf)
{
	if (then_ns)
		return in_seconds(now_ns > then_ns ? (now_ns - then_ns) / NS_PER_S : 0, buf);
	snprintf(buf, FORMAT_TIME_MAX, "-");
	return buf;
}

const char *format_duration(__u64 ns, char *buf)
{
	if (ns >= 10 * NS_PER_S)
		return in_seconds(ns / NS_PER_S, buf);
	snprintf(buf, FORMAT_TIME_MAX, "%.*fms", ns < 10000000 ? 2 : 0, (double)ns / 1e6);
	return buf;
}

const char *format_wall(__u64 wall_ns, char *buf)
{
	time_t seconds = (time_t)(wall_ns / NS_PER_S);
	struct tm utc = { 0 };
	size_t n;

	gmtime_r(&seconds, &utc);
	n = strftime(buf, FORMAT_WALL_MAX, "%FT%T", &utc);
	snprintf(buf + n, FORMAT_WALL_MAX - n, ".%03uZ",
		 (unsigned int)(wall_ns % NS_PER_S / NS_PER_MS));
	return buf;
}

const char *format_comm(const char *comm, char *buf)
{
	memcpy(buf, comm, COMM_SIZE);
	buf[COMM_SIZE] = '\0';
	err_make_printable(buf);
	return buf;
}

const char *format_process(const char *comm, __u32 pid, char *buf)
{
	char name[FORMAT_COMM_MAX];

	if (pid)
		snprintf(buf, FORMAT_PROCESS_MAX, "%s[%u]", format_comm(comm, name), pid);
	else
		snprintf(buf, FORMAT_PROCESS_MAX, "-");
	return buf;
}
