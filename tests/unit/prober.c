/* SPDX-License-Identifier: BSD-2-Clause */
#include "prober.h"

#include <stdio.h>
#include <string.h>

#include <event2/event.h>

#include "pki.h"
#include "tls_server.h"

void prober_free(struct prober *p)
{
	probe_free(p->probe);
	p->probe = NULL;
}

void prober_start(struct prober *p)
{
	p->inside_start = true;
	probe_start(p->probe, PROBE_READY);
	p->inside_start = false;
}

static void on_done(void *arg, const struct probe_result *result)
{
	struct prober *p = arg;

	assert_false(p->inside_start);
	p->done++;
	if (p->hook == HOOK_FREE_IN_DONE)
		prober_free(p);
	if (p->hook == HOOK_START_IN_DONE && p->starts_left) {
		p->starts_left--;
		prober_start(p);
	}
	/* After the hook: the result must outlive what it does. */
	p->result = *result;
	snprintf(p->detail, sizeof(p->detail), "%s", result->detail ? result->detail : "");
	p->result.detail = p->detail;
	assert_int_not_equal(result->outcome, KLB_REASON_NONE);
}

static void on_lost(void *arg, bool timed_out)
{
	struct prober *p = arg;

	(void)timed_out;
	assert_false(p->inside_start);
	p->lost++;
	if (p->hook == HOOK_FREE_IN_LOST)
		prober_free(p);
	if (p->hook == HOOK_START_IN_LOST)
		prober_start(p);
}

static void on_not_covered(void *arg, const struct klb_endpoint *address)
{
	struct prober *p = arg;

	p->uncovered++;
	p->uncovered_at = *address;
	if (p->hook == HOOK_FREE_IN_NOT_COVERED)
		prober_free(p);
}

static void on_alive(void *arg)
{
	((struct prober *)arg)->alive++;
}

static void on_going(void *arg)
{
	((struct prober *)arg)->going++;
}

const struct probe_ops prober_ops = { .done = on_done,
				      .lost = on_lost,
				      .alive = on_alive,
				      .going = on_going,
				      .not_covered = on_not_covered };

void prober_open_covering(struct prober *p, const struct klb_endpoint *backend,
			  const struct klb_endpoint *must_cover, unsigned int n)
{
	struct err e;

	if (!p->cfg.path)
		p->cfg.path = (char *)"/readyz";
	if (!p->cfg.timeout_ms)
		p->cfg.timeout_ms = TIMEOUT_LONG_MS;
	if (!p->cfg.ca)
		p->cfg.ca = pki.ca_file;
	p->base = event_base_new();
	assert_non_null(p->base);
	if (probe_tls_new(&p->cfg, &p->tls, &e))
		fail_msg("%s", e.text);
	if (probe_new(p->base, &p->cfg, p->tls, backend, must_cover, n, &prober_ops, p, &p->probe,
		      &e))
		fail_msg("%s", e.text);
}

void prober_open(struct prober *p, const struct klb_endpoint *backend)
{
	prober_open_covering(p, backend, NULL, 0);
}

void prober_close(struct prober *p)
{
	probe_free(p->probe);
	event_base_free(p->base);
	probe_tls_free(p->tls);
}

void prober_begin(struct prober *p, struct tls_server *s, const struct script *script)
{
	assert_true(tls_server_start(s, script));
	prober_open(p, &s->at);
}

void prober_end(struct prober *p, struct tls_server *s)
{
	prober_close(p);
	tls_server_stop(s);
}

void prober_run(struct prober *p, const unsigned int *counter, unsigned int n)
{
	assert_true(loop_until(p->base, counter, n));
	assert_int_equal(*counter, n);
}

void prober_once(struct prober *p)
{
	unsigned int before = p->done;

	prober_start(p);
	prober_run(p, &p->done, before + 1);
}

void assert_outcome(const struct prober *p, enum klb_reason outcome, unsigned int status)
{
	if (p->result.outcome != outcome || p->result.http_status != status)
		fail_msg("outcome %d, status %u (%s); wanted %d, %u", (int)p->result.outcome,
			 p->result.http_status, p->detail, (int)outcome, status);
}

void expect_outcome(struct prober *p, const struct script *script, enum klb_reason outcome,
		    unsigned int status)
{
	struct tls_server s;

	prober_begin(p, &s, script);
	prober_once(p);
	prober_end(p, &s);
	assert_outcome(p, outcome, status);
	assert_int_equal(p->done, 1);
	assert_int_equal(p->lost, 0);
}
