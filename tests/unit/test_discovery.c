/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Discovery: its pure parts by tables, the whole of it against a real TLS server in
 * the same event loop, which says exactly what a test tells it to, and when.
 */
#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <dirent.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/listener.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/clock.h"
#include "net/http_response.h"
#include "discovery/internal.h"
#include "net/endpoint.h"
#include "host/node.h"
#include "pki.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* A condition that has not come about by then never will, even under valgrind. */
#define PATIENCE_S 60
#define PATH_MAX_TEST 128

#define LIST_PATH                                                     \
	"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices" \
	"?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes"
#define TOKEN "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0.c2lnbmF0dXJl"

static struct {
	char dir[64];
	struct identity ca, other_ca, server, client, renewed;
} pki;

static const char *in_dir(char *buf, const char *name)
{
	snprintf(buf, PATH_MAX_TEST, "%s/%s", pki.dir, name);
	return buf;
}

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static char *read_file(const char *path)
{
	static char text[65536];
	FILE *f = fopen(path, "r");

	assert_non_null(f);
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	fclose(f);
	return text;
}

static void write_client(const struct identity *id)
{
	char path[PATH_MAX_TEST];

	/* As kubelet-client-current.pem: both in one. */
	pki_write_cert(in_dir(path, "client.pem"), id->cert);
	pki_write_key(path, "a", id->key, NULL);
}

static int make_pki(void **state)
{
	char path[PATH_MAX_TEST];

	(void)state;
	snprintf(pki.dir, sizeof(pki.dir), "/tmp/test_discovery.XXXXXX");
	assert_non_null(mkdtemp(pki.dir));
	pki.ca = pki_issue(NULL, "ca", NULL, 86400);
	pki.other_ca = pki_issue(NULL, "other ca", NULL, 86400);
	pki.server = pki_issue(&pki.ca, "apiserver",
			       "IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc",
			       86400);
	pki.client = pki_issue(&pki.ca, "first", NULL, 86400);
	pki.renewed = pki_issue(&pki.ca, "second", NULL, 86400);
	pki_write_cert(in_dir(path, "ca.crt"), pki.ca.cert);
	pki_write_cert(in_dir(path, "other-ca.crt"), pki.other_ca.cert);
	write_client(&pki.client);
	return 0;
}

static void remove_dir(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	char name[512];

	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		if (unlink(name) < 0)
			remove_dir(name);
	}
	closedir(dir);
	rmdir(path);
}

static int remove_pki(void **state)
{
	(void)state;
	remove_dir(pki.dir);
	pki_discard(&pki.ca);
	pki_discard(&pki.other_ca);
	pki_discard(&pki.server);
	pki_discard(&pki.client);
	pki_discard(&pki.renewed);
	return 0;
}

/* "10.0.0.1:6443 10.0.0.2:6443" */
static const char *list_text(const struct klb_endpoint *list, unsigned int n)
{
	static char text[KLB_MAX_BACKENDS * ENDPOINT_TEXT_MAX];
	char one[ENDPOINT_TEXT_MAX];
	size_t length = 0;
	unsigned int i;

	text[0] = '\0';
	for (i = 0; i < n; i++)
		length += (size_t)snprintf(text + length, sizeof(text) - length, "%s%s",
					   i ? " " : "", endpoint_format(&list[i], one));
	return text;
}

static struct klb_endpoint endpoint(const char *text)
{
	struct klb_endpoint ep;
	struct err e;

	if (endpoint_parse(text, 0, &ep, &e) != 0)
		fail_msg("%s", e.text);
	return ep;
}

static void assert_says(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("'%s' does not say '%s'", text, part);
	assert_null(strpbrk(text, "\n\r"));
}

/*
 * Slices to a list
 */

#define META(name)                                                                   \
	"\"metadata\":{\"name\":\"" name "\",\"resourceVersion\":\"7\",\"labels\":{" \
	"\"kubernetes.io/service-name\":\"kubernetes\"}}"
#define HTTPS "\"ports\":[{\"name\":\"https\",\"port\":6443,\"protocol\":\"TCP\"}]"
#define V4(name, ports, endpoints) \
	"{" META(name) ",\"addressType\":\"IPv4\"," ports ",\"endpoints\":[" endpoints "]}"
#define V6(name, ports, endpoints) \
	"{" META(name) ",\"addressType\":\"IPv6\"," ports ",\"endpoints\":[" endpoints "]}"
#define READY(address) "{\"addresses\":[\"" address "\"],\"conditions\":{\"ready\":true}}"
#define LIST(items)                                                                  \
	"{\"kind\":\"EndpointSliceList\",\"metadata\":{\"resourceVersion\":\"42\"}," \
	"\"items\":[" items "]}"

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

		if (slices_list(&s, lists[i].text, strlen(lists[i].text), version, &e) < 0)
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

/* head, then n times piece, then tail; to be freed. */
static char *repeat(const char *head, const char *piece, size_t n, const char *tail)
{
	size_t length = strlen(piece), i;
	char *text = malloc(strlen(head) + n * length + strlen(tail) + 1), *at = text;

	assert_non_null(text);
	at = stpcpy(at, head);
	for (i = 0; i < n; i++)
		at = stpcpy(at, piece);
	strcpy(at, tail);
	return text;
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

/* n slices with one endpoint each, or one with n; to be freed. */
static char *many(unsigned int n, bool slices)
{
	char *text = malloc(256 + n * 256UL), *at = text;
	unsigned int i;

	assert_non_null(text);
	at += sprintf(at, "{\"kind\":\"EndpointSliceList\",\"metadata\":{\"resourceVersion\":"
			  "\"42\"},\"items\":[");
	for (i = 0; i < n; i++) {
		if (slices || !i)
			at += sprintf(at,
				      "%s{\"metadata\":{\"name\":\"s%u\",\"labels\":{"
				      "\"kubernetes.io/service-name\":\"kubernetes\"}},"
				      "\"addressType\":\"IPv4\"," HTTPS ",\"endpoints\":[",
				      i ? "," : "", i);
		/* The largest first. */
		at += sprintf(at, "%s{\"addresses\":[\"10.0.%u.%u\"]}", slices || !i ? "" : ",",
			      (n - i) / 256, (n - i) % 256);
		if (slices || i == n - 1)
			at += sprintf(at, "]}");
	}
	sprintf(at, "]}");
	return text;
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

#define EVENT(type, object) "{\"type\":\"" type "\",\"object\":" object "}"
/* An EndpointSlice of its own says what it is. */
#define OBJECT(name, version, endpoints)                                                     \
	"{\"kind\":\"EndpointSlice\",\"metadata\":{\"name\":\"" name                         \
	"\",\"resourceVersion\":\"" version "\",\"labels\":{\"kubernetes.io/service-name\":" \
	"\"kubernetes\"}},\"addressType\":\"IPv4\"," HTTPS ",\"endpoints\":[" endpoints "]}"
#define BOOKMARK(version) \
	EVENT("BOOKMARK", \
	      "{\"kind\":\"EndpointSlice\",\"metadata\":{\"resourceVersion\":\"" version "\"}}")
#define EXPIRED EVENT("ERROR", "{\"kind\":\"Status\",\"code\":410,\"reason\":\"Expired\"}")

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

/*
 * Lines and answers
 */

static void test_text(void **state)
{
	struct text t = { 0 };
	size_t length, i;
	const char *line;

	(void)state;
	for (i = 0; i < 100000; i++) {
		assert_true(text_add(&t, "x", 1, 100001));
		assert_null(text_line(&t, &length));
	}
	assert_true(text_add(&t, "\n", 1, 100001));
	assert_false(text_add(&t, "y", 1, 100001));
	line = text_line(&t, &length);
	assert_non_null(line);
	assert_int_equal(length, 100000);
	text_drop(&t, length + 1);
	assert_int_equal(text_length(&t), 0);
	assert_true(text_add(&t, "a\n\nbc", 5, 5));
	assert_memory_equal(text_line(&t, &length), "a", 1);
	text_drop(&t, length + 1);
	assert_non_null(text_line(&t, &length));
	assert_int_equal(length, 0);
	text_drop(&t, 1);
	assert_null(text_line(&t, &length));
	assert_int_equal(text_length(&t), 2);
	text_free(&t);
}

static bool collect(void *arg, const void *bytes, size_t n)
{
	return text_add(arg, bytes, n, 100);
}

static void test_answer_content(void **state)
{
	static const struct {
		const char *text;
		enum answer_progress progress;
		const char *content;
		bool too_large;
	} cases[] = {
		{ "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", ANSWER_PROGRESS_DONE,
		  "hello", false },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ANSWER_PROGRESS_DONE, "", false },
		{ "HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
		  "2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
		  ANSWER_PROGRESS_DONE, "hello", false },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel",
		  ANSWER_PROGRESS_MORE, "hel", false },
		/* Where it ends, nobody can tell. */
		{ "HTTP/1.1 200 OK\r\n\r\nhello", ANSWER_PROGRESS_BAD, "", false },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello", ANSWER_PROGRESS_BAD,
		  "", false },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 51\r\n\r\n", ANSWER_PROGRESS_BAD, "", true },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n33\r\n",
		  ANSWER_PROGRESS_BAD, "", true },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff0\r\n",
		  ANSWER_PROGRESS_BAD, "", true },
	};
	size_t i, piece;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		for (piece = 1; piece <= strlen(cases[i].text); piece++) {
			enum answer_progress progress = ANSWER_PROGRESS_MORE;
			struct evbuffer *in = evbuffer_new();
			struct text t = { 0 };
			const char *content;
			struct answer a;
			size_t at, length;

			answer_init_content(&a, 50, collect, &t);
			for (at = 0; at < strlen(cases[i].text); at += piece) {
				evbuffer_add(in, cases[i].text + at,
					     strnlen(cases[i].text + at, piece));
				progress = answer_read(&a, in);
				if (progress != ANSWER_PROGRESS_MORE)
					break;
			}
			assert_int_equal(progress, cases[i].progress);
			content = text_all(&t, &length);
			assert_int_equal(length, strlen(cases[i].content));
			assert_memory_equal(content, cases[i].content, length);
			assert_int_equal(a.too_large, cases[i].too_large);
			text_free(&t);
			evbuffer_free(in);
		}
	}
}

