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
		bool http, low, all;
		struct privileges_need want;
	} cases[] = {
		{ false, false, false, { .pods = false, .low_port = false } },
		{ false, true, false, { .pods = false, .low_port = false } },
		{ true, false, false, { .pods = false, .low_port = false } },
		{ true, true, false, { .pods = false, .low_port = true } },
		{ true, false, true, { .pods = true, .low_port = false } },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct config cfg = { .n_frontends = 2, .http_enabled = cases[i].http };
		struct privileges_need need;

		cfg.http.port = cases[i].low ? 1023 : 1024;
		cfg.frontends[1].scope = cases[i].all ? KLB_SCOPE_ALL : KLB_SCOPE_HOST;
		agent_needs(&cfg, &need);
		assert_int_equal(need.pods, cases[i].want.pods);
		assert_int_equal(need.low_port, cases[i].want.low_port);
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
	agent_reload(&bare);
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
		agent_reload(&bare);
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
	agent_reload(&bare);
	assert_int_equal(bare.reloads_failed, ARRAY_SIZE(bad) + 1);
	assert_backends("10.0.0.1:6443");
	/* A good one ends that. */
	write_config("10.0.0.2", "", "");
	agent_reload(&bare);
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
	agent_reload(&bare);
	assert_ptr_equal(bare.tls, tls);
	write_config("10.0.0.1", ", insecureSkipVerify: true", "");
	agent_reload(&bare);
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
	agent_reload(&bare);
	assert_ptr_equal(bare.backends[0], two);
	assert_backends("10.0.0.2:6443 10.0.0.3:6443");
}

/* Another probe is no reason to doubt what the one before has found. */
static void health_outlives_its_probe(void **state)
{
	struct agent_backend *one;

	(void)state;
	write_config("10.0.0.1", "", "");
	take();
	one = bare.backends[0];
	one->health.state = KLB_STATE_DRAINING;
	one->metrics.count = 7;
	write_config("10.0.0.2, 10.0.0.1", ", interval: 7s", "");
	agent_reload(&bare);
	assert_ptr_not_equal(bare.backends[1], one);
	assert_int_equal(agent_backend_health(bare.backends[1])->state, KLB_STATE_DRAINING);
	assert_int_equal(agent_backend_metrics(bare.backends[1])->count, 7);
	assert_int_equal(agent_backend_health(bare.backends[0])->state, KLB_STATE_UNKNOWN);
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
	agent_reload(&bare);
	assert_tick(300);
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
	agent_reload(&bare);
	assert_ptr_equal(bare.discovery, before);
	assert_backends("10.0.0.2:6443 10.0.0.3:6443 10.0.0.4:6443");
	write_config("10.0.0.4", "", "");
	agent_reload(&bare);
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
		TEST(health_outlives_its_probe),
		TEST(an_agent_that_lived_is_believed),
		TEST(an_agent_that_is_long_dead_is_not),
		TEST(the_pace_of_the_tick),
		TEST(without_a_cache_the_seeds_count),
		TEST(a_cache_that_is_no_good),
		TEST(a_cached_list_and_the_seeds),
		TEST(a_cached_list_that_was_heard),
		TEST(the_list_counts_alone_once_it_is_of_use),
		TEST(discovery_goes_on_over_a_reload),
	};

	return cmocka_run_group_tests_name("reload", tests, pki_make, pki_remove);
}
