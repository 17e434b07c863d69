/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finds out whether a backend's process runs, and whether its host is there: an HTTP/2 PING on the
 * persistent connection in each interval, which the server's read loop answers without a handler.
 *
 *   waits ── PING ──► asked ── no answer in time ──► silent(), a new connection
 *                       │                               │
 *                       │ not even acknowledged         └─ nothing there either ──► lost()
 *                       └─ a burst of SYNs ── none answered ──► doubted() ── nor by then ──► lost()
 *
 * Any sign of life (liveness_alive) takes it back to the beginning. The owner has the connection,
 * and decides what it means.
 */
#ifndef KUBELB_AGENT_LIVENESS_H
#define KUBELB_AGENT_LIVENESS_H

#include <stdbool.h>

#include <kubelb/abi.h>

struct event_base;
struct liveness;

struct liveness_rules {
	unsigned int ping_ms; /* between two PINGs */
	unsigned int timeout_ms; /* how long the answer may take */
};

struct liveness_ops {
	/* Sends a PING. Returns 0 or a negative errno: there is none to wait for. */
	int (*ping)(void *arg);
	/* Whether the other side's kernel has acknowledged it. */
	bool (*is_acknowledged)(void *arg);
	/* Its kernel neither acknowledges nor answers new connects, so far. */
	void (*doubted)(void *arg);
	/*
	 * It was not answered in time. asked_ns: when it was sent. The owner makes a new
	 * connection.
	 */
	void (*silent)(void *arg, __u64 asked_ns);
	/*
	 * There was no sign of life since asked_ns. vanished: also its kernel has answered
	 * nothing, so that the host is gone; otherwise the process hangs.
	 */
	void (*lost)(void *arg, __u64 asked_ns, bool vanished);
};

/* Returns NULL when memory is short. Free with liveness_free. Starts nothing. */
struct liveness *liveness_new(struct event_base *base, const struct klb_endpoint *backend,
			      const struct liveness_rules *rules, const struct liveness_ops *ops,
			      void *arg);
/* NULL is allowed. */
void liveness_free(struct liveness *l);

/* There was a sign of life: the next PING is due one interval later. */
void liveness_alive(struct liveness *l);
/* Something looks wrong: sends the PING now, unless one is waited for. */
void liveness_hurry(struct liveness *l);

/* Whether no answer is due. */
bool liveness_is_waiting(const struct liveness *l);

#endif
