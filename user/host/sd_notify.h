/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tells the service manager about the agent's state, by the protocol of sd_notify(3): datagrams of
 * KEY=VALUE lines to the socket that $NOTIFY_SOCKET names. Implemented here, because libsystemd
 * would take more memory than the rest of this folder.
 *
 * NULL means that there is no manager: every function accepts it and does nothing.
 */
#ifndef KUBELB_SD_NOTIFY_H
#define KUBELB_SD_NOTIFY_H

#include "base/err.h"

struct event_base;
struct notify;

/*
 * Reads NOTIFY_SOCKET (a path, or @name for an abstract socket), WATCHDOG_USEC and WATCHDOG_PID.
 * From then on base's loop sends WATCHDOG=1 at half the watchdog's interval. *ret is NULL when
 * NOTIFY_SOCKET is not set. Returns -EINVAL with e when one of them is invalid; *ret is NULL then
 * too.
 */
int notify_new(struct event_base *base, struct notify **ret, struct err *e);
void notify_free(struct notify *n);

/*
 * Says that the agent is ready, with one line for `systemctl status`. May be called often: it sends
 * only what is new, or what the manager could not receive the last time.
 */
void notify_ready(struct notify *n, const char *status, ...) __attribute__((format(printf, 2, 3)));
/* Sends the line only. */
void notify_status(struct notify *n, const char *status, ...) __attribute__((format(printf, 2, 3)));

/*
 * Says that a reload begins. The next notify_ready or notify_status ends it. Does nothing before
 * the first notify_ready: an agent that is not ready has nothing to reload.
 */
void notify_reloading(struct notify *n);
void notify_stopping(struct notify *n);

#endif
