/* SPDX-License-Identifier: BSD-2-Clause */
/* This node's own backends in the list: they stay, or they alone do. */
#include <stdlib.h>
#include <string.h>

#include "balance/local_list.h"
#include "net/endpoint.h"
#include "unit.h"

/* 10.0.0.1 and fd00::1 are this node's, whatever the port. */
static void is_local(const struct klb_endpoint *endpoints, unsigned int n, bool *ret)
{
	const struct klb_endpoint v4 = endpoint("10.0.0.1"), v6 = endpoint("[fd00::1]:6443");

	for (unsigned int i = 0; i < n; i++)
		ret[i] = !memcmp(endpoints[i].addr, v4.addr, sizeof(v4.addr)) ||
			 !memcmp(endpoints[i].addr, v6.addr, sizeof(v6.addr));
}

struct list_case {
	const char *what;
	enum klb_local local;
	bool discovery;
	const char *listed[4], *seeds[4], *applied[4], *removed[4], *want[5];
	bool some_local;
};

#define PREFER KLB_LOCAL_PREFER
#define ONLY KLB_LOCAL_ONLY
#define IGNORE KLB_LOCAL_IGNORE
#define OTHERS "10.0.0.2", "10.0.0.3"

static const struct list_case cases[] = {
	{ "prefer, listed",
	  PREFER,
	  true,
	  { "10.0.0.1", OTHERS },
	  { NULL },
	  { NULL },
	  { NULL },
	  { "10.0.0.1", OTHERS },
	  true },
	{ "prefer, it has left the list: it stays",
	  PREFER,
	  true,
	  { OTHERS },
	  { NULL },
	  { "10.0.0.1", OTHERS },
	  { NULL },
	  { OTHERS, "10.0.0.1" },
	  true },
	{ "prefer, a seed that is not listed",
	  PREFER,
	  true,
	  { OTHERS },
	  { "10.0.0.1", "10.0.0.9" },
	  { NULL },
	  { NULL },
	  { OTHERS, "10.0.0.1" },
	  true },
	{ "prefer, both, once",
	  PREFER,
	  true,
	  { OTHERS },
	  { "10.0.0.1" },
	  { "10.0.0.1" },
	  { NULL },
	  { OTHERS, "10.0.0.1" },
	  true },
	{ "prefer, another port is another backend",
	  PREFER,
	  true,
	  { "10.0.0.1" },
	  { "10.0.0.1:7443" },
	  { NULL },
	  { NULL },
	  { "10.0.0.1", "10.0.0.1:7443" },
	  true },
	{ "prefer, another node's that has left goes",
	  PREFER,
	  true,
	  { "10.0.0.2" },
	  { "10.0.0.3" },
	  { OTHERS },
	  { NULL },
	  { "10.0.0.2" },
	  false },
	{ "prefer, removed before",
	  PREFER,
	  true,
	  { OTHERS },
	  { NULL },
	  { NULL },
	  { "10.0.0.1" },
	  { OTHERS },
	  false },
	{ "prefer, by a file that does not name it",
	  PREFER,
	  false,
	  { OTHERS },
	  { OTHERS },
	  { "10.0.0.1" },
	  { NULL },
	  { OTHERS },
	  false },
	{ "prefer, nothing listed",
	  PREFER,
	  true,
	  { NULL },
	  { NULL },
	  { "[fd00::1]" },
	  { NULL },
	  { "[fd00::1]" },
	  true },
	{ "only, listed",
	  ONLY,
	  true,
	  { "10.0.0.2", "10.0.0.1", "10.0.0.3" },
	  { NULL },
	  { NULL },
	  { NULL },
	  { "10.0.0.1" },
	  true },
	{ "only, it has left the list",
	  ONLY,
	  true,
	  { OTHERS },
	  { NULL },
	  { "10.0.0.1" },
	  { NULL },
	  { "10.0.0.1" },
	  true },
	{ "only, by a file",
	  ONLY,
	  false,
	  { "10.0.0.2", "10.0.0.1" },
	  { "10.0.0.2", "10.0.0.1" },
	  { NULL },
	  { NULL },
	  { "10.0.0.1" },
	  true },
	{ "only, two of this node",
	  ONLY,
	  false,
	  { "10.0.0.1", "10.0.0.2", "[fd00::1]" },
	  { NULL },
	  { NULL },
	  { NULL },
	  { "10.0.0.1", "[fd00::1]" },
	  true },
	{ "only, a worker",
	  ONLY,
	  true,
	  { OTHERS },
	  { "10.0.0.9" },
	  { OTHERS },
	  { NULL },
	  { OTHERS },
	  false },
	{ "ignore, it has left the list",
	  IGNORE,
	  true,
	  { OTHERS },
	  { "10.0.0.1" },
	  { "10.0.0.1" },
	  { NULL },
	  { OTHERS },
	  false },
	{ "ignore, listed",
	  IGNORE,
	  true,
	  { "10.0.0.1", OTHERS },
	  { NULL },
	  { NULL },
	  { NULL },
	  { "10.0.0.1", OTHERS },
	  false },
};

static void fill(struct plan *p, const char *const *list, bool removed)
{
	for (; *list; list++) {
		p->backends[p->n_backends].value.endpoint = endpoint(*list);
		p->backends[p->n_backends++].removed = removed;
	}
}

static void check(const struct list_case *c, struct config *file, struct plan *applied)
{
	struct klb_endpoint list[KLB_MAX_BACKENDS];
	bool some_local = !c->some_local;
	unsigned int n = 0, n_want = 0;

	file->local = c->local;
	file->discovery = c->discovery;
	for (; c->listed[n]; n++)
		list[n] = endpoint(c->listed[n]);
	for (; c->seeds[file->n_backends]; file->n_backends++)
		file->backends[file->n_backends].endpoint = endpoint(c->seeds[file->n_backends]);
	fill(applied, c->applied, false);
	fill(applied, c->removed, true);
	n = local_list_apply(file, applied, is_local, list, n, &some_local);
	for (; c->want[n_want]; n_want++) {
		const struct klb_endpoint want = endpoint(c->want[n_want]);

		if (n_want >= n || !endpoint_equal(&list[n_want], &want))
			fail_msg("%s: %s is missing", c->what, c->want[n_want]);
	}
	if (n != n_want || some_local != c->some_local)
		fail_msg("%s: %u backends, local %d", c->what, n, some_local);
}

static void by_mode(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct config *file = calloc(1, sizeof(*file));
		struct plan *applied = calloc(1, sizeof(*applied));

		assert_non_null(file);
		assert_non_null(applied);
		check(&cases[i], file, applied);
		free(file);
		free(applied);
	}
}

/* A full list has no room for one more. */
static void bounded(void **state)
{
	struct config file = { .local = KLB_LOCAL_PREFER, .discovery = true, .n_backends = 1 };
	struct klb_endpoint list[KLB_MAX_BACKENDS + 1];
	bool some_local;

	(void)state;
	file.backends[0].endpoint = endpoint("10.0.0.1");
	for (unsigned int i = 0; i <= KLB_MAX_BACKENDS; i++)
		list[i] = endpoint("10.0.0.2");
	assert_int_equal(
		local_list_apply(&file, NULL, is_local, list, KLB_MAX_BACKENDS, &some_local),
		KLB_MAX_BACKENDS);
	assert_memory_equal(&list[KLB_MAX_BACKENDS], &list[0], sizeof(list[0]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_mode),
		cmocka_unit_test(bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
