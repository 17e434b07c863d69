/* SPDX-License-Identifier: BSD-2-Clause */
/* EndpointSlices, from a list and from a watch, to a list of backends. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "discovery/internal.h"
#include "net/endpoint.h"
#include "slices.h"
#include "unit.h"

#define TOKEN "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0.c2lnbmF0dXJl"

static const struct {
	const char *what, *text, *list;
	unsigned int not_ready, unusable;
} lists[] = {
	{ "one", LIST(V4("a", HTTPS, READY("10.0.0.1"))), "10.0.0.1:6443", 0, 0 },
	{ "sorted", LIST(V4("a", HTTPS, READY("10.0.0.2") "," READY("10.0.0.1"))),
	  "10.0.0.1:6443 10.0.0.2:6443", 0, 0 },
	{ "both families",
	  LIST(V6("a", HTTPS, READY("fd00::1")) "," V4("b", HTTPS, READY("10.0.0.1"))),
	  "10.0.0.1:6443 [fd00::1]:6443", 0, 0 },
	{ "several slices, one address twice",
	  LIST(V4("a", HTTPS, READY("10.0.0.1") "," READY("10.0.0.2")) "," V4(
		  "b", HTTPS, READY("10.0.0.2") "," READY("10.0.0.3"))),
	  "10.0.0.1:6443 10.0.0.2:6443 10.0.0.3:6443", 0, 0 },
	{ "twice in one", LIST(V4("a", HTTPS, READY("10.0.0.1") "," READY("10.0.0.1"))),
	  "10.0.0.1:6443", 0, 0 },
	{ "IPv4 as IPv6", LIST(V6("a", HTTPS, READY("::ffff:10.0.0.1"))), "10.0.0.1:6443", 0, 0 },
	{ "conditions absent, empty, null",
	  LIST(V4("a", HTTPS,
		  "{\"addresses\":[\"10.0.0.1\"]},"
		  "{\"addresses\":[\"10.0.0.2\"],\"conditions\":{}},"
		  "{\"addresses\":[\"10.0.0.3\"],\"conditions\":{\"ready\":null}}")),
	  "10.0.0.1:6443 10.0.0.2:6443 10.0.0.3:6443", 0, 0 },
	{ "not ready, though serving",
	  LIST(V4("a", HTTPS,
		  READY("10.0.0.1") ",{\"addresses\":[\"10.0.0.2\"],\"conditions\":{\"ready\":"
				    "false,\"serving\":true,\"terminating\":true}}")),
	  "10.0.0.1:6443", 1, 0 },
	{ "the port named https",
	  LIST(V4("a",
		  "\"ports\":[{\"name\":\"metrics\",\"port\":1},{\"name\":\"https\",\"port\":443}]",
		  READY("10.0.0.1"))),
	  "10.0.0.1:443", 0, 0 },
	{ "the only port", LIST(V4("a", "\"ports\":[{\"port\":8443}]", READY("10.0.0.1"))),
	  "10.0.0.1:8443", 0, 0 },
	{ "the only TCP port",
	  LIST(V4("a", "\"ports\":[{\"port\":53,\"protocol\":\"UDP\"},{\"port\":8443}]",
		  READY("10.0.0.1"))),
	  "10.0.0.1:8443", 0, 0 },
	{ "which of two ports",
	  LIST(V4("a", "\"ports\":[{\"name\":\"a\",\"port\":1},{\"name\":\"b\",\"port\":2}]",
		  READY("10.0.0.1"))),
	  "", 0, 1 },
	{ "no port", LIST(V4("a", "\"ports\":[]", READY("10.0.0.1"))), "", 0, 1 },
	{ "port null",
	  LIST(V4("a", "\"ports\":[{\"name\":\"https\",\"port\":null}]", READY("10.0.0.1"))), "", 0,
	  1 },
	{ "ports out of range",
	  LIST(V4("a", "\"ports\":[{\"name\":\"https\",\"port\":0}]",
		  READY("10.0.0.1")) "," V4("b", "\"ports\":[{\"name\":\"https\",\"port\":65536}]",
					    READY("10.0.0.1")) "," V4("c",
								      "\"ports\":[{\"name\":"
								      "\"https\",\"port\":-1}]",
								      READY("10.0.0.1"))),
	  "", 0, 3 },
	{ "not addresses",
	  LIST(V4("a", HTTPS,
		  READY("10.0.0.1:80") "," READY("[::1]:1") "," READY("localhost") "," READY("") "," READY("10.0.0") "," READY(
			  "10.0.0.1%eth0") "," READY("::2") ",{},"
							    "{\"addresses\":[]},{\"addresses\":[7]}"
							    ",7,null") "," V6("b", HTTPS,
									      READY("10.0.0.1") "," READY(
										      "10.0.0.1:"
										      "6443") "," READY("[fd00::1]"))),
	  "", 0, 15 },
	{ "addresses that no apiserver has",
	  LIST(V4("a", HTTPS,
		  READY("127.0.0.1") "," READY("127.8.8.8") "," READY("0.0.0.0") "," READY(
			  "224.0."
			  "0.1") "," READY("255.255.255.255") "," READY("169.254.1.1")) "," V6("b",
											       HTTPS,
											       READY("::1") "," READY("::") "," READY("ff02::1") "," READY(
												       "fe80::1") "," READY("::ffff:127.0.0.1"))),
	  "", 0, 11 },
	{ "a frontend",
	  LIST(V4("a", "\"ports\":[{\"port\":443}]", READY("10.96.0.1") "," READY("10.0.0.1"))),
	  "10.0.0.1:443", 0, 1 },
	{ "a name",
	  LIST("{" META("a") ",\"addressType\":\"FQDN\"," HTTPS
			     ",\"endpoints\":[" READY("10.0.0.1") "]}"),
	  "", 0, 1 },
	{ "another Service's",
	  LIST("{\"metadata\":{\"name\":\"x\",\"labels\":{\"kubernetes.io/service-name\":\"web\"}},"
	       "\"addressType\":\"IPv4\"," HTTPS ",\"endpoints\":[" READY("10.0.0.9") "]}"),
	  "", 0, 0 },
	{ "none", LIST(""), "", 0, 0 },
	{ "null items",
	  "{\"kind\":\"EndpointSliceList\",\"metadata\":{\"resourceVersion\":\"42\"},\"items\":"
	  "null}",
	  "", 0, 0 },
	{ "null endpoints",
	  LIST("{" META("a") ",\"addressType\":\"IPv4\",\"ports\":null,\"endpoints\":null}"), "", 0,
	  0 },
};

static void test_lists(void **state)
{
	const struct klb_endpoint frontend = endpoint("10.96.0.1:443");
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(lists); i++) {
		char version[DISCOVERY_VERSION_MAX + 1] = "";
		struct slices s = { 0 };
		struct slices_merged m;
		struct err e;

		if (slices_list(&s, lists[i].text, strlen(lists[i].text), version, &e))
			fail_msg("%s: %s", lists[i].what, e.text);
		assert_string_equal(version, "42");
		slices_merge(&s, &frontend, 1, &m);
		if (strcmp(list_text(m.list, m.n), lists[i].list) != 0 ||
		    m.not_ready != lists[i].not_ready || m.unusable != lists[i].unusable)
			fail_msg("%s: '%s', %u not ready, %u unusable", lists[i].what,
				 list_text(m.list, m.n), m.not_ready, m.unusable);
		slices_clear(&s);
	}
}

static const struct {
	const char *text, *says;
} bad_lists[] = {
	{ "", "not JSON" },
	{ "{", "not JSON" },
	{ "[]", "not a JSON object" },
	{ "\"x\"", "not JSON" },
	{ "<html>", "not JSON" },
	{ "{\"kind\":\"Status\"}", "'Status'" },
	{ "{\"kind\":7}", "not an EndpointSliceList" },
	{ "{\"kind\":\"EndpointSliceList\",\"items\":[]}", "resourceVersion" },
	{ "{\"kind\":\"EndpointSliceList\",\"metadata\":{\"resourceVersion\":\"1\"}}", "no items" },
	{ "{\"kind\":\"EndpointSliceList\",\"metadata\":{\"resourceVersion\":\"1\"},\"items\":{}}",
	  "no items" },
	{ "{\"kind\":\"EndpointSliceList\",\"metadata\":{\"resourceVersion\":\"1\",\"continue\":"
	  "\"x\"},\"items\":[]}",
	  "part" },
	{ "{\"kind\":\"EndpointSliceList\",\"metadata\":{\"resourceVersion\":"
	  "\"1\\r\\nX: y\"},\"items\":[]}",
	  "resourceVersion" },
	{ "{\"kind\":\"EndpointSliceList\",\"metadata\":{\"resourceVersion\":"
	  "\"1&watch=false\"},\"items\":[]}",
	  "resourceVersion" },
	{ "{\"kind\":\"EndpointSliceList\",\"metadata\":{\"resourceVersion\":"
	  "\"11111111111111111111111111111111111111111111111111111111111111111\"},\"items\":[]}",
	  "too long" },
	{ LIST("{\"metadata\":{}}"), "without a name" },
	{ LIST("7"), "without a name" },
};

/* Nothing of a bad list counts, and what was known stays. */
static void check_bad_list(const char *text, size_t length, const char *says)
{
	static const char good[] = LIST(V4("a", HTTPS, READY("10.0.0.1")));
	char version[DISCOVERY_VERSION_MAX + 1];
	struct slices s = { 0 };
	struct slices_merged m;
	struct err e;

	assert_int_equal(slices_list(&s, good, sizeof(good) - 1, version, &e), 0);
	assert_int_equal(slices_list(&s, text, length, version, &e), -EINVAL);
	assert_says(e.text, says);
	slices_merge(&s, NULL, 0, &m);
	assert_string_equal(list_text(m.list, m.n), "10.0.0.1:6443");
	assert_string_equal(version, "42");
	slices_clear(&s);
}