/* More chunks than the lines of one answer may have bytes. */
static void test_answer_stream(void **state)
{
	enum answer_progress progress;
	struct evbuffer *in = evbuffer_new();
	struct text t = { 0 };
	struct answer a;
	unsigned int i;

	(void)state;
	answer_init_content(&a, SIZE_MAX, collect, &t);
	evbuffer_add_printf(in, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
	for (i = 0; i < 20000; i++) {
		evbuffer_add_printf(in, "1\r\nx\r\n");
		progress = answer_read(&a, in);
		assert_int_equal(progress, ANSWER_PROGRESS_MORE);
		text_drop(&t, text_length(&t));
	}
	evbuffer_add_printf(in, "0\r\n\r\n");
	assert_int_equal(answer_read(&a, in), ANSWER_PROGRESS_DONE);
	text_free(&t);
	evbuffer_free(in);
}

/*
 * Kubeconfigs
 */

#define CLUSTER(keys) "clusters:\n- name: c\n  cluster:\n    server: https://10.0.0.1:6443\n" keys
#define CONTEXT                                                                              \
	"current-context: x\ncontexts:\n- name: other\n  context: {cluster: no, user: no}\n" \
	"- name: x\n  context: {cluster: c, user: u}\n"
#define USER(keys) "users:\n- name: u\n  user:\n" keys

static struct credentials *kubeconfig(const char *text)
{
	struct credentials *c = NULL;
	struct err e;

	if (kubeconfig_parse(text, strlen(text), "/etc/k/config", &c, &e) < 0)
		fail_msg("%s", e.text);
	return c;
}

static void test_kubeconfig(void **state)
{
	struct credentials *c;

	(void)state;
	c = kubeconfig("apiVersion: v1\nkind: Config\npreferences: {}\n" CONTEXT CLUSTER(
		"    certificate-authority-data: aGVsbG8=\n    tls-server-name: kubernetes\n")
			       USER("    client-certificate: pki/client.pem\n"
				    "    client-key: /abs/client.pem\n    tokenFile: ../token\n"));
	assert_string_equal(c->host, "10.0.0.1");
	assert_int_equal(c->port, 6443);
	assert_string_equal(c->path, "");
	assert_string_equal(c->server_name, "kubernetes");
	assert_false(c->insecure);
	assert_int_equal(c->ca.length, 5);
	assert_memory_equal(c->ca.data, "hello", 5);
	assert_null(c->ca.file);
	assert_string_equal(c->cert.file, "/etc/k/pki/client.pem");
	assert_string_equal(c->key.file, "/abs/client.pem");
	assert_string_equal(c->token.file, "/etc/k/../token");
	assert_string_equal(c->cert.key, "/etc/k/config:19: users[u].user.client-certificate");
	credentials_free(c);

	/* Data goes before files, a token's file before a token, as with kubectl. */
	c = kubeconfig(CONTEXT CLUSTER("    insecure-skip-tls-verify: true\n") USER(
		"    client-certificate: a\n    client-certificate-data: |\n      aGVs\n      "
		"bG8=\n"
		"    client-key-data: \"aGVsbG8=\"\n    client-key: b\n    token: t\n"
		"    tokenFile: f\n"));
	assert_true(c->insecure);
	assert_null(c->cert.file);
	assert_memory_equal(c->cert.data, "hello", 5);
	assert_null(c->key.file);
	assert_string_equal(c->token.file, "/etc/k/f");
	assert_null(c->token.data);
	credentials_free(c);

	/* JSON is YAML; empty and null are absent; no user is anonymous. */
	c = kubeconfig("{\"current-context\":\"x\",\"contexts\":[{\"name\":\"x\",\"context\":"
		       "{\"cluster\":\"c\",\"user\":\"\"}}],\"clusters\":[{\"name\":\"c\","
		       "\"cluster\":{\"server\":\"https://h\",\"certificate-authority\":\"\","
		       "\"proxy-url\":null}}],\"users\":null}");
	assert_string_equal(c->host, "h");
	assert_int_equal(c->port, 443);
	assert_null(c->ca.key);
	assert_null(c->token.key);
	credentials_free(c);
}

static const struct {
	const char *text, *says;
} bad_kubeconfigs[] = {
	{ "", "no kubeconfig" },
	{ "- a\n", "no kubeconfig" },
	{ "a: [", ":2: YAML:" },
	{ "a: b\n---\na: b\n", "second document" },
	{ "contexts: []\n", "current-context: is missing" },
	{ "current-context: x\n", "no entry named 'x'" },
	{ "current-context: [x]\n", ":1: current-context: not a string" },
	{ "current-context: x\ncurrent-context: y\n", ":2: current-context: is there already" },
	{ "current-context: x\ncontexts: {}\n", ":2: contexts: not a list" },
	{ "current-context: x\ncontexts: [x]\n", "contexts[x]: not a mapping" },
	{ "current-context: x\ncontexts:\n- name: x\n", "contexts[x].context: is missing" },
	{ "current-context: x\ncontexts:\n- name: x\n  context: {user: u}\n",
	  "contexts[x].context.cluster: is missing" },
	{ CONTEXT, "clusters: no entry named 'c'" },
	{ CONTEXT "clusters:\n- name: c\n  cluster: {}\n",
	  "clusters[c].cluster.server: is missing" },
	{ CONTEXT "clusters:\n- name: c\n  cluster: {server: 'http://h'}\n",
	  ":9: clusters[c].cluster.server: does not begin with https://" },
	{ CONTEXT CLUSTER(""), "users: no entry named 'u'" },
	{ CONTEXT CLUSTER("") USER("    exec: {command: aws}\n"),
	  ":14: users[u].user.exec: discovery runs no credential plugins" },
	{ CONTEXT CLUSTER("") USER("    auth-provider: {name: gcp}\n"),
	  "users[u].user.auth-provider: discovery runs no credential plugins" },
	{ CONTEXT CLUSTER("") USER("    username: " TOKEN "\n"), "users[u].user.username: " },
	{ CONTEXT CLUSTER("") USER("    password: " TOKEN "\n"), "users[u].user.password: " },
	{ CONTEXT CLUSTER("") USER("    as: root\n"), "does not impersonate" },
	{ CONTEXT CLUSTER("") USER("    token: [" TOKEN "]\n"),
	  "users[u].user.token: not a string" },
	{ CONTEXT CLUSTER("") USER("    client-key-data: aGVsbG8=\n"),
	  "users[u].user: client-certificate is missing" },
	{ CONTEXT CLUSTER("") USER("    client-certificate: a\n"),
	  "users[u].user: client-key is missing" },
	{ CONTEXT CLUSTER("") USER("    client-key-data: \"" TOKEN "\"\n"),
	  ":14: users[u].user.client-key-data: not base64" },
	{ CONTEXT CLUSTER("") USER("    client-key-data: \"aGVsbG8=\"\n    client-key: x\n"),
	  "client-certificate is missing" },
	{ CONTEXT CLUSTER("") USER("    client-key-data: \"aGVsbG8\"\n"), "not base64" },
	{ CONTEXT CLUSTER("") USER("    client-key-data: \"aGVsbG8=x\"\n"), "not base64" },
	{ CONTEXT CLUSTER("") USER("    client-key-data: \"====\"\n"), "not base64" },
	{ CONTEXT CLUSTER("") USER("    client-key-data: \"aG=sbG8=\"\n"), "not base64" },
	{ CONTEXT CLUSTER("") USER("    client-key-data: \"aGVs----\"\n"), "not base64" },
	{ CONTEXT CLUSTER("    proxy-url: socks5://h\n") USER(""), "without a proxy" },
	{ CONTEXT CLUSTER("    insecure-skip-tls-verify: maybe\n") USER(""), "not a boolean" },
	{ CONTEXT CLUSTER("    insecure-skip-tls-verify: true\n    certificate-authority: x\n")
		  USER(""),
	  "remove one of the two" },
	{ CONTEXT CLUSTER("    tls-server-name: \"a b\"\n") USER(""),
	  "tls-server-name: not a DNS" },
	{ CONTEXT CLUSTER("    tls-server-name: \"a\\0b\"\n") USER(""), "a NUL" },
	{ CONTEXT CLUSTER("- name: c\n  cluster: {server: 'https://evil'}\n") USER(""),
	  "another entry of this name" },
};

static void test_bad_kubeconfigs(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(bad_kubeconfigs); i++) {
		struct credentials *c = NULL;
		struct err e;

		if (kubeconfig_parse(bad_kubeconfigs[i].text, strlen(bad_kubeconfigs[i].text),
				     "/etc/k/config", &c, &e) != -EINVAL)
			fail_msg("taken for good: %s", bad_kubeconfigs[i].text);
		assert_null(c);
		assert_ptr_equal(strstr(e.text, "/etc/k/config:"), e.text);
		assert_says(e.text, bad_kubeconfigs[i].says);
		assert_null(strstr(e.text, TOKEN));
	}
}

static void test_servers(void **state)
{
	static const struct {
		const char *url, *host; /* host NULL: refused */
		unsigned int port;
		const char *path;
	} cases[] = {
		{ "https://10.0.0.1:6443", "10.0.0.1", 6443, "" },
		{ "HTTPS://api.example.com", "api.example.com", 443, "" },
		{ "https://[fd00::1]:6443/", "fd00::1", 6443, "" },
		{ "https://[fd00::1]", "fd00::1", 443, "" },
		{ "https://h:1/k8s/clusters/c-1//", "h", 1, "/k8s/clusters/c-1" },
		{ "https://", NULL, 0, NULL },
		{ "https://:6443", NULL, 0, NULL },
		{ "https://h:", NULL, 0, NULL },
		{ "https://h:0", NULL, 0, NULL },
		{ "https://h:65536", NULL, 0, NULL },
		{ "https://h:99999999999", NULL, 0, NULL },
		{ "https://h:+1", NULL, 0, NULL },
		{ "https://h h", NULL, 0, NULL },
		{ "https://h\r\nX: y", NULL, 0, NULL },
		{ "https://h/a b", NULL, 0, NULL },
		{ "https://h/\r\nX: y", NULL, 0, NULL },
		{ "https://h?x", NULL, 0, NULL },
		{ "https://h/?x", NULL, 0, NULL },
		{ "https://u:p@h", NULL, 0, NULL },
		{ "https://[fd00::1", NULL, 0, NULL },
		{ "https://[fd00::1]6443", NULL, 0, NULL },
		{ "https://[x]", NULL, 0, NULL },
		{ "https://[]", NULL, 0, NULL },
		{ "https://fd00::1", NULL, 0, NULL },
		{ "http://h", NULL, 0, NULL },
		{ "h:6443", NULL, 0, NULL },
	};
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct credentials *c = calloc(1, sizeof(*c));
		struct err e;
		int rc = credentials_set_server(c, cases[i].url, &e);

		if (!rc != !!cases[i].host)
			fail_msg("%s: %d", cases[i].url, rc);
		if (!rc) {
			assert_string_equal(c->host, cases[i].host);
			assert_int_equal(c->port, cases[i].port);
			assert_string_equal(c->path, cases[i].path);
		}
		credentials_free(c);
	}
}

