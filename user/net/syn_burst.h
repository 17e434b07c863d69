/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Asks whether a host is there: fresh connects to an address, one after another, until one is
 * answered. A retransmitted SYN would wait for a second; a new connect's SYN leaves at once. An
 * answer is a handshake or a refusal: both come from the host's kernel.
 */
#ifndef KUBELB_SYN_BURST_H
#define KUBELB_SYN_BURST_H

#include <stdbool.h>

#include <kubelb/abi.h>

struct event_base;
struct syn_burst;

/* Connects that wait at a time. Later ones are not made. */
#define SYN_BURST_MAX 24

/*
 * Begins with the first connect, and makes one more every so many milliseconds. Returns NULL when
 * memory is short. Free with syn_burst_free. to is copied.
 */
struct syn_burst *syn_burst_new(struct event_base *base, const struct klb_endpoint *to,
				unsigned int every_ms);
/* NULL is allowed. Connections are reset, so that nothing waits for their end. */
void syn_burst_free(struct syn_burst *b);

/* Whether the host has answered. */
bool syn_burst_is_answered(const struct syn_burst *b);
/* Whether at least one connect could be made. */
bool syn_burst_has_asked(const struct syn_burst *b);

#endif
