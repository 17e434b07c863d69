/* SPDX-License-Identifier: BSD-2-Clause */
/* One event, one line. */
#include <stdlib.h>
#include <time.h>

#include "ctl/events.h"
#include "unit.h"

/* 2026-11-22 19:07:08 UTC */
#define WALL_NS (1795374428ULL * 1000000000ULL)
#define BOOT_NS (WALL_NS - 5000000000ULL)

static struct klb_event make(enum klb_event_kind kind, enum klb_failure failure)
{
	struct klb_event event = {
		.number = 8,
		.time_ns = 5123999999ULL,
		.latency_ns = 1003000000,
		.cgroup_id = 77,
		.id = 3,
		.kind = kind,
		.failure = failure,
		.pid = 1234,
		.comm = "kube\x1b"
			"let",
	};

	event.backend = endpoint("192.0.2.11");
	if (kind == KLB_EVENT_EJECTED)
		event.ejected_ns = 60000000000ULL;
	return event;
}

struct printed {
	FILE *to;
	char *text;
	size_t size;
};

static FILE *print_to(struct printed *p)
{
	*p = (struct printed){ 0 };
	p->to = open_memstream(&p->text, &p->size);
	assert_non_null(p->to);
	return p->to;
}

static void printed_is(struct printed *p, const char *want)
{
	fclose(p->to);
	assert_string_equal(p->text, want);
	free(p->text);
}

static void check(const struct klb_event *event, bool json, const char *want)
{
	struct printed p;
	FILE *to = print_to(&p);

	if (json)
		assert_int_equal(events_print_json(event, BOOT_NS, to), 0);
	else
		events_print_text(event, BOOT_NS, to);
	printed_is(&p, want);
}

static void text_lines(void **state)
{
	static const struct {
		enum klb_event_kind kind;
		enum klb_failure failure;
		const char *want;
	} cases[] = {
		{ KLB_EVENT_CONNECT_FAILED, KLB_FAILURE_GAVE_UP,
		  "connect-failed 192.0.2.11:6443       client gave up" },
		{ KLB_EVENT_SUSPECT, KLB_FAILURE_TIMED_OUT,
		  "suspect        192.0.2.11:6443       timed out     " },
		{ KLB_EVENT_RESTORED, KLB_FAILURE_OTHER,
		  "restored       192.0.2.11:6443       -             " },
		{ KLB_EVENT_PEER_LOST, KLB_FAILURE_TIMED_OUT,
		  "peer-lost      192.0.2.11:6443       timed out     " },
		{ KLB_EVENT_CLOSED_EARLY, KLB_FAILURE_OTHER,
		  "closed-early   192.0.2.11:6443       -             " },
		{ (enum klb_event_kind)99, (enum klb_failure)99,
		  "unknown        192.0.2.11:6443       invalid       " },
	};
	struct klb_event event = make(KLB_EVENT_EJECTED, KLB_FAILURE_REFUSED);
	char want[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct klb_event other = make(cases[i].kind, cases[i].failure);

		snprintf(want, sizeof(want),
			 "2026-11-22 19:07:08.123 %s kube?let[1234] after 1003ms\n", cases[i].want);
		check(&other, false, want);
	}
	check(&event, false,
	      "2026-11-22 19:07:08.123 ejected        192.0.2.11:6443       refused        "
	      "kube?let[1234] after 1003ms, for 60s\n");
	event.pid = 0;
	check(&event, false,
	      "2026-11-22 19:07:08.123 ejected        192.0.2.11:6443       refused        "
	      "- after 1003ms, for 60s\n");
}