static void test_token_files(void **state)
{
	static const struct {
		const char *content;
		bool good;
	} cases[] = {
		{ TOKEN, true },	   { TOKEN "\n", true },
		{ TOKEN " \r\n\n", true }, { "", false },
		{ "\n", false },	   { TOKEN "\r\nX: y", false },
		{ TOKEN " x", false },	   { TOKEN "\xc3\xa4", false },
	};
	char path[PATH_MAX_TEST], dir[PATH_MAX_TEST];
	struct credentials *c;
	struct err e;
	size_t i;

	(void)state;
	assert_int_equal(mkdir(in_dir(dir, "sa"), 0700), 0);
	unsetenv("KUBERNETES_SERVICE_HOST");
	assert_true(credentials_load(NULL, dir, &c, &e) == -ENOENT);
	assert_says(e.text, "sa/token: no such file");
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		write_file(in_dir(path, "sa/token"), cases[i].content);
		if (!cases[i].good) {
			assert_int_equal(credentials_load(NULL, dir, &c, &e), -EINVAL);
			assert_says(e.text, "token");
			assert_null(strstr(e.text, TOKEN));
			continue;
		}
		assert_int_equal(credentials_load(NULL, dir, &c, &e), 0);
		assert_string_equal(c->token.data, TOKEN);
		assert_string_equal(c->host, "kubernetes.default.svc");
		assert_int_equal(c->port, 443);
		credentials_free(c);
	}
	write_file(path, TOKEN);
	setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
	setenv("KUBERNETES_SERVICE_PORT", "6443", 1);
	assert_int_equal(credentials_load(NULL, dir, &c, &e), 0);
	assert_string_equal(c->host, "fd00::1");
	assert_int_equal(c->port, 6443);
	credentials_free(c);
	setenv("KUBERNETES_SERVICE_HOST", "a b", 1);
	assert_int_equal(credentials_load(NULL, dir, &c, &e), -EINVAL);
	assert_says(e.text, "KUBERNETES_SERVICE_HOST");
	unsetenv("KUBERNETES_SERVICE_HOST");
	unsetenv("KUBERNETES_SERVICE_PORT");
	remove_dir(dir);
}

/*
 * The cache
 */

static void test_cache(void **state)
{
	struct klb_endpoint list[] = { endpoint("10.0.0.2:6443"), endpoint("[fd00::1]:443") };
	struct discovery_cached c;
	char path[PATH_MAX_TEST], temporary[PATH_MAX_TEST];
	struct stat st;
	struct err e;

	(void)state;
	in_dir(path, "folder/cache.json");
	assert_int_equal(discovery_cache_load(path, NULL, 0, &c, &e), -ENOENT);
	assert_int_equal(discovery_cache_save(path, list, 2, &e), 0);
	assert_int_equal(discovery_cache_load(path, NULL, 0, &c, &e), 0);
	assert_string_equal(list_text(c.list, c.n), "10.0.0.2:6443 [fd00::1]:443");
	assert_true(labs((long)(time(NULL) - c.written)) < PATIENCE_S);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(in_dir(temporary, "folder"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	/* What an earlier run left half done is no obstacle. */
	write_file(in_dir(temporary, "folder/cache.json.tmp"), "half");
	assert_int_equal(discovery_cache_save(path, list, 1, &e), 0);
	assert_int_equal(discovery_cache_load(path, NULL, 0, &c, &e), 0);
	assert_int_equal(c.n, 1);
	assert_int_equal(access(temporary, F_OK), -1);
	/* More than one level is somebody's mistake. */
	assert_int_equal(discovery_cache_save(in_dir(path, "a/b/cache.json"), list, 2, &e),
			 -ENOENT);
	assert_says(e.text, "a/b: cannot be created");
	assert_int_equal(discovery_cache_save("cache.json", list, 2, &e), -EINVAL);
	remove_dir(in_dir(path, "folder"));
}

#define CACHE(backends)                                                                     \
	"{\"kind\":\"kubelb-backends\",\"version\":1,\"written\":\"2026-01-02T03:04:05Z\"," \
	"\"backends\":[" backends "]}"

static void test_bad_caches(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "", "not JSON" },
		{ "{\"kind\":\"kubelb-backends\",\"version\":1,\"wri", "not JSON" },
		{ "[]", "not a cache" },
		{ "{}", "not a cache" },
		{ "{\"kind\":\"Pod\"}", "not a cache" },
		{ "{\"kind\":\"kubelb-backends\",\"version\":2}", "version is not 1" },
		{ "{\"kind\":\"kubelb-backends\",\"version\":\"1\"}", "version is not 1" },
		{ "{\"kind\":\"kubelb-backends\",\"version\":1,\"backends\":[\"10.0.0.1:6443\"]}",
		  "written" },
		{ "{\"kind\":\"kubelb-backends\",\"version\":1,\"written\":\"yesterday\"}",
		  "written" },
		{ CACHE(""), "backends: not a list of 1 to 64" },
		{ CACHE("7"), "backends[0]: not a string" },
		{ CACHE("\"10.0.0.1\""), "no port" },
		{ CACHE("\"10.0.0.1:0\""), "port" },
		{ CACHE("\"10.0.0.1:6443\",\"localhost:6443\""), "backends[1]" },
		{ CACHE("\"127.0.0.1:6443\""), "no apiserver has" },
		{ CACHE("\"[::1]:6443\""), "no apiserver has" },
		{ CACHE("\"0.0.0.0:6443\""), "no apiserver has" },
		{ CACHE("\"224.0.0.1:6443\""), "no apiserver has" },
		{ CACHE("\"10.96.0.1:443\""), "is a frontend" },
		{ CACHE("\"10.0.0.1:6443\",\"::ffff:10.0.0.1\""), "no port" },
		{ CACHE("\"10.0.0.1:6443\",\"[::ffff:10.0.0.1]:6443\""), "twice" },
	};
	const struct klb_endpoint frontend = endpoint("10.96.0.1:443");
	struct discovery_cached c = { .n = 7 };
	char path[PATH_MAX_TEST];
	struct err e;
	char *text;
	size_t i;

	(void)state;
	in_dir(path, "cache.json");
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		write_file(path, cases[i].text);
		if (discovery_cache_load(path, &frontend, 1, &c, &e) != -EINVAL)
			fail_msg("taken for good: %s", cases[i].text);
		assert_ptr_equal(strstr(e.text, path), e.text);
		assert_says(e.text, cases[i].says);
		assert_int_equal(c.n, 7);
	}
	text = repeat(CACHE("\"10.0.0.1:6443\"") "\n", " ", 70000, "");
	write_file(path, text);
	free(text);
	assert_int_equal(discovery_cache_load(path, &frontend, 1, &c, &e), -EINVAL);
	assert_says(e.text, "larger than");
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(discovery_cache_load(path, &frontend, 1, &c, &e), -EINVAL);
	unlink(path);
	write_file(path, CACHE("\"10.0.0.1:6443\""));
	assert_int_equal(chmod(path, 0666), 0);
	assert_int_equal(discovery_cache_load(path, &frontend, 1, &c, &e), -EACCES);
	assert_says(e.text, "others can write it");
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(discovery_cache_load(path, &frontend, 1, &c, &e), 0);
	assert_int_equal(c.n, 1);
	unlink(path);
}

/* In a process of its own, with no more than 64 bytes left in any file. */
static void test_cache_disk_full(void **state)
{
	struct klb_endpoint old = endpoint("10.0.0.1:6443"), new = endpoint("10.0.0.2:6443");
	char path[PATH_MAX_TEST], temporary[PATH_MAX_TEST];
	struct discovery_cached c;
	struct err e;
	int status;
	pid_t pid;

	(void)state;
	in_dir(path, "full.json");
	assert_int_equal(discovery_cache_save(path, &old, 1, &e), 0);
	pid = fork();
	if (!pid) {
		const struct rlimit limit = { 64, 64 };

		signal(SIGXFSZ, SIG_IGN);
		setrlimit(RLIMIT_FSIZE, &limit);
		_exit(discovery_cache_save(path, &new, 1, &e) == -EFBIG &&
				      strstr(e.text, "cannot be written")
			      ? 0
			      : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(discovery_cache_load(path, NULL, 0, &c, &e), 0);
	assert_string_equal(list_text(c.list, c.n), "10.0.0.1:6443");
	assert_int_equal(access(in_dir(temporary, "full.json.tmp"), F_OK), -1);
	unlink(path);
}

/*
 * The apiserver: does nothing by itself but accept and note what it is asked
 */

#define REQUESTS_MAX 256

struct server {
	struct event_base *base;
	struct evconnlistener *listener;
	struct klb_endpoint at;
	SSL_CTX *ctx;
	bool refuse; /* hangs up on whoever comes */
	bool mute; /* accepts, and shakes no hands */
	unsigned int accepted, requests, ended;
	struct bufferevent *now; /* the connection of the last request, while it lives */
	char path[512]; /* of the last request */
	char request[4096];
	char client[64]; /* the common name in its client's certificate */
	__u64 accepted_ns[REQUESTS_MAX];
};

static void on_server_event(struct bufferevent *bev, short what, void *arg)
{
	struct server *s = arg;

	if (what & BEV_EVENT_CONNECTED)
		return;
	s->ended++;
	if (s->now == bev)
		s->now = NULL;
	bufferevent_free(bev);
	ERR_clear_error();
}

static void note_client(struct server *s, struct bufferevent *bev)
{
	X509 *cert = SSL_get0_peer_certificate(bufferevent_openssl_get_ssl(bev));

	s->client[0] = '\0';
	if (cert)
		X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, s->client,
					  sizeof(s->client));
}

static void on_server_read(struct bufferevent *bev, void *arg)
{
	struct evbuffer *in = bufferevent_get_input(bev);
	struct server *s = arg;
	struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);

	if (end.pos < 0)
		return;
	assert_true((size_t)end.pos + 4 < sizeof(s->request));
	assert_int_equal(evbuffer_remove(in, s->request, (size_t)end.pos + 4), end.pos + 4);
	s->request[end.pos + 4] = '\0';
	assert_int_equal(sscanf(s->request, "GET %511s HTTP/1.1", s->path), 1);
	note_client(s, bev);
	s->now = bev;
	s->requests++;
}

