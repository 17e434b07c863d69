/* SPDX-License-Identifier: BSD-2-Clause */
/* What a backend's PINGs lead to, with an owner that answers as the test says. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "agent/liveness.h"
#include "base/clock.h"
#include "unit.h"

/* Short, so that the test is; nothing here depends on how long each takes. */
static const struct liveness_rules rules = { .ping_ms = 20, .timeout_ms = 400 };

struct owner {
	struct event_base *base;
	struct liveness *liveness;
	int listener; /* of the backend's host, which answers SYNs */
	int ping_result;
	bool acknowledged;
	bool answers;
	bool answers_when_renewed;
	unsigned int pings, doubted, silent, lost;
	bool vanished;
	__u64 asked_ns;
};

static int on_ping(void *arg)
{
	struct owner *o = arg;

	o->pings++;
	if (o->answers)
		liveness_alive(o->liveness);
	return o->answers ? -EAGAIN : o->ping_result;
}

static bool on_is_acknowledged(void *arg)
{
	return ((struct owner *)arg)->acknowledged;
}

static void on_doubted(void *arg)
{
	((struct owner *)arg)->doubted++;
}

static void on_silent(void *arg, __u64 asked_ns)
{
	struct owner *o = arg;

	o->silent++;
	o->asked_ns = asked_ns;
	if (o->answers_when_renewed)
		liveness_alive(o->liveness);
}

static void on_lost(void *arg, __u64 asked_ns, bool vanished)
{
	struct owner *o = arg;

	o->lost++;
	o->asked_ns = asked_ns;
	o->vanished = vanished;
}

static const struct liveness_ops ops = {
	.ping = on_ping,
	.is_acknowledged = on_is_acknowledged,
	.doubted = on_doubted,
	.silent = on_silent,
	.lost = on_lost,
};

static void begin(struct owner *o)
{
	struct klb_endpoint at;

	o->base = event_base_new();
	o->listener = bind_loopback(false, &at);
	assert_true(o->base && o->listener >= 0);
	assert_int_equal(listen(o->listener, 16), 0);
	o->liveness = liveness_new(o->base, &at, &rules, &ops, o);
	assert_non_null(o->liveness);
	liveness_alive(o->liveness);
}

static void end(struct owner *o)
{
	liveness_free(o->liveness);
	close(o->listener);
	event_base_free(o->base);
}

static void run_until(struct owner *o, const unsigned int *counter, unsigned int n)
{
	__u64 deadline = clock_now_ns() + PATIENCE_S * NS_PER_S;

	while (*counter < n && clock_now_ns() < deadline)
		event_base_loop(o->base, EVLOOP_ONCE);
	assert_true(*counter >= n);
}

static void answered(void **state)
{
	struct owner o = { .answers = true };

	(void)state;
	begin(&o);
	run_until(&o, &o.pings, 5);
	assert_int_equal(o.silent + o.lost + o.doubted, 0);
	end(&o);
}

/* No connection, or one that has no PINGs. */
static void nothing_to_ask(void **state)
{
	struct owner o = { .ping_result = -ENOTCONN };

	(void)state;
	begin(&o);
	run_until(&o, &o.pings, 5);
	assert_int_equal(o.silent + o.lost + o.doubted, 0);
	end(&o);
}

static void hangs(void **state)
{
	struct owner o = { .acknowledged = true };
	__u64 asked_ns;

	(void)state;
	begin(&o);
	run_until(&o, &o.silent, 1);
	asked_ns = o.asked_ns;
	assert_int_equal(o.lost, 0);
	run_until(&o, &o.lost, 1);
	assert_false(o.vanished);
	assert_true(asked_ns && o.asked_ns == asked_ns);
	assert_int_equal(o.silent, 1);
	assert_int_equal(o.doubted, 0);
	/* And asks again. */
	run_until(&o, &o.pings, 2);
	end(&o);
}

static void one_connection_hangs(void **state)
{
	struct owner o = { .acknowledged = true, .answers_when_renewed = true };

	(void)state;
	begin(&o);
	run_until(&o, &o.silent, 2);
	assert_int_equal(o.lost, 0);
	end(&o);
}

/* A lost packet, or a slow link: the host answers SYNs. */
static void unacknowledged_but_there(void **state)
{
	struct owner o = { .acknowledged = false };

	(void)state;
	begin(&o);
	run_until(&o, &o.silent, 1);
	assert_int_equal(o.doubted, 0);
	run_until(&o, &o.lost, 1);
	assert_false(o.vanished);
	end(&o);
}

static void hurried(void **state)
{
	struct owner o = { .acknowledged = true };

	(void)state;
	begin(&o);
	liveness_hurry(o.liveness);
	assert_int_equal(o.pings, 1);
	/* It waits for that one. */
	liveness_hurry(o.liveness);
	assert_int_equal(o.pings, 1);
	end(&o);
}

static void freed_at_any_time(void **state)
{
	struct owner o = { .acknowledged = false };

	(void)state;
	begin(&o);
	end(&o);
	o = (struct owner){ .acknowledged = false };
	begin(&o);
	run_until(&o, &o.pings, 1);
	end(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answered),
		cmocka_unit_test(nothing_to_ask),
		cmocka_unit_test(hangs),
		cmocka_unit_test(one_connection_hangs),
		cmocka_unit_test(unacknowledged_but_there),
		cmocka_unit_test(hurried),
		cmocka_unit_test(freed_at_any_time),
	};

	return cmocka_run_group_tests_name("liveness", tests, NULL, NULL);
}
