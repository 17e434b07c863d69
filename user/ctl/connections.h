/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints the balanced connections, for people and as JSON. */
#ifndef KUBELB_CONNECTIONS_H
#define KUBELB_CONNECTIONS_H

#include <stdio.h>

#include "net/connection.h"

/*
 * Moves the connections to real backends that are connecting or active to the start of the list: by
 * backend, then by age, the oldest first. Returns their number.
 */
unsigned int connections_keep(struct klb_connection *list, unsigned int n);

/* "connecting" or "active" */
const char *connections_state_name(const struct klb_connection *c);

/* host: klb_control.host_netns. Both return 0 or -ENOMEM. */
int connections_print_text(const struct klb_connection *list, unsigned int n, __u64 host,
			   __u64 now_ns, FILE *to);
int connections_print_json(const struct klb_connection *list, unsigned int n, __u64 host,
			   __u64 now_ns, FILE *to);

#endif