static void test_bad_lists(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(bad_lists); i++)
		check_bad_list(bad_lists[i].text, strlen(bad_lists[i].text), bad_lists[i].says);
}

static void test_list_limits(void **state)
{
	static const struct {
		const char *head, *piece;
		size_t n;
		const char *tail, *says;
	} cases[] = {
		{ "[", "[],", 600000, "[]]", "more than" },
		{ "", "[", 1000000, "", "more than" },
		{ "{\"a\":", "[", 60000, "", "not JSON" }, /* jansson has a limit of its own */
		{ "{\"kind\":\"", "x", 2000000, "\"}", "not an EndpointSliceList" },
	};
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		char *text = repeat(cases[i].head, cases[i].piece, cases[i].n, cases[i].tail);

		check_bad_list(text, strlen(text), cases[i].says);
		free(text);
	}
}

static void test_many_endpoints(void **state)
{
	char version[DISCOVERY_VERSION_MAX + 1];
	char *text = many(1000, false);
	struct slices s = { 0 };
	struct slices_merged m;
	struct err e;

	(void)state;
	assert_int_equal(slices_list(&s, text, strlen(text), version, &e), 0);
	slices_merge(&s, NULL, 0, &m);
	assert_int_equal(m.n, KLB_MAX_BACKENDS);
	assert_int_equal(m.total, 1000);
	/* The first by address, whatever order they came in. */
	assert_true(endpoint_equal(
		&m.list[0],
		&(struct klb_endpoint){ .addr = { [10] = 255, 255, 10, 0, 0, 1 }, .port = 6443 }));
	assert_int_equal(m.list[63].addr[15], 64);
	free(text);
	text = many(SLICES_MAX, true);
	assert_int_equal(slices_list(&s, text, strlen(text), version, &e), 0);
	slices_merge(&s, NULL, 0, &m);
	assert_int_equal(m.n, KLB_MAX_BACKENDS);
	free(text);
	slices_clear(&s);
	text = many(SLICES_MAX + 1, true);
	check_bad_list(text, strlen(text), "more than 64 EndpointSlices");
	free(text);
}