static void on_accepted(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *from,
			int length, void *arg)
{
	struct server *s = arg;
	struct bufferevent *bev;

	(void)listener;
	(void)from;
	(void)length;
	s->accepted_ns[s->accepted++ % REQUESTS_MAX] = clock_now_ns();
	if (s->refuse) {
		close(fd);
		return;
	}
	if (s->mute)
		bev = bufferevent_socket_new(s->base, fd, BEV_OPT_CLOSE_ON_FREE);
	else
		bev = bufferevent_openssl_socket_new(s->base, fd, SSL_new(s->ctx),
						     BUFFEREVENT_SSL_ACCEPTING,
						     BEV_OPT_CLOSE_ON_FREE);
	assert_non_null(bev);
	bufferevent_setcb(bev, s->mute ? NULL : on_server_read, NULL, on_server_event, s);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
	s->now = s->mute ? bev : s->now;
}

static void server_start(struct server *s, struct event_base *base)
{
	struct klb_endpoint any = endpoint("127.0.0.1:1");
	struct sockaddr_storage ss;
	socklen_t length;

	s->base = base;
	any.port = 0;
	length = endpoint_to_sockaddr(&any, &ss);
	s->listener = evconnlistener_new_bind(base, on_accepted, s,
					      LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 16,
					      (struct sockaddr *)&ss, (int)length);
	assert_non_null(s->listener);
	length = sizeof(ss);
	assert_int_equal(
		getsockname(evconnlistener_get_fd(s->listener), (struct sockaddr *)&ss, &length),
		0);
	assert_int_equal(endpoint_from_sockaddr((struct sockaddr *)&ss, &s->at), 0);
	s->ctx = SSL_CTX_new(TLS_server_method());
	assert_int_equal(SSL_CTX_use_certificate(s->ctx, pki.server.cert), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(s->ctx, pki.server.key), 1);
	SSL_CTX_set_verify(s->ctx, SSL_VERIFY_PEER, NULL);
	assert_int_equal(X509_STORE_add_cert(SSL_CTX_get_cert_store(s->ctx), pki.ca.cert), 1);
	SSL_CTX_set_session_cache_mode(s->ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(s->ctx, 0);
}

/*
 * Discovery under test, and what it reported
 */

enum hook { HOOK_NONE, HOOK_FREE_IN_UPDATED, HOOK_FREE_IN_RESULT, HOOK_FREE_IN_WARNING };

struct world {
	struct event_base *base;
	struct server server;
	struct discovery_options options;
	struct discovery_timing timing;
	struct klb_endpoint frontends[2];
	char kubeconfig[PATH_MAX_TEST];
	struct discovery *discovery;
	enum hook hook;
	bool inside_start;
	unsigned int updates, warnings, results[DISCOVERY_RESULTS], ticks;
	char list[1024], detail[ERR_TEXT_MAX], warning[ERR_TEXT_MAX];
};

static void world_free_discovery(struct world *w)
{
	discovery_free(w->discovery);
	w->discovery = NULL;
}

static void check_line(const struct world *w, const char *text)
{
	assert_non_null(w->discovery); /* nothing is reported after discovery_free */
	assert_false(w->inside_start);
	assert_true(*text && !strpbrk(text, "\n\r"));
	assert_null(strstr(text, TOKEN));
}

static void on_updated(void *arg, const struct klb_endpoint *list, unsigned int n)
{
	struct world *w = arg;

	assert_true(n >= 1 && n <= KLB_MAX_BACKENDS);
	assert_false(w->inside_start);
	w->updates++;
	snprintf(w->list, sizeof(w->list), "%s", list_text(list, n));
	if (w->hook == HOOK_FREE_IN_UPDATED)
		world_free_discovery(w);
}

static void on_result(void *arg, enum discovery_result result, const char *detail)
{
	struct world *w = arg;

	check_line(w, detail);
	w->results[result]++;
	snprintf(w->detail, sizeof(w->detail), "%s", detail);
	if (w->hook == HOOK_FREE_IN_RESULT)
		world_free_discovery(w);
}

static void on_warning(void *arg, const char *text)
{
	struct world *w = arg;

	check_line(w, text);
	w->warnings++;
	snprintf(w->warning, sizeof(w->warning), "%s", text);
	if (w->hook == HOOK_FREE_IN_WARNING)
		world_free_discovery(w);
}

static const struct discovery_ops ops = { .updated = on_updated,
					  .result = on_result,
					  .warning = on_warning };

/* host: of the server's URL; cluster and user: further keys. */
static void write_kubeconfig(struct world *w, const char *host, const char *cluster,
			     const char *user)
{
	char text[4096];

	snprintf(text, sizeof(text),
		 "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"
		 "clusters:\n- name: c\n  cluster:\n    server: https://%s:%u\n%s"
		 "users:\n- name: u\n  user:\n    {%s}\n",
		 host, w->server.at.port, cluster, user);
	in_dir(w->kubeconfig, "kubeconfig");
	write_file(w->kubeconfig, text);
}

/* What a test changes before world_open. */
static void world_init(struct world *w)
{
	*w = (struct world){ .timing = discovery_timing_default };
	w->base = event_base_new();
	assert_non_null(w->base);
	server_start(&w->server, w->base);
	write_kubeconfig(w, "127.0.0.1", "    certificate-authority: ca.crt\n", "token: " TOKEN);
	w->timing.backoff_min = 10;
	w->timing.backoff_max = 40;
	w->timing.forbidden = 10;
	w->options.kubeconfig = w->kubeconfig;
	w->options.server = &w->server.at;
	w->frontends[0] = w->server.at;
	w->frontends[1] = endpoint("10.96.0.1:443");
	w->options.frontends = w->frontends;
	w->options.n_frontends = 2;
	w->options.timing = &w->timing;
}

static void world_start(struct world *w)
{
	struct err e;

	if (discovery_new(w->base, &w->options, &ops, w, &w->discovery, &e) < 0)
		fail_msg("%s", e.text);
	w->inside_start = true;
	discovery_start(w->discovery);
	w->inside_start = false;
}

static void world_open(struct world *w)
{
	world_init(w);
	world_start(w);
}

static void run_out(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	*(bool *)arg = true;
}

/* Runs the event loop until *counter is n or more. */
static void run_until(struct world *w, const unsigned int *counter, unsigned int n)
{
	const struct timeval patience = { .tv_sec = PATIENCE_S };
	bool out = false;
	struct event *timer = evtimer_new(w->base, run_out, &out);

	event_add(timer, &patience);
	while (*counter < n && !out)
		assert_true(event_base_loop(w->base, EVLOOP_ONCE) >= 0);
	event_free(timer);
	if (out)
		fail_msg("a counter stays at %u, wanted %u; last: %s", *counter, n, w->detail);
}

/* Lets the server's ends of connections see that ours are gone. */
static void world_close(struct world *w)
{
	world_free_discovery(w);
	while (w->server.ended < w->server.accepted && !w->server.refuse)
		run_until(w, &w->server.ended, w->server.ended + 1);
	evconnlistener_free(w->server.listener);
	SSL_CTX_free(w->server.ctx);
	event_base_free(w->base);
	ERR_clear_error();
}

static void await_request(struct world *w, unsigned int n, const char *path)
{
	run_until(w, &w->server.requests, n);
	assert_int_equal(w->server.requests, n);
	if (strncmp(w->server.path, path, strlen(path)) != 0)
		fail_msg("asked for %s, wanted %s", w->server.path, path);
}

static void await_result(struct world *w, enum discovery_result result, unsigned int n)
{
	run_until(w, &w->results[result], n);
}

static void send_text(struct world *w, const char *text)
{
	assert_non_null(w->server.now);
	assert_int_equal(bufferevent_write(w->server.now, text, strlen(text)), 0);
}

static void answer(struct world *w, const char *status, const char *body)
{
	char head[128];

	snprintf(head, sizeof(head), "HTTP/1.1 %s\r\nContent-Length: %zu\r\n\r\n", status,
		 strlen(body));
	send_text(w, head);
	send_text(w, body);
}

static void begin_watch(struct world *w)
{
	send_text(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
}

static void send_chunk(struct world *w, const char *text)
{
	char head[32];

	snprintf(head, sizeof(head), "%zx\r\n", strlen(text));
	send_text(w, head);
	send_text(w, text);
	send_text(w, "\r\n");
}

/* Abruptly, as a process dies. */
static void hang_up(struct world *w)
{
	assert_non_null(w->server.now);
	bufferevent_free(w->server.now);
	w->server.now = NULL;
	w->server.ended++;
	ERR_clear_error();
}

#define ONE LIST(V4("a", HTTPS, READY("10.0.0.1")))
#define TWO LIST(V4("a", HTTPS, READY("10.0.0.1") "," READY("10.0.0.2")))

/* Up to a watch that has begun, having asked for n things. */
static void world_watch(struct world *w)
{
	await_request(w, 1, LIST_PATH "&resourceVersion=0");
	answer(w, "200 OK", ONE);
	await_request(w, 2, LIST_PATH "&watch=true");
	begin_watch(w);
}

static struct discovery_state state_of(const struct world *w)
{
	struct discovery_state s;

	discovery_state(w->discovery, &s);
	return s;
}

static void test_list_and_watch(void **state)
{
	struct discovery_state s;
	struct world w;

	(void)state;
	world_open(&w);
	s = state_of(&w);
	assert_true(!s.watching && !s.changed_ns && !s.version[0] && !s.error[0]);
	world_watch(&w);
	assert_int_equal(w.updates, 1);
	assert_string_equal(w.list, "10.0.0.1:6443");
	assert_int_equal(w.results[DISCOVERY_APPLIED], 1);
	assert_says(w.detail, "1 endpoint: 10.0.0.1:6443");
	/* On the same connection, with all that a watch needs. */
	assert_int_equal(w.server.accepted, 1);
	assert_non_null(strstr(w.server.path, "&resourceVersion=42"));
	assert_non_null(strstr(w.server.path, "&allowWatchBookmarks=true"));
	assert_non_null(strstr(w.server.path, "&timeoutSeconds="));
	assert_true(atoi(strstr(w.server.path, "timeoutSeconds=") + 15) >= 300);
	assert_true(atoi(strstr(w.server.path, "timeoutSeconds=") + 15) <= 600);
	assert_non_null(strstr(w.server.request, "\r\nAuthorization: Bearer " TOKEN "\r\n"));
	assert_non_null(strstr(w.server.request, "\r\nHost: 127.0.0.1:"));

	send_chunk(&w, EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))) "\n");
	run_until(&w, &w.updates, 2);
	assert_string_equal(w.list, "10.0.0.1:6443 10.0.0.2:6443");
	send_chunk(&w, EVENT("MODIFIED", OBJECT("b", "44", READY("10.0.0.2"))) "\n");
	await_result(&w, DISCOVERY_UNCHANGED, 1);
	send_chunk(&w, EVENT("DELETED", OBJECT("a", "45", READY("10.0.0.1"))) "\n");
	run_until(&w, &w.updates, 3);
	assert_string_equal(w.list, "10.0.0.2:6443");
	s = state_of(&w);
	assert_true(s.watching && s.changed_ns && s.heard_ns >= s.changed_ns && !s.error[0]);
	assert_string_equal(s.version, "45");
	assert_int_equal(s.n_endpoints, 1);
	assert_int_equal(w.warnings, 0);
	world_close(&w);
}

