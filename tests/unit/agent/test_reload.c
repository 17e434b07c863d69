/* SPDX-License-Identifier: BSD-2-Clause */
/* How a configuration gets into the agent, what of the one before stays, and whose backends count.
 */
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include <event2/event.h>

#include "bare_agent.h"
#include "base/clock.h"
#include "host/node.h"
#include "host/worker.h"
#include "pki.h"
#include "unit.h"

/* The file: these backends, and further keys of the probe (`, key: value`) and of the whole. */
static void write_config(const char *backends, const char *probe, const char *rest)
{
	char text[1024];

	snprintf(text, sizeof(text), "backends: [%s]\nprobe: {ca: %s%s}\nhttp: \"\"\n%s", backends,
		 pki.ca_file, probe, rest);
	write_file(bare.options->config_path, text);
}

/* Reads the file again, and takes it or not. */
static void reload(void)
{
	agent_reload(&bare);
	while (bare.reading)
		assert_true(worker_wait(bare.reading, PATIENCE_S * 1000));
}

/* As the program does at its start. */
static void take(void)
{
	struct config *cfg = NULL;
	struct err e;

	if (config_load(bare.options->config_path, true, &cfg, &e))
		fail_msg("%s", e.text);
	agent_read_cache(&bare, cfg);
	if (agent_take_file(&bare, cfg, &e))
		fail_msg("%s", e.text);
	assert_ptr_equal(bare.file, cfg);
}

/* Those that count, and that each is probed. */
static void assert_backends(const char *want)
{
	struct klb_endpoint list[KLB_MAX_BACKENDS];

	for (unsigned int i = 0; i < bare.config->n_backends; i++) {
		list[i] = bare.config->backends[i].endpoint;
		assert_string_equal(list_text(&bare.backends[i]->endpoint, 1),
				    list_text(&list[i], 1));
	}
	assert_string_equal(list_text(list, bare.config->n_backends), want);
}

/* --- the file -------------------------------------------------------------------------- */

static void what_it_takes_of_privileges(void **state)
{
	static const struct {
		bool http, low;
		enum klb_scope scope;
		unsigned int frontend;
		enum config_data_path path;
		struct privileges_need want;
	} cases[] = {
		{ false, false, KLB_SCOPE_HOST, 6443, CONFIG_DATA_PATH_AUTO, { .pods = false } },
		{ false, true, KLB_SCOPE_HOST, 6443, CONFIG_DATA_PATH_AUTO, { .pods = false } },
		{ true, false, KLB_SCOPE_HOST, 6443, CONFIG_DATA_PATH_AUTO, { .pods = false } },
		{ true, true, KLB_SCOPE_HOST, 6443, CONFIG_DATA_PATH_AUTO, { .low_port = true } },
		{ true, false, KLB_SCOPE_ALL, 6443, CONFIG_DATA_PATH_AUTO, { .pods = true } },
		/* What may be relayed has to be listened on. */
		{ false, false, KLB_SCOPE_HOST, 443, CONFIG_DATA_PATH_KERNEL, { .pods = false } },
		{ false, false, KLB_SCOPE_HOST, 443, CONFIG_DATA_PATH_AUTO, { .low_port = true } },
		{ false,
		  false,
		  KLB_SCOPE_HOST,
		  443,
		  CONFIG_DATA_PATH_RELAY,
		  { .low_port = true, .relay = true } },
		{ false,
		  false,
		  KLB_SCOPE_NETWORK,
		  443,
		  CONFIG_DATA_PATH_KERNEL,
		  { .low_port = true } },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct config cfg = { .n_frontends = 2, .http_enabled = cases[i].http };
		struct privileges_need need;

		cfg.http.port = cases[i].low ? 1023 : 1024;
		cfg.data_path = cases[i].path;
		cfg.frontends[0].endpoint.port = 6443;
		cfg.frontends[1].endpoint.port = cases[i].frontend;
		cfg.frontends[1].scope = cases[i].scope;
		agent_needs(&cfg, &need);
		assert_int_equal(need.pods, cases[i].want.pods);
		assert_int_equal(need.low_port, cases[i].want.low_port);
		assert_int_equal(need.relay, cases[i].want.relay);
	}
}

