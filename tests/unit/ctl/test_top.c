/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelbctl top: rates, processes, the order, and lines that fit. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/top_draw.h"
#include "unit.h"

static struct top_sample *samples; /* two; too large for a stack */

static int set_up(void **state)
{
	(void)state;
	samples = calloc(2, sizeof(*samples));
	return samples ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	free(samples);
	return 0;
}

/* --- rates --- */

static void add(struct top_sample *s, const char *address, long long generation, long long opened,
		long long failed)
{
	struct top_backend *b = &s->backends[s->n_backends++];

	*b = (struct top_backend){ .id = 1,
				   .generation = generation,
				   .opened = opened,
				   .failed = failed,
				   .rate = -1,
				   .failed_rate = -1 };
	snprintf(b->address, sizeof(b->address), "%s", address);
	snprintf(b->state, sizeof(b->state), "ready");
}

static void rates(void **state)
{
	struct top_sample *before = &samples[0], *now = &samples[1];

	(void)state;
	add(before, "a", 1, 100, 5);
	add(before, "b", 1, 100, 0);
	add(before, "c", 1, 100, 0);
	add(now, "a", 1, 130, 6); /* goes on */
	add(now, "b", 2, 130, 0); /* another backend has the id */
	add(now, "c", 1, 7, 0); /* counts from 0 again */
	add(now, "d", 1, 130, 0); /* is new */
	top_set_rates(before, 2, now);
	assert_true(now->backends[0].rate == 15 && now->backends[0].failed_rate == 0.5);
	for (int i = 1; i < 4; i++)
		assert_true(now->backends[i].rate < 0 && now->backends[i].failed_rate < 0);
	now->backends[0].rate = -1;
	top_set_rates(before, 0, now);
	assert_true(now->backends[0].rate < 0);
}

static void backends_of_a_document(void **state)
{
	json_t *document = json_loads(
		"{\"backends\": [{\"id\": 3, \"generation\": 2, \"address\": \"192.0.2.1:6443\","
		"\"state\": \"dead\\u001b[31m\", \"why\": \"refused\", \"weight\": 7, "
		"\"weightOverride\": 7, \"active\": 1, \"connecting\": 2, \"opened\": 3, "
		"\"rttSeconds\": 0.5, \"failed\": {\"refused\": 4, \"other\": 5}}, {}]}",
		0, NULL);
	struct top_backend *b = samples->backends;

	(void)state;
	top_read_backends(document, samples);
	json_decref(document);
	assert_int_equal(samples->n_backends, 2);
	assert_string_equal(b->address, "192.0.2.1:6443");
	/* Whatever an agent says, no escape sequence reaches the terminal. */
	assert_string_equal(b->state, "dead?[31m");
	assert_int_equal(b->failed, 9);
	assert_true(b->overridden && b->rate < 0 && b->rtt_s == 0.5);
	top_read_backends(NULL, samples);
	assert_int_equal(samples->n_backends, 0);
}

/* --- processes --- */

static struct top_connection connection(const char *comm, __u32 pid, long long backend,
					__u64 age_ns, __u32 srtt_us)
{
	struct top_connection c = {
		.pid = pid, .backend = backend, .age_ns = age_ns, .srtt_us = srtt_us
	};

	memcpy(c.comm, comm, strlen(comm));
	return c;
}

static void processes(void **state)
{
	struct top_connection list[] = {
		connection("proxy", 20, 1, 9, 0),     connection("kubelet", 10, 2, 1, 3000),
		connection("kubelet", 10, 1, 9, 0),   connection("kubelet", 10, 2, 9, 1000),
		connection("kubelet", 11, 1, 1, 500),
	};
	const struct top_process *p = samples->processes;

	(void)state;
	top_count_processes(list, 5, 5, samples);
	assert_int_equal(samples->n_processes, 3);
	assert_int_equal(samples->more_processes, 0);
	assert_string_equal(p[0].name, "kubelet[10]");
	assert_int_equal(p[0].connections, 3);
	assert_int_equal(p[0].backends, 2);
	assert_int_equal(p[0].fresh, 1);
	/* The mean of those that have one. */
	assert_true(p[0].rtt_s > 0.00199 && p[0].rtt_s < 0.00201);
	assert_string_equal(p[1].name, "kubelet[11]");
	assert_string_equal(p[2].name, "proxy[20]");
	assert_true(p[2].rtt_s == 0);
	top_count_processes(NULL, 0, 5, samples);
	assert_int_equal(samples->n_processes, 0);
}

/* More than there is room for: those with the most connections stay. */
static void too_many_processes(void **state)
{
	struct top_connection list[TOP_PROCESSES_MAX + 12];
	size_t n = 0;

	(void)state;
	for (__u32 pid = 1; pid <= TOP_PROCESSES_MAX + 10; pid++)
		list[n++] = connection("x", pid, 1, 9, 0);
	list[n++] = connection("x", TOP_PROCESSES_MAX + 10, 1, 9, 0);
	list[n++] = connection("x", 1, 1, 9, 0);
	top_count_processes(list, n, 0, samples);
	assert_int_equal(samples->n_processes, TOP_PROCESSES_MAX);
	assert_int_equal(samples->more_processes, 10);
	assert_int_equal(samples->processes[0].connections, 2);
	assert_int_equal(samples->processes[1].connections, 2);
	assert_int_equal(samples->processes[2].connections, 1);
}