static void test_bookmarks(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	world_watch(&w);
	send_chunk(&w, BOOKMARK("100") "\n");
	send_text(&w, "0\r\n\r\n");
	/* Its time was up: goes on where it was, without a list, on a new connection. */
	await_request(&w, 3, LIST_PATH "&watch=true");
	assert_non_null(strstr(w.server.path, "&resourceVersion=100"));
	assert_int_equal(w.server.accepted, 2);
	assert_int_equal(w.updates, 1);
	assert_int_equal(w.results[DISCOVERY_UNCHANGED], 0);
	assert_int_equal(w.results[DISCOVERY_ERROR], 0);
	world_close(&w);
}

/* Events by the byte, several in one chunk, and blank lines. */
static void test_pieces(void **state)
{
	static const char text[] = EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))) "\n";
	char one[2] = "";
	struct world w;
	size_t i;

	(void)state;
	world_open(&w);
	world_watch(&w);
	for (i = 0; i < sizeof(text) - 1; i++) {
		one[0] = text[i];
		send_chunk(&w, one);
		if (i % 16 == 0)
			assert_true(event_base_loop(w.base, EVLOOP_NONBLOCK) >= 0);
	}
	run_until(&w, &w.updates, 2);
	assert_string_equal(w.list, "10.0.0.1:6443 10.0.0.2:6443");
	/* Gone and back in one breath: that is no news. */
	send_chunk(&w, EVENT("DELETED", OBJECT("b", "44", "")) "\n\n" EVENT(
			       "ADDED", OBJECT("b", "45", READY("10.0.0.2"))) "\n");
	await_result(&w, DISCOVERY_UNCHANGED, 1);
	assert_int_equal(w.updates, 2);
	assert_string_equal(state_of(&w).version, "45");
	world_close(&w);
}

static void test_empty(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	await_request(&w, 1, LIST_PATH);
	answer(&w, "200 OK", LIST(""));
	await_result(&w, DISCOVERY_EMPTY, 1);
	assert_int_equal(w.updates, 0);
	/* Nothing to believe, but to go on from. */
	await_request(&w, 2, LIST_PATH "&watch=true");
	begin_watch(&w);
	send_chunk(&w, EVENT("ADDED", OBJECT("a", "43", READY("10.0.0.1"))) "\n");
	run_until(&w, &w.updates, 1);
	assert_string_equal(state_of(&w).error, "");
	send_chunk(&w, EVENT("MODIFIED",
			     OBJECT("a", "44",
				    "{\"addresses\":[\"10.0.0.1\"],\"conditions\":{\"ready\":"
				    "false}}")) "\n");
	await_result(&w, DISCOVERY_EMPTY, 2);
	assert_says(w.detail, "1 not ready");
	send_chunk(&w, EVENT("DELETED", OBJECT("a", "45", "")) "\n");
	await_result(&w, DISCOVERY_EMPTY, 3);
	assert_int_equal(w.updates, 1);
	assert_int_equal(state_of(&w).n_endpoints, 1);
	assert_says(state_of(&w).error, "not believed");
	/* A bookmark is no reason to forget that. */
	send_chunk(&w, BOOKMARK("46") "\n");
	while (strcmp(state_of(&w).version, "46") != 0)
		assert_true(event_base_loop(w.base, EVLOOP_ONCE) >= 0);
	assert_says(state_of(&w).error, "not believed");
	/* The same list as before is none that needs to be told. */
	send_chunk(&w, EVENT("ADDED", OBJECT("a", "47", READY("10.0.0.1"))) "\n");
	await_result(&w, DISCOVERY_UNCHANGED, 1);
	assert_string_equal(state_of(&w).error, "");
	world_close(&w);
}

static void test_believed(void **state)
{
	struct klb_endpoint known[] = { endpoint("10.0.0.2:6443"), endpoint("10.0.0.1:6443") };
	struct world w;

	(void)state;
	world_init(&w);
	w.options.initial = known;
	w.options.n_initial = 2;
	world_start(&w);
	await_request(&w, 1, LIST_PATH);
	answer(&w, "200 OK", TWO);
	await_result(&w, DISCOVERY_UNCHANGED, 1);
	assert_int_equal(w.updates, 0);
	assert_int_equal(state_of(&w).n_endpoints, 2);
	world_close(&w);
}

static void test_too_many(void **state)
{
	char *text = many(KLB_MAX_BACKENDS + 1, false);
	struct world w;

	(void)state;
	world_open(&w);
	await_request(&w, 1, LIST_PATH);
	answer(&w, "200 OK", text);
	run_until(&w, &w.updates, 1);
	assert_int_equal(w.warnings, 1);
	assert_says(w.warning, "65 apiservers");
	assert_int_equal(state_of(&w).n_endpoints, KLB_MAX_BACKENDS);
	free(text);
	world_close(&w);
}

static void test_unusable(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	await_request(&w, 1, LIST_PATH);
	answer(&w, "200 OK",
	       LIST(V4("a", "\"ports\":[{\"port\":443}]",
		       READY("10.96.0.1") "," READY("10.0.0.1") "," READY("127.0.0.1"))));
	run_until(&w, &w.updates, 1);
	assert_string_equal(w.list, "10.0.0.1:443");
	assert_int_equal(w.warnings, 1);
	assert_says(w.warning, "2 endpoints are not used");
	world_close(&w);
}

static void test_expired(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	world_watch(&w);
	/* What came before it counts. */
	send_chunk(&w, EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))) "\n" EXPIRED "\n");
	await_result(&w, DISCOVERY_EXPIRED, 1);
	assert_int_equal(w.updates, 2);
	/* The newest list, not any apiserver's idea of it. */
	await_request(&w, 3, LIST_PATH);
	assert_null(strstr(w.server.path, "resourceVersion"));
	answer(&w, "200 OK", ONE);
	run_until(&w, &w.updates, 3);
	await_request(&w, 4, LIST_PATH "&watch=true");
	answer(&w, "410 Gone", "{\"kind\":\"Status\",\"code\":410}");
	await_result(&w, DISCOVERY_EXPIRED, 2);
	await_request(&w, 5, LIST_PATH);
	assert_null(strstr(w.server.path, "watch"));
	world_close(&w);
}

static void test_statuses(void **state)
{
	static const struct {
		const char *status, *body;
		enum discovery_result result;
		const char *says;
	} cases[] = {
		{ "403 Forbidden",
		  "{\"kind\":\"Status\",\"message\":\"User \\\"system:node:n\\\" cannot list\"}",
		  DISCOVERY_FORBIDDEN,
		  "may not list and watch endpointslices in namespace default: User "
		  "\"system:node:n\" cannot list; allow it by RBAC" },
		{ "401 Unauthorized", "", DISCOVERY_FORBIDDEN, "does not accept the credentials" },
		{ "401 Unauthorized", "{\"message\":\"token " TOKEN " is bad\"}",
		  DISCOVERY_FORBIDDEN, "401" },
		{ "404 Not Found", "404 page not found\n", DISCOVERY_ERROR, "1.21" },
		{ "429 Too Many Requests", "{\"message\":\"a\\nb\"}", DISCOVERY_ERROR,
		  "429: not the answer that was asked for: a?b" },
		{ "500 Oops", "[]", DISCOVERY_ERROR, "500: not the answer that was asked for" },
		{ "302 Found", "", DISCOVERY_ERROR, "302: not the answer that was asked for" },
		{ "204 No Content", "", DISCOVERY_ERROR, "204: not the answer that was asked for" },
		{ "200 OK", "<html>", DISCOVERY_ERROR, "not JSON" },
		{ "200 OK", "{\"kind\":\"EndpointSliceList\",\"metad", DISCOVERY_ERROR,
		  "not JSON" },
		{ "200 OK", "", DISCOVERY_ERROR, "not JSON" },
		{ "200 OK", "\"" TOKEN "\" x", DISCOVERY_ERROR, "not JSON" },
		{ "200 OK", "{\"kind\":\"" TOKEN "\"}", DISCOVERY_ERROR, "not shown" },
	};
	struct world w;
	size_t i;

	(void)state;
	world_open(&w);
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned int before = w.results[cases[i].result];

		await_request(&w, (unsigned int)i + 1, LIST_PATH);
		answer(&w, cases[i].status, cases[i].body);
		await_result(&w, cases[i].result, before + 1);
		assert_says(w.detail, cases[i].says);
		assert_string_equal(state_of(&w).error, w.detail);
	}
	/* And then all is well. */
	await_request(&w, (unsigned int)i + 1, LIST_PATH);
	answer(&w, "200 OK", ONE);
	run_until(&w, &w.updates, 1);
	assert_string_equal(state_of(&w).error, "");
	world_close(&w);
}

static void test_bad_answers(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "SSH-2.0-OpenSSH_9.2\r\n", "not HTTP/1.1" },
		{ "HTTP/1.1 200 OK\r\n\r\n" ONE, "not HTTP/1.1" },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 2097153\r\n\r\n", "too large" },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n200001\r\n", "too large" },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "not HTTP/1.1" },
		{ "HTTP/1.1 101 Switching Protocols\r\n\r\n", "not HTTP/1.1" },
	};
	struct world w;
	size_t i;

	(void)state;
	world_open(&w);
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		await_request(&w, (unsigned int)i + 1, LIST_PATH);
		send_text(&w, cases[i].text);
		await_result(&w, DISCOVERY_ERROR, (unsigned int)i + 1);
		assert_says(w.detail, cases[i].says);
		assert_says(w.detail, "127.0.0.1:");
	}
	/* Half a list, and the process dies. */
	await_request(&w, (unsigned int)i + 1, LIST_PATH);
	send_text(&w, "HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{\"kind\":");
	run_until(&w, &w.ticks, 0);
	event_base_loop(w.base, EVLOOP_NONBLOCK);
	hang_up(&w);
	await_result(&w, DISCOVERY_ERROR, (unsigned int)i + 1);
	assert_says(w.detail, "closed the connection");
	assert_int_equal(w.updates, 0);
	world_close(&w);
}