static void the_first_file(void **state)
{
	(void)state;
	write_config("10.0.0.1, 10.0.0.2", "", "");
	take();
	assert_backends("10.0.0.1:6443 10.0.0.2:6443");
	assert_true(bare.config_pending);
	assert_non_null(bare.watch);
	assert_null(bare.discovery);
	assert_int_equal(bare.reloads_ok, 0);
	assert_string_equal(captured(), "");
}

static void a_good_file_is_taken(void **state)
{
	(void)state;
	write_config("10.0.0.1, 10.0.0.2", "", "");
	take();
	bare.config_pending = false;
	write_config("10.0.0.2, 10.0.0.3", "", "");
	reload();
	assert_backends("10.0.0.2:6443 10.0.0.3:6443");
	assert_int_equal(bare.reloads_ok, 1);
	assert_int_equal(bare.reloads_failed, 0);
	assert_false(bare.reload_refused);
	/* For when there is something to write it to. */
	assert_true(bare.config_pending);
	assert_true(bare.dirty);
	assert_non_null(strstr(captured(), "level=info msg=\"configuration reloaded\""));
	assert_non_null(strstr(captured(), " backends=2\n"));
}

static void a_bad_file_changes_nothing(void **state)
{
	static const char *const bad[] = { "backends: [", "backends: [10.0.0.9]\nslowStart: soon\n",
					   "backends: [10.0.0.9]\nprobe: {ca: /nonexistent/ca}\n" };
	struct agent_backend *backend;
	struct probe_tls *tls;
	struct config *file;

	(void)state;
	write_config("10.0.0.1", "", "");
	take();
	file = bare.file;
	tls = bare.tls;
	backend = bare.backends[0];
	bare.config_pending = false;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		write_file(bare.options->config_path, bad[i]);
		reload();
		assert_int_equal(bare.reloads_failed, i + 1);
		assert_true(bare.reload_refused);
		assert_ptr_equal(bare.file, file);
		assert_ptr_equal(bare.tls, tls);
		assert_ptr_equal(bare.backends[0], backend);
		assert_backends("10.0.0.1:6443");
		assert_false(bare.config_pending);
	}
	assert_non_null(strstr(captured(), "level=error msg=\"configuration not reloaded, the old "
					   "one stays\" error=\""));
	unlink(bare.options->config_path);
	reload();
	assert_int_equal(bare.reloads_failed, ARRAY_SIZE(bad) + 1);
	assert_backends("10.0.0.1:6443");
	/* A good one ends that. */
	write_config("10.0.0.2", "", "");
	reload();
	assert_false(bare.reload_refused);
	assert_int_equal(bare.reloads_ok, 1);
	assert_backends("10.0.0.2:6443");
}

/* What is in the files counts: their probes would be the same. */
static void certificates_that_are_the_same_stay(void **state)
{
	struct probe_tls *tls;

	(void)state;
	write_config("10.0.0.1", "", "");
	take();
	tls = bare.tls;
	write_config("10.0.0.1, 10.0.0.2", "", "");
	reload();
	assert_ptr_equal(bare.tls, tls);
	write_config("10.0.0.1", ", insecureSkipVerify: true", "");
	reload();
	assert_ptr_not_equal(bare.tls, tls);
	assert_non_null(strstr(captured(), "certificates are NOT verified"));
}

/* --- backends that stay ------------------------------------------------------------------ */

static void a_backend_that_stays_keeps_its_probe(void **state)
{
	struct agent_backend *two;

	(void)state;
	write_config("10.0.0.1, 10.0.0.2", "", "");
	take();
	two = bare.backends[1];
	write_config("10.0.0.2, 10.0.0.3", "", "");
	reload();
	assert_ptr_equal(bare.backends[0], two);
	assert_backends("10.0.0.2:6443 10.0.0.3:6443");
}

