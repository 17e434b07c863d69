/* SPDX-License-Identifier: BSD-2-Clause */
/* Begins the agent's own TCP connections. */
#ifndef KUBELB_DIAL_H
#define KUBELB_DIAL_H

#include <kubelb/abi.h>

/* After how much silence an established connection is given up. */
struct dial_patience {
	int user_timeout_ms; /* for data that is not acknowledged */
	int keepalive_idle_s, keepalive_interval_s, keepalive_count; /* when there is no data */
};

/*
 * Returns a non-blocking, close-on-exec socket on its way to being connected, to be
 * closed by the caller, or a negative errno.
 */
int dial_open(const struct klb_endpoint *to, const struct dial_patience *patience);

/*
 * Its three steps, for who has something to do in between. dial_socket returns the socket or a
 * negative errno. dial_tune ignores errors: without one of these options the connection works, and
 * only notices later that its peer is gone. dial_connect returns 0 or a negative errno.
 */
int dial_socket(const struct klb_endpoint *to);
void dial_tune(int fd, const struct dial_patience *patience);
int dial_connect(int fd, const struct klb_endpoint *to);

/* How the connect ended, once the socket can be written to: 0 or an errno. */
int dial_result(int fd);

#endif