/* --- the order --- */

static void expect_order(const struct top_view *v, const char *want)
{
	char text[64] = "";

	top_sort_backends(v, samples);
	for (unsigned int i = 0; i < samples->n_backends; i++)
		strcat(strcat(text, i ? " " : ""), samples->backends[i].address);
	assert_string_equal(text, want);
}

static void order(void **state)
{
	struct top_view v = { .sort = TOP_SORT_BACKEND };

	(void)state;
	add(samples, "n10", 1, 0, 1);
	add(samples, "n9", 1, 0, 9);
	add(samples, "n1", 1, 0, 0);
	strcpy(samples->backends[0].state, "dead");
	samples->backends[0].failed_rate = 2;
	samples->backends[2].active = 1;
	expect_order(&v, "n1 n9 n10");
	v.reverse = true;
	expect_order(&v, "n10 n9 n1");
	v = (struct top_view){ .sort = TOP_SORT_STATE };
	expect_order(&v, "n1 n9 n10");
	v.sort = TOP_SORT_ACTIVE;
	expect_order(&v, "n1 n9 n10");
	/* What fails now goes before what has failed more. */
	v.sort = TOP_SORT_FAILED;
	expect_order(&v, "n10 n9 n1");
}

static void selection(void **state)
{
	struct top_view v = { .sort = TOP_SORT_BACKEND };

	(void)state;
	top_select(&v, samples, 1);
	assert_string_equal(v.selected, "");
	add(samples, "a", 1, 0, 0);
	add(samples, "b", 1, 0, 0);
	top_select(&v, samples, 0);
	assert_string_equal(v.selected, "a");
	top_select(&v, samples, -5);
	assert_string_equal(v.selected, "a");
	top_select(&v, samples, 5);
	assert_string_equal(v.selected, "b");
	strcpy(v.selected, "gone");
	top_select(&v, samples, 0);
	assert_string_equal(v.selected, "a");
}

/* --- lines --- */

static void expect_canvas(struct canvas *c, const char *want)
{
	char *text = NULL;
	size_t size = 0;

	c->to = open_memstream(&text, &size);
	assert_non_null(c->to);
	canvas_text(c, COLOR_BAD, "abcä");
	canvas_text(c, COLOR_NONE, "éfg");
	canvas_end(c);
	canvas_text(c, COLOR_NONE, "x");
	canvas_end(c);
	canvas_text(c, COLOR_NONE, "y");
	canvas_end(c);
	fclose(c->to);
	assert_string_equal(text, want);
	free(text);
}

static void lines(void **state)
{
	struct canvas plain = { 0 }, color = { .color = true };
	struct canvas small = { .columns = 5, .rows = 2, .screen = true };
	struct canvas exact = { .columns = 7, .rows = 3, .screen = true };

	(void)state;
	expect_canvas(&plain, "abcäéfg\nx\ny\n");
	expect_canvas(&color, "\033[31mabcä\033[0méfg\nx\ny\n");
	/* Cut by characters; no line feed in the last row, which would scroll. */
	expect_canvas(&small, "abcäé\nx\033[K");
	/* Nothing is cleared behind the last column: that would clear the last character. */
	expect_canvas(&exact, "abcäéfg\nx\033[K\ny\033[K");
	assert_int_equal(canvas_left(&plain), UINT_MAX);
	assert_int_equal(canvas_left(&small), 0);
}

static void colors_of_a_status(void **state)
{
	const char *text = "programs  5 attached, NOT ALL EFFECTIVE: run kubelb-load again\n"
			   "agent     SILENT for 9s: its verdicts do not count any more\n"
			   "config    REFUSED, the one before stays: dead\n"
			   "relay     rescue on\n"
			   "\n"
			   "FRONTEND       POLICY\n"
			   "127.0.0.1:6443 random\n"
			   "\n"
			   "BACKEND STATE WEIGHT WHY\n"
			   "a       dead     100 not ready\n"
			   "b       ready    100 no agent; its last word was dead (refused)\n";
	char *painted = NULL;
	size_t size = 0;
	FILE *to = open_memstream(&painted, &size);

	(void)state;
	assert_non_null(to);
	color_status(text, to);
	fclose(to);
	assert_string_equal(painted,
			    "programs  5 attached, \033[31mNOT ALL EFFECTIVE\033[0m: run "
			    "kubelb-load again\n"
			    "agent     \033[33mSILENT\033[0m for 9s: its verdicts do not count any "
			    "more\n"
			    "config    \033[33mREFUSED\033[0m, the one before stays: dead\n"
			    "relay     rescue on\n"
			    "\n"
			    "FRONTEND       POLICY\n"
			    "127.0.0.1:6443 random\n"
			    "\n"
			    "BACKEND STATE WEIGHT WHY\n"
			    "a       \033[31mdead\033[0m     100 not ready\n"
			    "b       \033[32mready\033[0m    100 no agent; its last word was dead "
			    "(refused)\n");
	free(painted);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(rates, set_up, tear_down),
		cmocka_unit_test_setup_teardown(backends_of_a_document, set_up, tear_down),
		cmocka_unit_test_setup_teardown(processes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(too_many_processes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(order, set_up, tear_down),
		cmocka_unit_test_setup_teardown(selection, set_up, tear_down),
		LEAVES_NOTHING(lines),
		LEAVES_NOTHING(colors_of_a_status),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