/* What needs no other connection keeps it, and all else of the backend. */
static void other_rules_keep_the_connection(void **state)
{
	struct agent_backend *one;
	struct liveness *liveness;
	struct probe *probe;

	(void)state;
	write_config("10.0.0.1", "", "");
	take();
	one = bare.backends[0];
	probe = one->probe;
	liveness = one->liveness;
	one->health.state = KLB_STATE_DRAINING;
	one->metrics.count = 7;
	write_config("10.0.0.2, 10.0.0.1", ", interval: 7s, rise: 3, fall: 4", "");
	reload();
	assert_ptr_equal(bare.backends[1], one);
	assert_ptr_equal(one->probe, probe);
	assert_ptr_equal(one->liveness, liveness);
	assert_null(one->next.kept);
	assert_int_equal(one->rules.interval_ms, 7000);
	assert_int_equal(one->rules.rise, 3);
	assert_int_equal(one->rules.fall, 4);
	assert_int_equal(agent_backend_health(one)->state, KLB_STATE_DRAINING);
	assert_int_equal(agent_backend_metrics(one)->count, 7);
	assert_int_equal(agent_backend_health(bare.backends[0])->state, KLB_STATE_UNKNOWN);
	write_config("10.0.0.2, 10.0.0.1", ", interval: 7s, rise: 3, fall: 4, ping: 3s", "");
	reload();
	assert_ptr_equal(one->probe, probe);
	assert_int_equal(one->liveness_rules.ping_ms, 3000);
}

/* In how many milliseconds; -1: not at all. */
static long long due_ms(struct event *event)
{
	struct timeval at, now, left;

	if (!event || !event_pending(event, EV_TIMEOUT, &at))
		return -1;
	assert_int_equal(gettimeofday(&now, NULL), 0);
	timersub(&at, &now, &left);
	return left.tv_sec * 1000LL + left.tv_usec / 1000;
}

/* The connection stays until the new one comes, at a time of its own; its verdict stays, too. */
static void another_connection_comes_later(void **state)
{
	struct agent_backend *one;
	struct probe *probe;

	(void)state;
	write_config("10.0.0.1", "", "");
	take();
	one = bare.backends[0];
	probe = one->probe;
	one->health.state = KLB_STATE_READY;
	write_config("10.0.0.1", ", path: /livez", "");
	reload();
	assert_ptr_equal(bare.backends[0], one);
	assert_ptr_equal(one->probe, probe);
	assert_non_null(one->next.kept);
	assert_in_range(due_ms(one->renew_timer), 0, 5050);
	assert_int_equal(agent_backend_health(one)->state, KLB_STATE_READY);
	/* One that fails now may fail because of what has just been mended. */
	one->health.state = KLB_STATE_DRAINING;
	write_config("10.0.0.1", ", path: /healthz", "");
	reload();
	assert_true(event_pending(one->renew_timer, EV_TIMEOUT, NULL));
	assert_true(due_ms(one->renew_timer) <= 50);
	event_del(one->timer);
	while (one->next.kept)
		event_base_loop(bare.base, EVLOOP_ONCE);
	assert_true(one->probing);
}

/* A change a second must not put it off for ever. */
static void changes_in_a_row_put_nothing_off(void **state)
{
	long long due, first;

	(void)state;
	write_config("10.0.0.1", "", "");
	take();
	bare.backends[0]->health.state = KLB_STATE_READY;
	write_config("10.0.0.1", ", path: /a", "");
	reload();
	first = due_ms(bare.backends[0]->renew_timer);
	for (int i = 0; i < 20; i++) {
		write_config("10.0.0.1", i % 2 ? ", path: /a" : ", path: /b", "");
		reload();
		due = due_ms(bare.backends[0]->renew_timer);
		assert_true(due <= first + 20);
	}
}

/* What cannot be put into force leaves nothing behind. */
static void a_change_that_fails_prepares_nothing(void **state)
{
	struct err e;
	struct agent_backend *one;

	(void)state;
	write_config("10.0.0.1", "", "");
	take();
	one = bare.backends[0];
	assert_int_equal(agent_backend_prepare(one, bare.config, bare.tls, &e), 0);
	assert_non_null(one->change);
	agent_forgo_backends(&bare);
	assert_null(one->change);
	agent_backend_renew(one, 0);
	assert_null(one->next.kept);
}