static void test_bad_watches(void **state)
{
	static const struct {
		const char *chunk;
		bool end;
		const char *says;
	} cases[] = {
		{ "not json\n", false, "an event is not JSON" },
		{ "{\"type\":\"ADDED\",\"object\":{}}\n", false, "an event about" },
		{ EVENT("ERROR", "{\"code\":500,\"reason\":\"InternalError\"}") "\n", false,
		  "500 InternalError" },
		{ "{\"type\":\"ADD", true, "in the middle of an event" },
		{ EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))), true,
		  "in the middle of an event" },
	};
	struct world w;
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		world_open(&w);
		world_watch(&w);
		send_chunk(&w, cases[i].chunk);
		if (cases[i].end)
			send_text(&w, "0\r\n\r\n");
		await_result(&w, DISCOVERY_ERROR, 1);
		assert_says(w.detail, cases[i].says);
		assert_int_equal(w.updates, 1);
		/* What makes no sense puts the version in doubt; what broke off does not. */
		await_request(&w, 3, cases[i].end ? LIST_PATH "&watch" : LIST_PATH);
		assert_true(cases[i].end || !strstr(w.server.path, "watch"));
		world_close(&w);
	}
}

/* A watch that broke off goes on where it was; one that never works is not for ever. */
static void test_disconnects(void **state)
{
	unsigned int i;
	struct world w;

	(void)state;
	world_open(&w);
	world_watch(&w);
	send_chunk(&w, EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))) "\n{\"half");
	run_until(&w, &w.updates, 2);
	hang_up(&w);
	for (i = 3; i < 5; i++) {
		await_request(&w, i, LIST_PATH "&watch");
		assert_non_null(strstr(w.server.path, "&resourceVersion=43"));
		hang_up(&w);
	}
	await_request(&w, 5, LIST_PATH);
	assert_null(strstr(w.server.path, "watch"));
	assert_int_equal(w.results[DISCOVERY_ERROR], 3);
	world_close(&w);
}

/* After a failure a watch's headers are the first good news, and for an hour the only. */
static void test_works_again(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	world_watch(&w);
	hang_up(&w);
	await_result(&w, DISCOVERY_ERROR, 1);
	await_request(&w, 3, LIST_PATH "&watch=true");
	assert_int_equal(w.results[DISCOVERY_UNCHANGED], 0);
	begin_watch(&w);
	await_result(&w, DISCOVERY_UNCHANGED, 1);
	assert_string_equal(state_of(&w).error, "");
	/* Once: neither for what follows, nor for a watch that no failure came before. */
	send_chunk(&w, BOOKMARK("100") "\n");
	send_text(&w, "0\r\n\r\n");
	await_request(&w, 4, LIST_PATH "&watch=true");
	begin_watch(&w);
	send_chunk(&w, BOOKMARK("101") "\n");
	while (strcmp(state_of(&w).version, "101") != 0)
		assert_true(event_base_loop(w.base, EVLOOP_ONCE) >= 0);
	assert_int_equal(w.results[DISCOVERY_UNCHANGED], 1);
	/* The owner may have had enough just then. */
	hang_up(&w);
	await_result(&w, DISCOVERY_ERROR, 2);
	await_request(&w, 5, LIST_PATH "&watch=true");
	w.hook = HOOK_FREE_IN_RESULT;
	begin_watch(&w);
	await_result(&w, DISCOVERY_UNCHANGED, 2);
	world_close(&w);
}

/* What was not believed before the failure is no good news after it. */
static void test_works_again_with_nobody(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	await_request(&w, 1, LIST_PATH);
	answer(&w, "200 OK", LIST(""));
	await_request(&w, 2, LIST_PATH "&watch=true");
	hang_up(&w);
	await_result(&w, DISCOVERY_ERROR, 1);
	await_request(&w, 3, LIST_PATH "&watch=true");
	begin_watch(&w);
	send_chunk(&w, BOOKMARK("100") "\n");
	while (strcmp(state_of(&w).version, "100") != 0)
		assert_true(event_base_loop(w.base, EVLOOP_ONCE) >= 0);
	assert_int_equal(w.results[DISCOVERY_UNCHANGED], 0);
	world_close(&w);
}

/* What is said of the version is a reason for a new list. What is said of the apiserver is
 * none: thousands of nodes would ask an overloaded one for more. */
static void test_refused_watches(void **state)
{
	static const struct {
		const char *status;
		enum discovery_result result;
		bool lists;
	} cases[] = {
		{ "400 Bad Request", DISCOVERY_ERROR, true },
		{ "404 Not Found", DISCOVERY_ERROR, true },
		{ "410 Gone", DISCOVERY_EXPIRED, true },
		{ "401 Unauthorized", DISCOVERY_FORBIDDEN, false },
		{ "403 Forbidden", DISCOVERY_FORBIDDEN, false },
		{ "429 Too Many Requests", DISCOVERY_ERROR, false },
		{ "500 Internal Server Error", DISCOVERY_ERROR, false },
		{ "503 Service Unavailable", DISCOVERY_ERROR, false },
		{ "504 Gateway Timeout", DISCOVERY_ERROR, false },
	};
	struct world w;
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned int n = 2;

		world_open(&w);
		await_request(&w, 1, LIST_PATH);
		answer(&w, "200 OK", ONE);
		do {
			await_request(&w, n++, LIST_PATH "&watch=true");
			answer(&w, cases[i].status, "{\"kind\":\"Status\"}");
			await_result(&w, cases[i].result, n - 2);
		} while (!cases[i].lists && n < 5);
		/* The third in a row puts the version in doubt, whatever it is. */
		await_request(&w, n, LIST_PATH);
		assert_null(strstr(w.server.path, "watch"));
		world_close(&w);
	}
}

static void test_connection_not_kept(void **state)
{
	struct world w;
	char text[1024];

	(void)state;
	world_open(&w);
	await_request(&w, 1, LIST_PATH);
	snprintf(text, sizeof(text),
		 "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
		 strlen(ONE), ONE);
	send_text(&w, text);
	run_until(&w, &w.updates, 1);
	await_request(&w, 2, LIST_PATH "&watch");
	assert_int_equal(w.server.accepted, 2);
	world_close(&w);
}

static void test_unasked(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	await_request(&w, 1, LIST_PATH);
	/* More than the answer: such a connection carries no watch. */
	send_text(&w, "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n");
	await_result(&w, DISCOVERY_ERROR, 1);
	assert_says(w.detail, "500: not the answer that was asked for");
	world_close(&w);
}

/*
 * Time
 */