static void json_lines(void **state)
{
	const struct klb_event ejected = make(KLB_EVENT_EJECTED, KLB_FAILURE_TIMED_OUT);
	const struct klb_event restored = make(KLB_EVENT_RESTORED, KLB_FAILURE_OTHER);

	(void)state;
	check(&ejected, true,
	      "{\"time\":\"2026-11-22T19:07:08.123Z\",\"monotonicNs\":5123999999,"
	      "\"event\":\"ejected\",\"backend\":\"192.0.2.11:6443\",\"backendId\":3,"
	      "\"reason\":\"timed_out\",\"process\":{\"name\":\"kube?let\",\"pid\":1234,"
	      "\"cgroupId\":77},\"latencySeconds\":1.003,\"ejectedSeconds\":60.0,"
	      "\"number\":7}\n");
	check(&restored, true,
	      "{\"time\":\"2026-11-22T19:07:08.123Z\",\"monotonicNs\":5123999999,"
	      "\"event\":\"restored\",\"backend\":\"192.0.2.11:6443\",\"backendId\":3,"
	      "\"reason\":null,\"process\":{\"name\":\"kube?let\",\"pid\":1234,"
	      "\"cgroupId\":77},\"latencySeconds\":1.003,\"ejectedSeconds\":null,"
	      "\"number\":7}\n");
}

static void local_time(void **state)
{
	const struct klb_event event = make(KLB_EVENT_RESTORED, KLB_FAILURE_OTHER);

	(void)state;
	setenv("TZ", "XXX-2", 1);
	tzset();
	check(&event, false,
	      "2026-11-22 21:07:08.123 restored       192.0.2.11:6443       -              "
	      "kube?let[1234] after 1003ms\n");
}

static void check_change(const struct state_change *c, bool json, const char *want)
{
	struct printed p;
	FILE *to = print_to(&p);

	if (json)
		assert_int_equal(events_print_change_json(c, BOOT_NS, to), 0);
	else
		events_print_change_text(c, BOOT_NS, to);
	printed_is(&p, want);
}

#define HEAD "2026-11-22 19:07:08.123 "
#define HEAD_JSON "{\"time\":\"2026-11-22T19:07:08.123Z\",\"monotonicNs\":5123999999,"

static void verdicts(void **state)
{
	struct state_change c = { .kind = CHANGE_STATE,
				  .was = KLB_STATE_READY,
				  .state = KLB_STATE_DRAINING,
				  .reason = KLB_REASON_NOT_READY,
				  .http_status = 500,
				  .id = 3,
				  .time_ns = 5123999999ULL };

	(void)state;
	c.backend = endpoint("192.0.2.11");
	check_change(&c, false,
		     HEAD
		     "state          192.0.2.11:6443       draining       was ready, not ready "
		     "(HTTP 500)\n");
	c.was = KLB_STATE_DRAINING;
	check_change(&c, false,
		     HEAD "state          192.0.2.11:6443       draining       was draining and in "
			  "between another, not ready (HTTP 500)\n");
	c.kind = CHANGE_REASON;
	c.was_reason = KLB_REASON_UNAUTHORIZED;
	c.was_http_status = 403;
	check_change(&c, false,
		     HEAD "reason         192.0.2.11:6443       draining       not ready (HTTP "
			  "500), was unauthorized (HTTP 403)\n");
	check_change(&c, true,
		     HEAD_JSON "\"event\":\"reason\",\"backend\":\"192.0.2.11:6443\","
			       "\"backendId\":3,\"reason\":\"not ready\",\"state\":\"draining\","
			       "\"was\":null,\"wasReason\":\"unauthorized\",\"httpStatus\":500,"
			       "\"weight\":null}\n");
}

static void refusals(void **state)
{
	const struct events_refused r = { .why = EVENTS_REFUSED_SOURCE,
					  .time_ns = 5123999999ULL,
					  .n = 12 };
	struct printed p;

	(void)state;
	events_print_refused_text(&r, BOOT_NS, print_to(&p));
	printed_is(&p, HEAD "refused        -                     source         12 clients\n");
	assert_int_equal(events_print_refused_json(&r, BOOT_NS, print_to(&p)), 0);
	printed_is(&p, HEAD_JSON "\"event\":\"refused\",\"reason\":\"source\",\"clients\":12}\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_lines), cmocka_unit_test(json_lines),
		cmocka_unit_test(verdicts),   cmocka_unit_test(refusals),
		cmocka_unit_test(local_time),
	};

	setenv("TZ", "UTC", 1);
	tzset();
	return cmocka_run_group_tests_name("events", tests, NULL, NULL);
}
