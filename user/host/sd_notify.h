/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the service manager is told: sd_notify(3)'s protocol, one datagram of
 * KEY=VALUE lines to the socket that $NOTIFY_SOCKET names. Spoken here, because
 * libsystemd would cost the agent more memory than the rest of this room.
 *
 * NULL stands for "there is no manager": every function takes it and does nothing.
 */
#ifndef KUBELB_SD_NOTIFY_H
#define KUBELB_SD_NOTIFY_H

#include "base/err.h"

struct event_base;
struct notify;

/*
 * Reads NOTIFY_SOCKET (a path, or @name for an abstract socket), WATCHDOG_USEC and
 * WATCHDOG_PID. From here on base's loop sends WATCHDOG=1 at half the watchdog's
 * interval. *ret is NULL where NOTIFY_SOCKET is not set. -EINVAL with e when one of
 * them cannot be used; *ret is NULL then, too.
 */
int notify_new(struct event_base *base, struct notify **ret, struct err *e);
void notify_free(struct notify *n);

/*
 * Ready, with one line for `systemctl status`. To be called as often as the caller
 * likes: sends what is new, and again what the manager could not take the last time.
 */
void notify_ready(struct notify *n, const char *status, ...) __attribute__((format(printf, 2, 3)));
/* The line alone. */
void notify_status(struct notify *n, const char *status, ...) __attribute__((format(printf, 2, 3)));

/* A reload begins; the next notify_ready or notify_status ends it. Nothing before the
 * first notify_ready: who is not ready yet has nothing to reload. */
void notify_reloading(struct notify *n);
void notify_stopping(struct notify *n);

#endif