static void test_timeouts(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	w.server.mute = true;
	w.timing.connect = 50;
	world_start(&w);
	await_result(&w, DISCOVERY_ERROR, 1);
	assert_says(w.detail, "no connection within 50 ms");
	world_close(&w);

	world_init(&w);
	w.timing.answer = 200;
	world_start(&w);
	await_request(&w, 1, LIST_PATH);
	send_text(&w, "HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{");
	await_result(&w, DISCOVERY_ERROR, 1);
	assert_says(w.detail, "no whole answer to the list within 200 ms");
	await_request(&w, 2, LIST_PATH);
	answer(&w, "200 OK", ONE);
	await_request(&w, 3, LIST_PATH "&watch");
	/* The body of an error is not a watch, and may not go on for ever. */
	send_text(&w, "HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
	await_result(&w, DISCOVERY_ERROR, 2);
	assert_says(w.detail, "no whole answer to the watch within 200 ms");
	world_close(&w);
}

static void test_stalls(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	w.timing.line = 100;
	w.timing.silence = 600;
	world_start(&w);
	world_watch(&w);
	/* Dribbles: every byte is progress, and yet there is none. */
	send_chunk(&w, "{");
	while (!w.results[DISCOVERY_ERROR]) {
		if (w.server.now)
			send_chunk(&w, " ");
		assert_true(event_base_loop(w.base, EVLOOP_ONCE) >= 0);
	}
	assert_says(w.detail, "an event is not complete within 100 ms");
	await_request(&w, 3, LIST_PATH "&watch");
	begin_watch(&w);
	await_result(&w, DISCOVERY_ERROR, 2);
	assert_says(w.detail, "the watch is silent for 600 ms");
	world_close(&w);
}

/* A watch that ignores its timeoutSeconds. */
static void test_watch_beyond_its_time(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	w.timing.watch = 100;
	w.timing.answer = 500;
	world_start(&w);
	world_watch(&w);
	while (!w.results[DISCOVERY_ERROR]) {
		if (w.server.now)
			send_chunk(&w, BOOKMARK("50") "\n");
		assert_true(event_base_loop(w.base, EVLOOP_ONCE) >= 0);
	}
	assert_says(w.detail, "beyond its time");
	world_close(&w);
}

static void test_relist(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	w.timing.relist = 1;
	world_start(&w);
	world_watch(&w);
	send_text(&w, "0\r\n\r\n");
	await_request(&w, 3, LIST_PATH);
	assert_null(strstr(w.server.path, "watch"));
	world_close(&w);
}

/* Each wait is at least half of what it doubles to; never more tries than that. */
static void test_backoff(void **state)
{
	static const unsigned int waits[] = { 20, 40, 80, 160, 160, 160 };
	struct world w;
	size_t i;

	(void)state;
	world_init(&w);
	w.server.refuse = true;
	w.timing.backoff_min = 20;
	w.timing.backoff_max = 160;
	world_start(&w);
	run_until(&w, &w.server.accepted, ARRAY_SIZE(waits) + 1);
	for (i = 0; i < ARRAY_SIZE(waits); i++) {
		__u64 gap = w.server.accepted_ns[i + 1] - w.server.accepted_ns[i];

		/* libevent's clock is a coarse one. */
		if (gap + 5000000 < waits[i] / 2 * 1000000ULL)
			fail_msg("only %llu ms before try %zu", gap / 1000000, i + 2);
	}
	world_close(&w);
}

/* An apiserver that says something good and hangs up does not get more tries. */
static void test_backoff_of_short_successes(void **state)
{
	struct world w;
	unsigned int i;

	(void)state;
	world_init(&w);
	w.timing.backoff_min = 20;
	w.timing.backoff_max = 160;
	world_start(&w);
	for (i = 1; i <= 9; i += 2) {
		await_request(&w, i, LIST_PATH);
		answer(&w, "200 OK", ONE);
		await_request(&w, i + 1, LIST_PATH "&watch");
		answer(&w, "410 Gone", "");
		await_result(&w, DISCOVERY_EXPIRED, i / 2 + 1);
	}
	/* 10 + 20 + 40 + 80 */
	assert_true(w.server.accepted_ns[4] - w.server.accepted_ns[0] >= 130000000ULL);
	world_close(&w);

	/* But one that goes on for a while does. */
	world_init(&w);
	w.timing.backoff_min = 1;
	w.timing.backoff_max = 3600000;
	w.timing.stable = 0;
	world_start(&w);
	for (i = 1; i <= 79; i += 2) {
		await_request(&w, i, LIST_PATH);
		answer(&w, "200 OK", ONE);
		await_request(&w, i + 1, LIST_PATH "&watch");
		answer(&w, "410 Gone", "");
	}
	world_close(&w);
}

static void test_forbidden_waits(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	w.timing.forbidden = 300;
	world_start(&w);
	await_request(&w, 1, LIST_PATH);
	answer(&w, "403 Forbidden", "");
	await_result(&w, DISCOVERY_FORBIDDEN, 1);
	await_request(&w, 2, LIST_PATH);
	assert_true(w.server.accepted_ns[1] - w.server.accepted_ns[0] >= 130000000ULL);
	world_close(&w);
}

/*
 * Credentials and TLS
 */

static void test_missing_kubeconfig(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	unlink(w.kubeconfig);
	world_start(&w);
	await_result(&w, DISCOVERY_CREDENTIALS, 3);
	assert_says(w.detail, "kubeconfig: no such file");
	assert_int_equal(w.server.accepted, 0);
	write_kubeconfig(&w, "127.0.0.1", "    certificate-authority: none.crt\n", "");
	await_result(&w, DISCOVERY_CREDENTIALS, w.results[DISCOVERY_CREDENTIALS] + 2);
	assert_says(w.detail, "clusters[c].cluster.certificate-authority: ");
	assert_says(w.detail, "none.crt: no such file");
	/* It turns up: nothing needs to be told. */
	write_kubeconfig(&w, "127.0.0.1", "    certificate-authority: ca.crt\n", "");
	await_request(&w, 1, LIST_PATH);
	assert_null(strstr(w.server.request, "Authorization"));
	answer(&w, "200 OK", ONE);
	run_until(&w, &w.updates, 1);
	world_close(&w);
}

/* The kubelet's certificate, a link that is turned to the next one; and a token. */
static void test_rotation(void **state)
{
	char path[PATH_MAX_TEST], link[PATH_MAX_TEST], next[PATH_MAX_TEST];
	struct world w;

	(void)state;
	world_init(&w);
	write_client(&pki.client);
	pki_write_cert(in_dir(path, "next.pem"), pki.renewed.cert);
	pki_write_key(path, "a", pki.renewed.key, NULL);
	assert_int_equal(symlink("client.pem", in_dir(link, "current.pem")), 0);
	write_file(in_dir(path, "token"), "first\n");
	write_kubeconfig(&w, "127.0.0.1", "    certificate-authority: ca.crt\n",
			 "client-certificate: current.pem, client-key: current.pem, "
			 "tokenFile: token");
	world_start(&w);
	world_watch(&w);
	assert_string_equal(w.server.client, "first");
	assert_non_null(strstr(w.server.request, "Bearer first\r\n"));
	assert_int_equal(symlink("next.pem", in_dir(next, "new-link.pem")), 0);
	assert_int_equal(rename(next, link), 0);
	write_file(path, "second\n");
	send_text(&w, "0\r\n\r\n");
	await_request(&w, 3, LIST_PATH "&watch");
	assert_string_equal(w.server.client, "second");
	assert_non_null(strstr(w.server.request, "Bearer second\r\n"));
	unlink(link);
	world_close(&w);
}

static void test_in_cluster(void **state)
{
	char dir[PATH_MAX_TEST], path[PATH_MAX_TEST];
	struct world w;

	(void)state;
	world_init(&w);
	w.options.kubeconfig = NULL;
	w.options.service_account = in_dir(dir, "sa");
	assert_int_equal(mkdir(dir, 0700), 0);
	write_file(in_dir(path, "sa/token"), TOKEN "\n");
	pki_write_cert(in_dir(path, "sa/ca.crt"), pki.ca.cert);
	unsetenv("KUBERNETES_SERVICE_HOST");
	world_start(&w);
	await_request(&w, 1, LIST_PATH);
	assert_non_null(strstr(w.server.request, "Bearer " TOKEN "\r\n"));
	assert_non_null(strstr(w.server.request, "Host: kubernetes.default.svc:443\r\n"));
	world_close(&w);
	remove_dir(dir);
}

static void test_verification(void **state)
{
	static const struct {
		const char *host, *cluster, *says; /* says NULL: it verifies */
	} cases[] = {
		{ "127.0.0.1", "    certificate-authority: ca.crt\n", NULL },
		{ "10.96.0.1", "    certificate-authority: ca.crt\n", NULL },
		{ "localhost", "    certificate-authority: ca.crt\n", NULL },
		{ "elsewhere", "    certificate-authority: ca.crt\n", "does not name elsewhere" },
		{ "10.96.0.2", "    certificate-authority: ca.crt\n", "does not name 10.96.0.2" },
		{ "elsewhere",
		  "    certificate-authority: ca.crt\n    tls-server-name: localhost\n", NULL },
		{ "elsewhere",
		  "    certificate-authority: ca.crt\n    tls-server-name: 127.0.0.1\n", NULL },
		{ "localhost",
		  "    certificate-authority: ca.crt\n    tls-server-name: elsewhere\n",
		  "does not name elsewhere" },
		{ "127.0.0.1", "    certificate-authority: other-ca.crt\n", "issued by CN=ca" },
		{ "127.0.0.1", "", "issued by CN=ca" },
		{ "elsewhere", "    insecure-skip-tls-verify: true\n", NULL },
	};
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct world w;

		world_init(&w);
		write_kubeconfig(&w, cases[i].host, cases[i].cluster, "token: " TOKEN);
		world_start(&w);
		if (cases[i].says) {
			await_result(&w, DISCOVERY_ERROR, 1);
			assert_says(w.detail, cases[i].says);
			assert_int_equal(w.server.requests, 0);
		} else {
			await_request(&w, 1, LIST_PATH);
		}
		assert_int_equal(w.warnings, strstr(cases[i].cluster, "insecure") ? 1 : 0);
		world_close(&w);
	}
}

static void test_refused(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	evconnlistener_disable(w.server.listener);
	w.options.server =
		&(struct klb_endpoint){ .addr = { [10] = 255, 255, 127, 0, 0, 1 }, .port = 1 };
	world_start(&w);
	await_result(&w, DISCOVERY_ERROR, 2);
	assert_says(w.detail, "127.0.0.1:1: connect: Connection refused");
	world_close(&w);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct world *w = arg;

	(void)fd;
	(void)what;
	w->ticks++;
}

#define LONG_LABEL "l2345678901234567890123456789012345678901234567890123456789012345"

/* The kubeconfig's own server, by name: looked up beside the loop. */
static void test_names(void **state)
{
	const struct timeval interval = { .tv_usec = 1000 };
	struct event *tick;
	struct world w;

	(void)state;
	world_init(&w);
	write_kubeconfig(&w, "localhost", "    certificate-authority: ca.crt\n", "");
	w.options.server = NULL;
	world_start(&w);
	await_request(&w, 1, LIST_PATH);
	assert_non_null(strstr(w.server.request, "Host: localhost:"));
	world_close(&w);

	world_init(&w);
	write_kubeconfig(&w, "127.0.0.1", "    certificate-authority: ca.crt\n", "");
	w.options.server = NULL;
	world_start(&w);
	await_request(&w, 1, LIST_PATH);
	world_close(&w);

	/* No name server needs to be asked about this one: RFC 1035, 2.3.4. */
	world_init(&w);
	write_kubeconfig(&w, LONG_LABEL ".invalid", "    certificate-authority: ca.crt\n", "");
	w.options.server = NULL;
	tick = event_new(w.base, -1, EV_PERSIST, on_tick, &w);
	event_add(tick, &interval);
	world_start(&w);
	await_result(&w, DISCOVERY_ERROR, 1);
	assert_says(w.detail, "cannot look up " LONG_LABEL ".invalid: ");
	event_free(tick);
	/* While the next one is being looked up, too. */
	run_until(&w, &w.results[DISCOVERY_ERROR], 2);
	world_close(&w);
}

/*
 * The cache of the running thing
 */

static void test_cache_follows(void **state)
{
	char path[PATH_MAX_TEST];
	struct discovery_cached c;
	struct world w;
	struct err e;

	(void)state;
	world_init(&w);
	w.options.cache = in_dir(path, "lib/backends.json");
	world_start(&w);
	world_watch(&w);
	send_chunk(&w, EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))) "\n");
	run_until(&w, &w.updates, 2);
	send_chunk(&w, EVENT("ADDED", OBJECT("b", "44", READY("10.0.0.3"))) "\n");
	run_until(&w, &w.updates, 3);
	/* The end waits for the disk. */
	world_close(&w);
	assert_int_equal(discovery_cache_load(path, NULL, 0, &c, &e), 0);
	assert_string_equal(list_text(c.list, c.n), "10.0.0.1:6443 10.0.0.3:6443");
	remove_dir(in_dir(path, "lib"));
}

static void test_cache_failure(void **state)
{
	char path[PATH_MAX_TEST];
	struct world w;

	(void)state;
	world_init(&w);
	w.options.cache = in_dir(path, "not/there/backends.json");
	world_start(&w);
	world_watch(&w);
	run_until(&w, &w.warnings, 1);
	assert_says(w.warning, "could not be cached");
	assert_says(w.warning, "not/there: cannot be created");
	/* The same list again is another chance. */
	send_chunk(&w, EVENT("MODIFIED", OBJECT("a", "43", READY("10.0.0.1"))) "\n");
	run_until(&w, &w.warnings, 2);
	assert_int_equal(mkdir(in_dir(path, "not"), 0700), 0);
	send_chunk(&w, EVENT("MODIFIED", OBJECT("a", "44", READY("10.0.0.1"))) "\n");
	await_result(&w, DISCOVERY_UNCHANGED, 2);
	world_close(&w);
	assert_int_equal(w.warnings, 2);
	assert_non_null(
		strstr(read_file(in_dir(path, "not/there/backends.json")), "10.0.0.1:6443"));
	remove_dir(in_dir(path, "not"));
}

