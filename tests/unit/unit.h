/* SPDX-License-Identifier: BSD-2-Clause */
/* What unit tests share. Whatever fails in here fails the test. */
#ifndef KUBELB_TESTS_UNIT_H
#define KUBELB_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <kubelb/abi.h>

struct event_base;

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* A condition that has not come about by then never will, even under valgrind. */
#define PATIENCE_S 60

/* --- texts --------------------------------------------------------------------------- */

/* From "10.0.0.1:6443"; without a port it is 6443. */
struct klb_endpoint endpoint(const char *text);
/* "10.0.0.1:6443 10.0.0.2:6443", valid until the next call. */
const char *list_text(const struct klb_endpoint *list, unsigned int n);

/* One line, with that part in it. */
void assert_says(const char *text, const char *part);

/* head, then n times piece, then tail; to be freed. */
char *repeat(const char *head, const char *piece, size_t n, const char *tail);

/* --- files --------------------------------------------------------------------------- */

#define PATH_SIZE 128

/* Fixtures of a group: a directory of its own below /tmp, and its end with all that is in it. */
int make_dir(void **state);
int remove_made_dir(void **state);
/* The path of that name there, in buf (PATH_SIZE), which it returns. */
const char *in_dir(char *buf, const char *name);

void write_file(const char *path, const char *text);
/* Up to 64 KiB, valid until the next call. */
char *read_file(const char *path);
/* With all that is in it. */
void remove_dir(const char *path);

/* --- the log -------------------------------------------------------------------------- */

/* Fixtures of a test: in between, what goes to standard error can be read. */
int capture_stderr(void **state);
int release_stderr(void **state);
/* All of it since then, up to 64 KiB, valid until the next call. */
const char *captured(void);

/* --- events -------------------------------------------------------------------------- */

/* Runs the loop until *counter is n or more; false when it does not come to that. */
bool loop_until(struct event_base *base, const unsigned int *counter, unsigned int n);
/* Counts one up on an eventfd. */
void signal_event(int fd);
/* A TCP socket on the loopback's next free port, told in at; -1 when there is no such loopback. */
int bind_loopback(bool ipv6, struct klb_endpoint *at);

/* --- what stays ---------------------------------------------------------------------- */

/* A test after which no descriptor stays open, and no error waits in OpenSSL's queue. */
#define LEAVES_NOTHING(f) cmocka_unit_test_setup_teardown(f, count_files, check_leftovers)
int count_files(void **state);
int check_leftovers(void **state);

#endif
