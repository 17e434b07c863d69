/* SPDX-License-Identifier: BSD-2-Clause */
/* A prober under test, and what it has reported. */
#ifndef KUBELB_TESTS_PROBER_H
#define KUBELB_TESTS_PROBER_H

#include "agent/probe_internal.h"
#include "unit.h"

struct event_base;
struct script;
struct tls_server;

/* Long enough that no probe which is answered runs into it. */
#define TIMEOUT_LONG_MS 20000

/* What is called back in a callback. */
enum hook {
	HOOK_NONE,
	HOOK_FREE_IN_DONE,
	HOOK_FREE_IN_LOST,
	HOOK_FREE_IN_NOT_COVERED,
	HOOK_START_IN_DONE,
	HOOK_START_IN_LOST
};

struct prober {
	struct event_base *base;
	struct config_probe cfg;
	struct probe_tls *tls;
	struct probe *probe;
	enum hook hook;
	unsigned int starts_left; /* for HOOK_START_IN_DONE */
	bool inside_start;
	unsigned int done, lost, alive, going, uncovered;
	struct probe_result result; /* the last one; detail is copied */
	char detail[TLS_DETAIL_MAX];
	struct klb_endpoint uncovered_at;
};

extern const struct probe_ops prober_ops;

/* Fills what is not set in p->cfg. */
void prober_open_covering(struct prober *p, const struct klb_endpoint *backend,
			  const struct klb_endpoint *must_cover, unsigned int n);
void prober_open(struct prober *p, const struct klb_endpoint *backend);
void prober_close(struct prober *p);

/* A server, and a prober for it; and the end of both. */
void prober_begin(struct prober *p, struct tls_server *s, const struct script *script);
void prober_end(struct prober *p, struct tls_server *s);

/* Begins a probe. */
void prober_start(struct prober *p);
/* Begins one, and runs the event loop until it is done. */
void prober_once(struct prober *p);
/* Runs the event loop until *counter is n. */
void prober_run(struct prober *p, const unsigned int *counter, unsigned int n);
/* The probe alone, as its owner may at any time. */
void prober_free(struct prober *p);

void assert_outcome(const struct prober *p, enum klb_reason outcome, unsigned int status);
/* One server, one probe with p->cfg, one outcome. Returns with both stopped. */
void expect_outcome(struct prober *p, const struct script *script, enum klb_reason outcome,
		    unsigned int status);

#endif