/* What the owner goes by already need not be in the file: another one, an older one, none. */
static void test_cache_of_what_is_believed(void **state)
{
	static const char *const contents[] = {
		NULL,
		"junk",
		"{\"kind\":\"kubelb-backends\",\"version\":1,"
		"\"written\":\"2026-01-01T00:00:00Z\",\"backends\":[\"10.0.0.9:6443\"]}",
	};
	struct klb_endpoint known = endpoint("10.0.0.1:6443");
	char path[PATH_MAX_TEST];
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(contents); i++) {
		struct discovery_cached c;
		struct world w;
		struct err e;

		world_init(&w);
		w.options.cache = in_dir(path, "other.json");
		w.options.initial = &known;
		w.options.n_initial = 1;
		if (contents[i])
			write_file(path, contents[i]);
		world_start(&w);
		await_request(&w, 1, LIST_PATH);
		answer(&w, "200 OK", ONE);
		await_result(&w, DISCOVERY_UNCHANGED, 1);
		world_close(&w);
		assert_int_equal(w.updates, 0);
		assert_int_equal(discovery_cache_load(path, NULL, 0, &c, &e), 0);
		assert_string_equal(list_text(c.list, c.n), "10.0.0.1:6443");
		unlink(path);
	}
}

/* A file that holds the list already is left alone: no node writes for every hour's list. */
static void test_cache_that_is_right(void **state)
{
	struct klb_endpoint known = endpoint("10.0.0.1:6443");
	char path[PATH_MAX_TEST];
	struct stat before, after;
	struct world w;
	struct err e;

	(void)state;
	world_init(&w);
	w.options.cache = in_dir(path, "right.json");
	w.options.initial = &known;
	w.options.n_initial = 1;
	assert_int_equal(discovery_cache_save(path, &known, 1, &e), 0);
	assert_int_equal(stat(path, &before), 0);
	world_start(&w);
	await_request(&w, 1, LIST_PATH);
	answer(&w, "200 OK", ONE);
	await_result(&w, DISCOVERY_UNCHANGED, 1);
	world_close(&w);
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(after.st_ino, before.st_ino);
	unlink(path);
}

/*
 * Lifetimes
 */

static void test_free_in_ops(void **state)
{
	static const struct {
		enum hook hook;
		const char *body;
	} cases[] = {
		{ HOOK_FREE_IN_UPDATED, ONE },
		{ HOOK_FREE_IN_RESULT, ONE },
		{ HOOK_FREE_IN_RESULT, LIST("") },
		{ HOOK_FREE_IN_RESULT, "junk" },
		{ HOOK_FREE_IN_WARNING, LIST(V4("a", HTTPS, READY("127.0.0.1"))) },
	};
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct world w;

		world_init(&w);
		w.hook = cases[i].hook;
		world_start(&w);
		await_request(&w, 1, LIST_PATH);
		answer(&w, "200 OK", cases[i].body);
		while (w.discovery)
			assert_true(event_base_loop(w.base, EVLOOP_ONCE) >= 0);
		world_close(&w);
	}
}

static void test_free_in_watch(void **state)
{
	static const enum hook hooks[] = { HOOK_FREE_IN_UPDATED, HOOK_FREE_IN_RESULT };
	static const char *const chunks[] = {
		EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))) "\n",
		EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))) "\njunk\n",
	};
	size_t i, j;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		for (j = 0; j < ARRAY_SIZE(chunks); j++) {
			struct world w;

			world_open(&w);
			world_watch(&w);
			w.hook = hooks[i];
			send_chunk(&w, chunks[j]);
			while (w.discovery)
				assert_true(event_base_loop(w.base, EVLOOP_ONCE) >= 0);
			world_close(&w);
		}
	}
}

/* Also while a name is looked up, while it dials, before it began, and never. */
static void test_free_at_any_time(void **state)
{
	unsigned int turns, by_name;

	(void)state;
	discovery_free(NULL);
	for (by_name = 0; by_name < 2; by_name++) {
		for (turns = 0; turns < 12; turns++) {
			struct world w;
			unsigned int i;

			world_init(&w);
			write_kubeconfig(&w, "localhost", "    certificate-authority: ca.crt\n",
					 "");
			if (by_name)
				w.options.server = NULL;
			w.timing.connect = w.timing.answer = w.timing.silence = 50;
			world_start(&w);
			for (i = 0; i < turns; i++) {
				if (w.server.now && w.server.requests == 1 && !w.updates && i % 2)
					answer(&w, "200 OK", ONE);
				event_base_loop(w.base, EVLOOP_ONCE);
			}
			world_close(&w);
		}
	}
}

static void test_result_names(void **state)
{
	int i, j;

	(void)state;
	for (i = 0; i < DISCOVERY_RESULTS; i++) {
		assert_non_null(discovery_result_name((enum discovery_result)i));
		for (j = 0; j < i; j++)
			assert_string_not_equal(discovery_result_name((enum discovery_result)i),
						discovery_result_name((enum discovery_result)j));
	}
}

/*
 * Memory
 */

static size_t resident(void)
{
	unsigned long size, pages;
	FILE *f = fopen("/proc/self/statm", "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu %lu", &size, &pages), 2);
	fclose(f);
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* Events that change the list each time, n of them. */
static void send_events(struct world *w, unsigned int from, unsigned int n)
{
	char text[2048];
	unsigned int i;

	for (i = from; i < from + n; i++) {
		snprintf(text, sizeof(text),
			 EVENT("%s", "{\"kind\":\"EndpointSlice\",\"metadata\":{\"name\":\"s%u\","
				     "\"resourceVersion\":\"%u\",\"labels\":{"
				     "\"kubernetes.io/service-name\":\"kubernetes\"}},"
				     "\"addressType\":\"IPv4\"," HTTPS
				     ",\"endpoints\":[{\"addresses\":[\"10.1.%u.%u\"]}]}") "\n",
			 i % 3 ? "MODIFIED" : "ADDED", i % 32, 1000 + i, i / 256 % 256, i % 256);
		send_chunk(w, text);
		if (i % 50 == 49)
			run_until(w, &w->updates, w->updates + 1);
	}
	snprintf(text, sizeof(text), "%u", 1000 + from + n - 1);
	while (strcmp(state_of(w).version, text) != 0)
		assert_true(event_base_loop(w->base, EVLOOP_ONCE) >= 0);
}

static void test_memory_is_flat(void **state)
{
	struct mallinfo2 before, after;
	size_t rss_before, rss_after;
	struct world w;

	(void)state;
	world_open(&w);
	world_watch(&w);
	send_events(&w, 0, 2000);
	before = mallinfo2();
	rss_before = resident();
	send_events(&w, 2000, 10000);
	after = mallinfo2();
	rss_after = resident();
	printf("10000 events: heap %zu -> %zu, resident %zu -> %zu\n", before.uordblks,
	       after.uordblks, rss_before, rss_after);
	/* What is on its way between the two ends differs by a record or so. */
	assert_true(after.uordblks < before.uordblks + 64 * 1024UL);
	assert_true(rss_after < rss_before + 512 * 1024UL);
	world_close(&w);
}

/* An event without an end: refused in time, and no more is kept of it than allowed. */
static void test_endless_event(void **state)
{
	char *piece = repeat("", "x", 60000, "");
	struct world w;
	size_t sent = 0;

	(void)state;
	world_open(&w);
	world_watch(&w);
	while (!w.results[DISCOVERY_ERROR]) {
		if (w.server.now &&
		    evbuffer_get_length(bufferevent_get_output(w.server.now)) < 100000) {
			send_chunk(&w, piece);
			sent += 60000;
		}
		assert_true(event_base_loop(w.base, EVLOOP_ONCE) >= 0);
		assert_true(sent < 8 * 1024 * 1024UL);
	}
	assert_says(w.detail, "too large");
	free(piece);
	world_close(&w);
}

/* A list of nearly the greatest size, in one breath: nothing gets stuck on the way. */
static void test_large_list(void **state)
{
	char *text = repeat(ONE, " ", 2 * 1024 * 1024 - sizeof(ONE), "");
	struct world w;

	(void)state;
	world_open(&w);
	await_request(&w, 1, LIST_PATH);
	answer(&w, "200 OK", text);
	run_until(&w, &w.updates, 1);
	free(text);
	await_request(&w, 2, LIST_PATH "&watch");
	world_close(&w);
}

static unsigned int open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static int count_files(void **state)
{
	*state = (void *)(uintptr_t)open_files();
	return 0;
}

/* Whatever happened: no descriptor stays, and no error waits in OpenSSL's queue. */
static int check_leftovers(void **state)
{
	const struct timespec moment = { .tv_nsec = 1000000 };
	unsigned int i;

	/* A name that is still being looked up keeps its own until it is through. */
	for (i = 0; i < PATIENCE_S * 1000 && open_files() != (unsigned int)(uintptr_t)*state; i++)
		nanosleep(&moment, NULL);
	assert_int_equal(open_files(), (unsigned int)(uintptr_t)*state);
	assert_int_equal(ERR_peek_error(), 0);
	return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, count_files, check_leftovers)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_lists),
		TEST(test_bad_lists),
		TEST(test_list_limits),
		TEST(test_many_endpoints),
		TEST(test_events),
		TEST(test_bad_events),
		TEST(test_text),
		TEST(test_answer_content),
		TEST(test_answer_stream),
		TEST(test_kubeconfig),
		TEST(test_bad_kubeconfigs),
		TEST(test_servers),
		TEST(test_token_files),
		TEST(test_cache),
		TEST(test_bad_caches),
		TEST(test_cache_disk_full),
		TEST(test_list_and_watch),
		TEST(test_bookmarks),
		TEST(test_pieces),
		TEST(test_empty),
		TEST(test_believed),
		TEST(test_too_many),
		TEST(test_unusable),
		TEST(test_expired),
		TEST(test_statuses),
		TEST(test_bad_answers),
		TEST(test_bad_watches),
		TEST(test_disconnects),
		TEST(test_works_again),
		TEST(test_works_again_with_nobody),
		TEST(test_refused_watches),
		TEST(test_connection_not_kept),
		TEST(test_unasked),
		TEST(test_timeouts),
		TEST(test_stalls),
		TEST(test_watch_beyond_its_time),
		TEST(test_relist),
		TEST(test_backoff),
		TEST(test_backoff_of_short_successes),
		TEST(test_forbidden_waits),
		TEST(test_missing_kubeconfig),
		TEST(test_rotation),
		TEST(test_in_cluster),
		TEST(test_verification),
		TEST(test_refused),
		TEST(test_names),
		TEST(test_cache_follows),
		TEST(test_cache_failure),
		TEST(test_cache_of_what_is_believed),
		TEST(test_cache_that_is_right),
		TEST(test_free_in_ops),
		TEST(test_free_in_watch),
		TEST(test_free_at_any_time),
		TEST(test_result_names),
		TEST(test_memory_is_flat),
		TEST(test_endless_event),
		TEST(test_large_list),
	};

	return cmocka_run_group_tests(tests, make_pki, remove_pki);
}