/* Where others serve, a new one is dialled at a time of its own; otherwise clients wait for it. */
static void new_backends_are_dialled_apart(void **state)
{
	long long most = 0;

	(void)state;
	write_config("10.0.0.1", ", interval: 300ms, timeout: 300ms", "");
	take();
	assert_true(due_ms(bare.backends[0]->timer) <= 50);
	write_config("10.0.0.1, 10.0.0.2", ", interval: 300ms, timeout: 300ms", "");
	reload();
	assert_true(due_ms(bare.backends[1]->timer) <= 50);
	bare.backends[0]->health.state = KLB_STATE_READY;
	write_config("10.0.0.1, 10.0.1.1, 10.0.1.2, 10.0.1.3, 10.0.1.4, 10.0.1.5, 10.0.1.6, "
		     "10.0.1.7, 10.0.1.8, 10.0.1.9",
		     ", interval: 300ms, timeout: 300ms", "");
	reload();
	for (unsigned int i = 1; i < 10; i++) {
		long long due = due_ms(bare.backends[i]->timer);

		assert_true(due <= 5050);
		most = due > most ? due : most;
	}
	assert_true(most > 1000);
}

/* At the start it comes from the maps, if the agent that wrote them was alive until now. */
static void check_adoption(__u64 beat_ns, enum klb_state want)
{
	struct plan_backend *seen = &bare.state->applied.backends[0];

	bare.state->applied.n_backends = 1;
	seen->id = 1;
	seen->value.endpoint = endpoint("10.0.0.1");
	seen->value.state = KLB_STATE_DEAD;
	bare.state->control.heartbeat_ns = beat_ns;
	bare.state->control.heartbeat_max_age_ns = 3000000000ULL;
	write_config("10.0.0.1", "", "");
	take();
	assert_int_equal(agent_backend_health(bare.backends[0])->state, want);
}

static void an_agent_that_lived_is_believed(void **state)
{
	(void)state;
	check_adoption(clock_now_ns(), KLB_STATE_DEAD);
}

static void an_agent_that_is_long_dead_is_not(void **state)
{
	(void)state;
	check_adoption(clock_now_ns() - 4000000000ULL, KLB_STATE_UNKNOWN);
}

/* --- the tick ---------------------------------------------------------------------------- */

static void assert_tick(unsigned int ms)
{
	struct timeval at, now, left;

	assert_true(event_pending(bare.tick, EV_TIMEOUT, &at));
	assert_int_equal(gettimeofday(&now, NULL), 0);
	timersub(&at, &now, &left);
	/* It was set a moment ago, by a coarse clock. */
	assert_in_range(left.tv_sec * 1000 + left.tv_usec / 1000, ms / 2, ms + 50);
}

/* As often as probes are made, and once a second at least. */
static void the_pace_of_the_tick(void **state)
{
	(void)state;
	write_config("10.0.0.1", ", interval: 5s", "");
	take();
	agent_set_tick(&bare);
	assert_tick(1000);
	write_config("10.0.0.1", ", interval: 300ms, timeout: 300ms", "");
	reload();
	assert_tick(300);
}

/* With ten configurations a second it would be late each time. */
static void a_reload_does_not_put_the_tick_off(void **state)
{
	struct timeval before, after;

	(void)state;
	write_config("10.0.0.1", "", "");
	take();
	agent_set_tick(&bare);
	assert_true(event_pending(bare.tick, EV_TIMEOUT, &before));
	usleep(20000); /* more than the clock's grain */
	write_config("10.0.0.1", "", "connectTimeout: 900ms\n");
	reload();
	assert_int_equal(bare.config->connect_timeout_ms, 900);
	assert_true(event_pending(bare.tick, EV_TIMEOUT, &after));
	assert_true(timercmp(&before, &after, ==));
}

/* --- discovery --------------------------------------------------------------------------- */

/* cached: what the cache holds; NULL: there is none. */
static void take_with_discovery(const char *cached)
{
	char kubeconfig[PATH_SIZE], cache[PATH_SIZE], rest[512];

	snprintf(rest, sizeof(rest), "discovery: {kubeconfig: %s, cache: %s}\n",
		 in_dir(kubeconfig, "none"), in_dir(cache, "backends.json"));
	unlink(cache);
	if (cached)
		write_file(cache, cached);
	write_config("10.0.0.1, 10.0.0.2", "", rest);
	take();
	assert_non_null(bare.discovery);
}

#define CACHED                                                                              \
	"{\"kind\":\"kubelb-backends\",\"version\":1,\"written\":\"2026-01-02T03:04:05Z\"," \
	"\"backends\":[\"10.0.0.2:6443\",\"10.0.0.3:6443\"]}"

static void without_a_cache_the_seeds_count(void **state)
{
	(void)state;
	take_with_discovery(NULL);
	assert_backends("10.0.0.1:6443 10.0.0.2:6443");
	assert_false(agent_uses_seeds(&bare));
	assert_string_equal(captured(), "");
}

