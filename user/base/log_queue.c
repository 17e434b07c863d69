/* SPDX-License-Identifier: BSD-2-Clause */
/* The thread that writes the log, and its queue. */
#include "base/log_queue.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/spawn.h"

/* Some hundred lines: what a burst brings while the reader is busy. */
#define QUEUE_BYTES ((size_t)64 * 1024)
/* Room for one line, and for snprintf and write. */
#define STACK_BYTES ((size_t)64 * 1024)

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t filled, emptied;
	bool never_wait, running, ended;
	bool busy; /* the thread is writing what it has taken out */
	size_t first, length; /* of the bytes in use; they go round */
	unsigned long long dropped, told;
	log_queue_dropped_fn format_dropped;
	char bytes[QUEUE_BYTES];
} queue = { .mutex = PTHREAD_MUTEX_INITIALIZER,
	    .filled = PTHREAD_COND_INITIALIZER,
	    .emptied = PTHREAD_COND_INITIALIZER };

/* --- writing --- */

/* Writes all of it, and waits if it has to. Returns false when nobody will ever take it. */
static bool write_all(const char *line, size_t length)
{
	while (length) {
		ssize_t n = write(STDERR_FILENO, line, length);

		if (n > 0) {
			line += n;
			length -= (size_t)n;
		} else if (n < 0 && errno == EAGAIN) {
			/* Somebody who shares the open file has set O_NONBLOCK. */
			poll(&(struct pollfd){ .fd = STDERR_FILENO, .events = POLLOUT }, 1, -1);
		} else if (n < 0 && errno != EINTR) {
			return false;
		}
	}
	return true;
}

static bool has_room(void)
{
	struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };

	return poll(&p, 1, 0) == 1 && p.revents & POLLOUT;
}

/* --- the queue; the caller holds the mutex --- */

static void put(const char *line, size_t length)
{
	size_t at = (queue.first + queue.length) % QUEUE_BYTES;
	size_t whole = length < QUEUE_BYTES - at ? length : QUEUE_BYTES - at;

	if (length > QUEUE_BYTES - queue.length) {
		queue.dropped++;
		return;
	}
	memcpy(queue.bytes + at, line, whole);
	memcpy(queue.bytes, line + whole, length - whole);
	queue.length += length;
	pthread_cond_signal(&queue.filled);
}

/* Takes the first line out, without the mark where the bytes go round. */
static size_t take(char *ret, size_t size)
{
	size_t n = 0;

	while (n < queue.length && n < size) {
		ret[n] = queue.bytes[(queue.first + n) % QUEUE_BYTES];
		if (ret[n++] == '\n')
			break;
	}
	queue.first = (queue.first + n) % QUEUE_BYTES;
	queue.length -= n;
	return n;
}

/* --- the thread --- */

/* What is to be written next; 0: nothing is left to say. */
static size_t next_text(char *ret, size_t size)
{
	unsigned long long n = queue.dropped - queue.told;

	if (queue.length || !n)
		return take(ret, size);
	/* After the lines that were kept: those that came when the queue was full are missing. */
	queue.told = queue.dropped;
	return queue.format_dropped(ret, size, n);
}

static void *thread_main(void *arg)
{
	char text[LOG_LINE_MAX];

	(void)arg;
	pthread_mutex_lock(&queue.mutex);
	for (;;) {
		size_t n = next_text(text, sizeof(text));

		queue.busy = n > 0;
		if (!n) {
			pthread_cond_broadcast(&queue.emptied);
			pthread_cond_wait(&queue.filled, &queue.mutex);
			continue;
		}
		pthread_mutex_unlock(&queue.mutex);
		if (!write_all(text, n))
			n = 0;
		pthread_mutex_lock(&queue.mutex);
		queue.dropped += !n;
	}
	return NULL;
}

void log_queue_never_wait(void)
{
	queue.never_wait = true;
}

int log_queue_start(struct err *e)
{
	pthread_t thread;
	int code = spawn_thread(STACK_BYTES, thread_main, NULL, &thread);

	if (code)
		return err_set(e, code, "cannot start a thread: %s", err_reason(code));
	/* Nobody waits for it. */
	pthread_detach(thread);
	queue.running = queue.never_wait = true;
	return 0;
}

void log_queue_end(unsigned int wait_ms)
{
	struct timespec until;

	if (!queue.running)
		return;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += wait_ms / 1000;
	until.tv_nsec += (long)(wait_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&queue.mutex);
	while ((queue.length || queue.busy) &&
	       !pthread_cond_clockwait(&queue.emptied, &queue.mutex, CLOCK_MONOTONIC, &until))
		;
	queue.ended = queue.length || queue.busy;
	queue.running = false;
	pthread_mutex_unlock(&queue.mutex);
}

unsigned long long log_queue_dropped(void)
{
	unsigned long long n;

	pthread_mutex_lock(&queue.mutex);
	n = queue.dropped;
	pthread_mutex_unlock(&queue.mutex);
	return n;
}

void log_queue_write(const char *line, size_t length, log_queue_dropped_fn format_dropped)
{
	if (!queue.running && !queue.never_wait) {
		write_all(line, length);
		return;
	}
	pthread_mutex_lock(&queue.mutex);
	queue.format_dropped = format_dropped;
	if (queue.running)
		put(line, length);
	else if (queue.ended || !has_room() || !write_all(line, length))
		queue.dropped++;
	pthread_mutex_unlock(&queue.mutex);
}
