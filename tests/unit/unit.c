/* SPDX-License-Identifier: BSD-2-Clause */
#include "unit.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>
#include <openssl/err.h>

#include "net/endpoint.h"

static char made[64];

/* KUBELB_TEST in the environment: the only tests that run, a name with * and ?. In every test
 * program, by the linker's word (Makefile). */
void unit_filter(void);

__attribute__((constructor)) void unit_filter(void)
{
	const char *pattern = getenv("KUBELB_TEST");

	if (pattern)
		cmocka_set_test_filter(pattern);
}

/* --- texts --------------------------------------------------------------------------- */

struct klb_endpoint endpoint(const char *text)
{
	struct klb_endpoint ep;
	struct err e;

	if (endpoint_parse(text, 6443, &ep, &e))
		fail_msg("%s", e.text);
	return ep;
}

const char *list_text(const struct klb_endpoint *list, unsigned int n)
{
	static char text[KLB_MAX_BACKENDS * ENDPOINT_TEXT_MAX];
	char one[ENDPOINT_TEXT_MAX];
	size_t length = 0;
	unsigned int i;

	text[0] = '\0';
	for (i = 0; i < n; i++)
		length += (size_t)snprintf(text + length, sizeof(text) - length, "%s%s",
					   i ? " " : "", endpoint_format(&list[i], one));
	return text;
}

void assert_says(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("'%s' does not say '%s'", text, part);
	assert_null(strpbrk(text, "\n\r"));
}

char *repeat(const char *head, const char *piece, size_t n, const char *tail)
{
	size_t length = strlen(piece), i;
	char *text = malloc(strlen(head) + n * length + strlen(tail) + 1), *at = text;

	assert_non_null(text);
	at = stpcpy(at, head);
	for (i = 0; i < n; i++)
		at = stpcpy(at, piece);
	strcpy(at, tail);
	return text;
}

/* --- files --------------------------------------------------------------------------- */

int make_dir(void **state)
{
	(void)state;
	snprintf(made, sizeof(made), "/tmp/kubelb-unit.XXXXXX");
	assert_non_null(mkdtemp(made));
	return 0;
}

int remove_made_dir(void **state)
{
	(void)state;
	remove_dir(made);
	return 0;
}

const char *in_dir(char *buf, const char *name)
{
	snprintf(buf, PATH_SIZE, "%s/%s", made, name);
	return buf;
}

void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

char *read_file(const char *path)
{
	static char text[65536];
	FILE *f = fopen(path, "r");

	assert_non_null(f);
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	fclose(f);
	return text;
}

void remove_dir(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	char name[512];

	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		if (unlink(name) < 0)
			remove_dir(name);
	}
	closedir(dir);
	rmdir(path);
}

/* --- the log -------------------------------------------------------------------------- */

static struct {
	int real;
	FILE *log;
} capture;

int capture_stderr(void **state)
{
	(void)state;
	capture.real = dup(STDERR_FILENO);
	capture.log = tmpfile();
	assert_non_null(capture.log);
	assert_int_equal(dup2(fileno(capture.log), STDERR_FILENO), STDERR_FILENO);
	return 0;
}

int release_stderr(void **state)
{
	(void)state;
	assert_int_equal(dup2(capture.real, STDERR_FILENO), STDERR_FILENO);
	close(capture.real);
	fclose(capture.log);
	return 0;
}

const char *captured(void)
{
	static char text[65536];
	ssize_t n = pread(fileno(capture.log), text, sizeof(text) - 1, 0);

	assert_true(n >= 0);
	text[n] = '\0';
	return text;
}

/* --- events -------------------------------------------------------------------------- */

static void run_out(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	*(bool *)arg = true;
}

bool loop_until(struct event_base *base, const unsigned int *counter, unsigned int n)
{
	const struct timeval patience = { .tv_sec = PATIENCE_S };
	bool out = false;
	struct event *timer = evtimer_new(base, run_out, &out);

	event_add(timer, &patience);
	while (*counter < n && !out)
		assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
	event_free(timer);
	return !out;
}

void signal_event(int fd)
{
	uint64_t one = 1;

	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
}

int bind_loopback(bool ipv6, struct klb_endpoint *at)
{
	struct sockaddr_storage ss;
	socklen_t length = sizeof(ss);
	int fd;

	*at = endpoint(ipv6 ? "[::1]:1" : "127.0.0.1:1");
	at->port = 0;
	length = endpoint_to_sockaddr(at, &ss);
	fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&ss, length) != 0) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	assert_int_equal(getsockname(fd, (struct sockaddr *)&ss, &length), 0);
	assert_int_equal(endpoint_from_sockaddr((struct sockaddr *)&ss, at), 0);
	return fd;
}

/* --- what stays ---------------------------------------------------------------------- */

static unsigned int open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

int count_files(void **state)
{
	*state = (void *)(uintptr_t)open_files();
	return 0;
}

int check_leftovers(void **state)
{
	const struct timespec moment = { .tv_nsec = 1000000 };
	unsigned int i;

	/* A name that is still being looked up keeps its own until it is through. */
	for (i = 0; i < PATIENCE_S * 1000 && open_files() != (unsigned int)(uintptr_t)*state; i++)
		nanosleep(&moment, NULL);
	assert_int_equal(open_files(), (unsigned int)(uintptr_t)*state);
	assert_int_equal(ERR_peek_error(), 0);
	return 0;
}
