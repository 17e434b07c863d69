/* SPDX-License-Identifier: BSD-2-Clause */
/* Sends the agent's state to the service manager, by the protocol of sd_notify(3). */
#include "host/sd_notify.h"

#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/ascii.h"
#include "base/cli.h"
#include "base/clock.h"

#define STATUS_MAX 256

struct notify {
	int fd;
	struct sockaddr_un to;
	socklen_t to_length;
	struct event *watchdog;
	bool ready; /* the manager knows that the agent is ready */
	bool reloading; /* the manager waits for READY=1 */
	char status[STATUS_MAX]; /* the last one that the manager has received */
};

/* The length counts: in an abstract name a trailing NUL would be part of the name. */
static int parse_address(const char *text, struct notify *n, struct err *e)
{
	size_t length = strlen(text);

	if ((text[0] != '/' && text[0] != '@') || length < 2)
		return err_set(e, EINVAL,
			       "NOTIFY_SOCKET=%.128s: neither an absolute path nor @name; the "
			       "service manager is told nothing",
			       text);
	if (length >= sizeof(n->to.sun_path))
		return err_set(e, EINVAL,
			       "NOTIFY_SOCKET=%.128s...: longer than the %zu bytes of a socket's "
			       "name; the service manager is told nothing",
			       text, sizeof(n->to.sun_path) - 1);
	n->to.sun_family = AF_UNIX;
	memcpy(n->to.sun_path, text, length);
	n->to_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
	if (text[0] == '@')
		n->to.sun_path[0] = '\0';
	return 0;
}

/* Never blocks: a manager that does not read must not stop the loop. */
static bool send_message(const struct notify *n, const char *text)
{
	ssize_t sent = sendto(n->fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL,
			      (const struct sockaddr *)&n->to, n->to_length);

	return sent >= 0;
}

static void on_watchdog(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	send_message(arg, "WATCHDOG=1");
}

/* An environment variable; 0 when it is not set. */
static int parse_number(const char *name, unsigned long max, unsigned long *ret, struct err *e)
{
	const char *text = getenv(name);

	*ret = 0;
	if (text && cli_number(text, 1, max, ret))
		return err_set(e, EINVAL, "%s=%.64s: not a number from 1 to %lu; no watchdog", name,
			       text, max);
	return 0;
}

/* Processes inherit WATCHDOG_PID; it applies only to the process that it names. */
static int start_watchdog(struct notify *n, struct event_base *base, struct err *e)
{
	unsigned long us = 0, pid = 0;
	struct timeval half;
	int r = parse_number("WATCHDOG_USEC", LONG_MAX, &us, e);

	if (!r)
		r = parse_number("WATCHDOG_PID", INT_MAX, &pid, e);
	if (r || !us || (pid && pid != (unsigned long)getpid()))
		return r;
	us = us > 1 ? us / 2 : 1;
	half.tv_sec = (time_t)(us / 1000000);
	half.tv_usec = (suseconds_t)(us % 1000000);
	n->watchdog = event_new(base, -1, EV_PERSIST, on_watchdog, n);
	if (!n->watchdog || event_add(n->watchdog, &half))
		return err_no_memory(e);
	return 0;
}

int notify_new(struct event_base *base, struct notify **ret, struct err *e)
{
	const char *address = getenv("NOTIFY_SOCKET");
	struct notify *n;
	int r;

	*ret = NULL;
	if (!address)
		return 0;
	n = calloc(1, sizeof(*n));
	if (!n)
		return err_no_memory(e);
	n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	r = n->fd < 0 ? err_set(e, errno, "cannot make a socket for NOTIFY_SOCKET: %s",
				err_reason(errno))
		      : parse_address(address, n, e);
	if (!r)
		r = start_watchdog(n, base, e);
	if (r)
		notify_free(n);
	else
		*ret = n;
	return r;
}

void notify_free(struct notify *n)
{
	if (!n)
		return;
	if (n->watchdog)
		event_free(n->watchdog);
	if (n->fd >= 0)
		close(n->fd);
	free(n);
}

/* A line feed would start another key. */
static void replace_controls(char *text)
{
	for (; *text; text++)
		if (ascii_is_control((unsigned char)*text))
			*text = ' ';
}

static void send_status(struct notify *n, bool ready, const char *format, va_list args)
{
	bool send_ready = n->reloading || (ready && !n->ready);
	char status[STATUS_MAX], text[STATUS_MAX + 32];

	vsnprintf(status, sizeof(status), format, args);
	replace_controls(status);
	if (!send_ready && !strcmp(status, n->status))
		return;
	snprintf(text, sizeof(text), "%sSTATUS=%s", send_ready ? "READY=1\n" : "", status);
	if (!send_message(n, text))
		return;
	n->ready |= ready;
	n->reloading = false;
	memcpy(n->status, status, sizeof(status));
}

void notify_ready(struct notify *n, const char *status, ...)
{
	va_list args;

	va_start(args, status);
	if (n)
		send_status(n, true, status, args);
	va_end(args);
}

void notify_status(struct notify *n, const char *status, ...)
{
	va_list args;

	va_start(args, status);
	if (n)
		send_status(n, false, status, args);
	va_end(args);
}

void notify_reloading(struct notify *n)
{
	char text[64];

	if (!n || !n->ready)
		return;
	snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%llu", clock_now_ns() / 1000);
	n->reloading = send_message(n, text);
}

void notify_stopping(struct notify *n)
{
	if (n)
		send_message(n, "STOPPING=1");
}