static void test_events(void **state)
{
	static const struct {
		const char *text;
		enum slices_event event;
		const char *version, *list;
	} steps[] = {
		{ EVENT("ADDED", OBJECT("a", "1", READY("10.0.0.1"))), SLICES_EVENT_CHANGE, "1",
		  "10.0.0.1:6443" },
		{ EVENT("ADDED", OBJECT("b", "2", READY("10.0.0.2"))), SLICES_EVENT_CHANGE, "2",
		  "10.0.0.1:6443 10.0.0.2:6443" },
		{ BOOKMARK("9"), SLICES_EVENT_BOOKMARK, "9", "10.0.0.1:6443 10.0.0.2:6443" },
		{ EVENT("MODIFIED", OBJECT("a", "10", READY("10.0.0.3"))), SLICES_EVENT_CHANGE,
		  "10", "10.0.0.2:6443 10.0.0.3:6443" },
		{ EXPIRED, SLICES_EVENT_EXPIRED, "10", "10.0.0.2:6443 10.0.0.3:6443" },
		{ EVENT("DELETED", OBJECT("a", "11", READY("10.0.0.3"))), SLICES_EVENT_CHANGE, "11",
		  "10.0.0.2:6443" },
		{ EVENT("DELETED", OBJECT("nobody", "12", "")), SLICES_EVENT_CHANGE, "12",
		  "10.0.0.2:6443" },
		/* It went over to another Service. */
		{ EVENT("MODIFIED", "{\"kind\":\"EndpointSlice\",\"metadata\":{\"name\":\"b\","
				    "\"resourceVersion\":\"13\"}}"),
		  SLICES_EVENT_CHANGE, "13", "" },
	};
	char version[DISCOVERY_VERSION_MAX + 1] = "";
	struct slices s = { 0 };
	enum slices_event event;
	struct slices_merged m;
	struct err e;
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		if (slices_watch(&s, steps[i].text, strlen(steps[i].text), version, &event, &e))
			fail_msg("%s: %s", steps[i].text, e.text);
		assert_int_equal(event, steps[i].event);
		assert_string_equal(version, steps[i].version);
		slices_merge(&s, NULL, 0, &m);
		assert_string_equal(list_text(m.list, m.n), steps[i].list);
	}
	slices_clear(&s);
}

