/* SPDX-License-Identifier: BSD-2-Clause */
/* A log whose lines nobody takes: who writes does not wait, and what is missing is told. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/log_queue.h"
#include "unit.h"

/* More lines than pipe and queue hold. */
#define MANY 20000
/* Nothing in here takes long, and what waits for ever is ended. */
#define ALARM_S PATIENCE_S

/* Runs test with a small pipe as its standard error. Returns the other end. */
static int run(void (*test)(void), pid_t *ret_pid)
{
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	fcntl(ends[1], F_SETPIPE_SZ, 4096);
	*ret_pid = fork();
	if (!*ret_pid) {
		alarm(ALARM_S);
		dup2(ends[1], STDERR_FILENO);
		close(ends[0]);
		close(ends[1]);
		log_init("test", LOG_LEVEL_INFO);
		test();
		_exit(0);
	}
	close(ends[1]);
	return ends[0];
}

static void assert_ended_well(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void write_many(unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		log_event(LOG_LEVEL_INFO, "a line", "n=%u", i);
}

static void check(bool holds)
{
	if (!holds)
		_exit(1);
}

static void with_a_thread(void)
{
	check(!log_queue_start(NULL));
	write_many(MANY);
	check(log_queue_dropped() > MANY / 2);
	log_queue_end(10);
	/* Not now, either. */
	write_many(10);
}

static void nobody_reads(void **state)
{
	pid_t pid;
	int fd = run(with_a_thread, &pid);

	(void)state;
	assert_ended_well(pid);
	close(fd);
}

static void without_a_thread(void)
{
	log_queue_never_wait();
	write_many(MANY);
	check(log_queue_dropped() > MANY / 2);
}

static void nobody_reads_and_there_is_no_thread(void **state)
{
	pid_t pid;
	int fd = run(without_a_thread, &pid);

	(void)state;
	assert_ended_well(pid);
	close(fd);
}

static void ended_in_time(void)
{
	check(!log_queue_start(NULL));
	write_many(300);
	log_queue_end(ALARM_S * 1000);
	check(!log_queue_dropped());
}

/* Reads to the end. Returns how many lines there were; dropped: what the last one says is missing.
 */
static unsigned int read_lines(int fd, unsigned int *ret_dropped)
{
	FILE *f = fdopen(fd, "r");
	char line[LOG_LINE_MAX];
	unsigned int n = 0;

	*ret_dropped = 0;
	while (fgets(line, sizeof(line), f)) {
		const char *at = strstr(line, "nobody took the log's lines");

		assert_non_null(strchr(line, '\n'));
		n += !at && !strncmp(line, "level=info msg=\"a line\" n=", 26);
		if (at && strstr(at, "lines="))
			*ret_dropped += (unsigned int)atoi(strstr(at, "lines=") + 6);
	}
	fclose(f);
	return n;
}

static void a_slow_reader_gets_all_in_their_order(void **state)
{
	unsigned int dropped;
	pid_t pid;
	int fd = run(ended_in_time, &pid);

	(void)state;
	assert_int_equal(read_lines(fd, &dropped), 300);
	assert_int_equal(dropped, 0);
	assert_ended_well(pid);
}

static int taken[2];

static void then_somebody_reads(void)
{
	check(!log_queue_start(NULL));
	write_many(MANY);
	check(write(taken[1], "", 1) == 1);
	log_queue_end(ALARM_S * 1000);
}

static void what_is_missing_is_told(void **state)
{
	unsigned int dropped, n;
	char byte;
	pid_t pid;
	int fd;

	(void)state;
	assert_int_equal(pipe2(taken, O_CLOEXEC), 0);
	fd = run(then_somebody_reads, &pid);
	assert_int_equal(read(taken[0], &byte, 1), 1);
	n = read_lines(fd, &dropped);
	assert_int_equal(n + dropped, MANY);
	assert_true(dropped > MANY / 2);
	assert_ended_well(pid);
	close(taken[0]);
	close(taken[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(nobody_reads),
		LEAVES_NOTHING(nobody_reads_and_there_is_no_thread),
		LEAVES_NOTHING(a_slow_reader_gets_all_in_their_order),
		LEAVES_NOTHING(what_is_missing_is_told),
	};

	return cmocka_run_group_tests_name("log_queue", tests, NULL, NULL);
}
