/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A probe of a backend that does what it likes, in TLS and around it: each probe ends once and in
 * time, with a reason and one printable line, and nothing is called back that must not be.
 *
 * Input: what the backend is, which of its bytes is changed, what a callback does; then steps.
 */
#include <event2/event.h>
#include <openssl/err.h>

#include "agent/probe.h"
#include "base/clock.h"
#include "fuzz.h"
#include "net/tls.h"
#include "peer.h"

#define TIMEOUT_MS 25
/* A machine may be busy. */
#define LATE_MS 20000

enum hook { HOOK_NONE, HOOK_FREE_IN_DONE, HOOK_FREE_IN_LOST, HOOK_FREE_IN_ALIVE, HOOKS };

struct under_test {
	struct peers peers;
	struct probe *probe;
	enum hook hook;
	bool starting;
	unsigned int under_way;
	__u64 started_ns;
};

static void free_probe(struct under_test *t)
{
	probe_free(t->probe);
	t->probe = NULL;
	t->under_way = 0;
}

static void called(struct under_test *t, enum hook hook)
{
	require(t->probe && !t->starting);
	if (t->hook == hook)
		free_probe(t);
}

static void on_done(void *arg, const struct probe_result *result)
{
	struct under_test *t = arg;
	struct err line;

	require(t->under_way == 1);
	t->under_way = 0;
	require(result->outcome != KLB_REASON_NONE);
	require(!result->http_status || (result->http_status >= 100 && result->http_status < 1000));
	require(result->outcome != KLB_REASON_OK || result->http_status == 200);
	require(clock_now_ns() - t->started_ns < (TIMEOUT_MS + LATE_MS) * NS_PER_MS);
	if (result->detail) {
		require(strlen(result->detail) < TLS_DETAIL_MAX);
		snprintf(line.text, sizeof(line.text), "%s", result->detail);
		require_line(&line, "");
	}
	called(t, HOOK_FREE_IN_DONE);
}

static void on_lost(void *arg, bool timed_out)
{
	struct under_test *t = arg;

	(void)timed_out;
	require(!t->under_way);
	called(t, HOOK_FREE_IN_LOST);
}

static void on_alive(void *arg)
{
	called(arg, HOOK_FREE_IN_ALIVE);
}

static void on_going(void *arg)
{
	called(arg, HOOK_NONE);
}

static void on_not_covered(void *arg, const struct klb_endpoint *address)
{
	(void)address;
	require(((struct under_test *)arg)->probe != NULL);
}

static void start(struct under_test *t, enum probe_path path)
{
	if (t->under_way)
		return;
	t->under_way = 1;
	t->started_ns = clock_now_ns();
	t->starting = true;
	probe_start(t->probe, path);
	t->starting = false;
}

static void answer(struct under_test *t, uint8_t stream)
{
	static const char http_1[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
	/* SETTINGS, an answer to the client's, and :status 200 on that stream. */
	char http_2[] = "\0\0\0\4\0\0\0\0\0"
			"\0\0\0\4\1\0\0\0\0"
			"\0\0\1\1\5\0\0\0\1\x88";

	if (!t->peers.h2) {
		peers_send(&t->peers, http_1, sizeof(http_1) - 1);
		return;
	}
	http_2[26] = (char)stream;
	peers_send(&t->peers, http_2, sizeof(http_2) - 1);
}

static void turns(struct under_test *t, unsigned int n)
{
	while (n--)
		peers_turn(&t->peers);
}

static void step(struct under_test *t, struct script *s)
{
	uint8_t what = script_byte(s);

	switch (what % 8) {
	case 0:
	case 1:
		peers_act(&t->peers, s);
		break;
	case 2:
		start(t, what & 64 ? PROBE_LIVE : PROBE_READY);
		break;
	case 3:
		answer(t, script_byte(s));
		break;
	case 4:
		probe_ping(t->probe);
		break;
	case 5:
		probe_renew(t->probe);
		break;
	default:
		/* Enough for a whole handshake. */
		turns(t, 1 + what / 16);
	}
	peers_turn(&t->peers);
}

static struct probe_tls *tls_of(void)
{
	static struct config_probe cfg;
	static struct probe_tls *tls;
	struct err e;

	if (tls)
		return tls;
	cfg.ca = (char *)peers_file(peers_ca());
	require(probe_tls_new(&cfg, &tls, &e) == 0);
	return tls;
}

static void open_probe(struct under_test *t, struct event_base *base)
{
	static const struct probe_ops ops = { .done = on_done,
					      .lost = on_lost,
					      .alive = on_alive,
					      .going = on_going,
					      .not_covered = on_not_covered };
	const struct config_probe cfg = { .path = (char *)"/readyz",
					  .live_path = (char *)"/livez",
					  .timeout_ms = TIMEOUT_MS,
					  .connect_timeout_ms = TIMEOUT_MS };
	const struct klb_endpoint cover = { .addr = { [15] = 1 }, .port = 1 };
	struct err e;

	require(!probe_new(base, &cfg, tls_of(), &t->peers.at, &cover, 1, &ops, t, &t->probe, &e));
}

/* A probe that is under way ends when nobody answers any more. */
static void finish(struct under_test *t)
{
	peers_close(&t->peers);
	while (t->probe && t->under_way)
		event_base_loop(t->peers.base, EVLOOP_ONCE);
	if (t->probe)
		free_probe(t);
	/* What libevent frees later. */
	event_base_loop(t->peers.base, EVLOOP_NONBLOCK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct script s = { data, size };
	struct event_base *base = event_base_new();
	uint8_t kind = script_byte(&s);
	struct under_test t = { .hook = kind / 4 % HOOKS,
				.peers = { .h2 = kind & 1, .tls12 = kind & 2 } };

	t.peers.flip_at = script_byte(&s) * 16u;
	t.peers.flip_at += script_byte(&s) % 16;
	t.peers.flip = kind & 128 ? script_byte(&s) : 0;
	peers_open(&t.peers, base);
	open_probe(&t, base);
	start(&t, PROBE_READY);
	turns(&t, kind & 64 ? 0 : 10);
	for (unsigned int steps = 0; s.n && t.probe && steps < 64; steps++)
		step(&t, &s);
	finish(&t);
	event_base_free(base);
	require(ERR_peek_error() == 0);
	return 0;
}