static void test_bad_events(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "", "not JSON" },
		{ "{}", "an event about" },
		{ "{\"type\":\"ADDED\"}", "an event about" },
		{ EVENT("ADDED", "{\"kind\":\"Pod\"}"), "'Pod'" },
		{ EVENT("RENAMED", OBJECT("a", "1", "")), "'RENAMED'" },
		{ EVENT("ADDED", OBJECT("a", "", "")), "resourceVersion" },
		{ EVENT("ADDED", OBJECT("a", "1 2", "")), "resourceVersion" },
		{ EVENT("ADDED", OBJECT("", "1", "")), "without a name" },
		{ EVENT("BOOKMARK", "{\"kind\":\"EndpointSlice\"}"), "resourceVersion" },
		{ EVENT("ERROR", "{\"kind\":\"Status\",\"code\":500,\"reason\":\"InternalError\","
				 "\"message\":\"" TOKEN "\"}"),
		  "500 InternalError" },
		{ EVENT("ERROR", "{}"), "ended the watch" },
		{ EVENT("ADDED", "{\"kind\":\"EndpointSlice\""), "not JSON" },
	};
	char version[DISCOVERY_VERSION_MAX + 1] = "7";
	struct slices s = { 0 };
	enum slices_event event;
	struct err e;
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(
			slices_watch(&s, cases[i].text, strlen(cases[i].text), version, &event, &e),
			-EINVAL);
		assert_says(e.text, cases[i].says);
		assert_null(strstr(e.text, TOKEN));
		assert_string_equal(version, "7");
		assert_int_equal(s.n, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(test_lists),	  LEAVES_NOTHING(test_bad_lists),
		LEAVES_NOTHING(test_list_limits), LEAVES_NOTHING(test_many_endpoints),
		LEAVES_NOTHING(test_events),	  LEAVES_NOTHING(test_bad_events),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