static void a_cache_that_is_no_good(void **state)
{
	(void)state;
	take_with_discovery("junk");
	assert_backends("10.0.0.1:6443 10.0.0.2:6443");
	assert_non_null(
		strstr(captured(), "level=warn msg=\"the cache of discovery is not used\""));
}

/* Nobody has said lately that the list is right: both count. */
static void a_cached_list_and_the_seeds(void **state)
{
	(void)state;
	take_with_discovery(CACHED);
	assert_backends("10.0.0.2:6443 10.0.0.3:6443 10.0.0.1:6443");
	assert_false(agent_uses_seeds(&bare));
	bare.heard = true;
	assert_true(agent_uses_seeds(&bare));
}

static void a_cached_list_that_was_heard(void **state)
{
	(void)state;
	bare.state->control.heartbeat_ns = clock_now_ns();
	bare.state->control.heartbeat_max_age_ns = 3000000000ULL;
	bare.state->control.discovery = KLB_DISCOVERY_CURRENT;
	take_with_discovery(CACHED);
	assert_backends("10.0.0.2:6443 10.0.0.3:6443");
	bare.heard = true;
	assert_false(agent_uses_seeds(&bare));
}

/* The cluster is heard, and one of its list takes connections: the seeds go. */
static void the_list_counts_alone_once_it_is_of_use(void **state)
{
	(void)state;
	take_with_discovery(CACHED);
	agent_review_list(&bare);
	assert_backends("10.0.0.2:6443 10.0.0.3:6443 10.0.0.1:6443");
	bare.heard = true;
	/* A seed's health is no matter. */
	bare.backends[2]->health.state = KLB_STATE_READY;
	agent_review_list(&bare);
	assert_backends("10.0.0.2:6443 10.0.0.3:6443 10.0.0.1:6443");
	bare.backends[1]->health.state = KLB_STATE_READY;
	agent_review_list(&bare);
	assert_backends("10.0.0.2:6443 10.0.0.3:6443");
	assert_int_equal(agent_backend_health(bare.backends[1])->state, KLB_STATE_READY);
	assert_non_null(strstr(captured(), "the cluster's apiservers alone count\" backends=2"));
}

/* It looks things up anew only where something about it is new. */
static void discovery_goes_on_over_a_reload(void **state)
{
	struct discovery *before;
	char rest[512], kubeconfig[PATH_SIZE], cache[PATH_SIZE];

	(void)state;
	take_with_discovery(CACHED);
	before = bare.discovery;
	snprintf(rest, sizeof(rest), "discovery: {kubeconfig: %s, cache: %s}\n",
		 in_dir(kubeconfig, "none"), in_dir(cache, "backends.json"));
	write_config("10.0.0.4", "", rest);
	reload();
	assert_ptr_equal(bare.discovery, before);
	assert_backends("10.0.0.2:6443 10.0.0.3:6443 10.0.0.4:6443");
	write_config("10.0.0.4", "", "");
	reload();
	assert_null(bare.discovery);
	assert_backends("10.0.0.4:6443");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, bare_open, bare_close)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_it_takes_of_privileges),
		TEST(the_first_file),
		TEST(a_good_file_is_taken),
		TEST(a_bad_file_changes_nothing),
		TEST(certificates_that_are_the_same_stay),
		TEST(a_backend_that_stays_keeps_its_probe),
		TEST(other_rules_keep_the_connection),
		TEST(another_connection_comes_later),
		TEST(changes_in_a_row_put_nothing_off),
		TEST(a_change_that_fails_prepares_nothing),
		TEST(new_backends_are_dialled_apart),
		TEST(an_agent_that_lived_is_believed),
		TEST(an_agent_that_is_long_dead_is_not),
		TEST(the_pace_of_the_tick),
		TEST(a_reload_does_not_put_the_tick_off),
		TEST(without_a_cache_the_seeds_count),
		TEST(a_cache_that_is_no_good),
		TEST(a_cached_list_and_the_seeds),
		TEST(a_cached_list_that_was_heard),
		TEST(the_list_counts_alone_once_it_is_of_use),
		TEST(discovery_goes_on_over_a_reload),
	};

	return cmocka_run_group_tests_name("reload", tests, pki_make, pki_remove);
}
