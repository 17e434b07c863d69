/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Discovery: its pure parts by tables, the whole of it against a real TLS server in
 * the same event loop (finder.h), which says exactly what a test tells it to, and when.
 */
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

#include "finder.h"
#include "net/endpoint.h"
#include "net/http_response.h"
#include "pki.h"
#include "slices.h"
#include "unit.h"

static void write_client(const struct identity *id)
{
	char path[PATH_SIZE];

	/* As kubelet-client-current.pem: both in one. */
	pki_write_cert(in_dir(path, "client.pem"), id->cert);
	pki_write_key(path, "a", id->key, NULL);
}

static int set_up(void **state)
{
	pki_make(state);
	write_client(&pki.client);
	return 0;
}

/*
 * Slices to a list
 */

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

/*
 * Lines and answers
 */

static void test_text(void **state)
{
	struct text t = { 0 };
	size_t length, i;
	char *line;

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
	/* A large one does not stay. */
	assert_int_equal(t.size, 0);
	assert_true(text_add(&t, "a\n\nbc", 5, 5));
	assert_memory_equal(text_line(&t, &length), "a", 1);
	text_drop(&t, length + 1);
	assert_non_null(text_line(&t, &length));
	assert_int_equal(length, 0);
	text_drop(&t, 1);
	assert_null(text_line(&t, &length));
	assert_int_equal(t.length, 2);
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
			struct answer a;
			size_t at;

			answer_init_content(&a, 50, collect, &t);
			for (at = 0; at < strlen(cases[i].text); at += piece) {
				evbuffer_add(in, cases[i].text + at,
					     strnlen(cases[i].text + at, piece));
				progress = answer_read(&a, in);
				if (progress != ANSWER_PROGRESS_MORE)
					break;
			}
			assert_int_equal(progress, cases[i].progress);
			assert_int_equal(t.length, strlen(cases[i].content));
			if (t.length)
				assert_memory_equal(t.bytes, cases[i].content, t.length);
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
		text_drop(&t, t.length);
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
		int r = credentials_set_server(c, cases[i].url, &e);

		if (!r != !!cases[i].host)
			fail_msg("%s: %d", cases[i].url, r);
		if (!r) {
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
	char path[PATH_SIZE], dir[PATH_SIZE];
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
	char path[PATH_SIZE], temporary[PATH_SIZE];
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
	char path[PATH_SIZE];
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
	char path[PATH_SIZE], temporary[PATH_SIZE];
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

static void test_list_and_watch(void **state)
{
	struct discovery_state s;
	struct finder f;

	(void)state;
	finder_open(&f);
	s = state_of(&f);
	assert_true(!s.watching && !s.changed_ns && !s.version[0] && !s.error[0]);
	finder_watch(&f);
	assert_int_equal(f.updates, 1);
	assert_string_equal(f.list, "10.0.0.1:6443");
	assert_int_equal(f.results[DISCOVERY_APPLIED], 1);
	assert_says(f.detail, "1 endpoint: 10.0.0.1:6443");
	/* On the same connection, with all that a watch needs. */
	assert_int_equal(f.server.accepted, 1);
	assert_non_null(strstr(f.server.path, "&resourceVersion=42"));
	assert_non_null(strstr(f.server.path, "&allowWatchBookmarks=true"));
	assert_non_null(strstr(f.server.path, "&timeoutSeconds="));
	assert_true(atoi(strstr(f.server.path, "timeoutSeconds=") + 15) >= 300);
	assert_true(atoi(strstr(f.server.path, "timeoutSeconds=") + 15) <= 600);
	assert_non_null(strstr(f.server.request, "\r\nAuthorization: Bearer " TOKEN "\r\n"));
	assert_non_null(strstr(f.server.request, "\r\nHost: 127.0.0.1:"));

	send_chunk(&f, EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))) "\n");
	finder_run(&f, &f.updates, 2);
	assert_string_equal(f.list, "10.0.0.1:6443 10.0.0.2:6443");
	send_chunk(&f, EVENT("MODIFIED", OBJECT("b", "44", READY("10.0.0.2"))) "\n");
	await_result(&f, DISCOVERY_UNCHANGED, 1);
	send_chunk(&f, EVENT("DELETED", OBJECT("a", "45", READY("10.0.0.1"))) "\n");
	finder_run(&f, &f.updates, 3);
	assert_string_equal(f.list, "10.0.0.2:6443");
	s = state_of(&f);
	assert_true(s.watching && s.changed_ns && s.heard_ns >= s.changed_ns && !s.error[0]);
	assert_string_equal(s.version, "45");
	assert_int_equal(s.n_endpoints, 1);
	assert_int_equal(f.warnings, 0);
	finder_close(&f);
}

static void test_bookmarks(void **state)
{
	struct finder f;

	(void)state;
	finder_open(&f);
	finder_watch(&f);
	send_chunk(&f, BOOKMARK("100") "\n");
	send_text(&f, "0\r\n\r\n");
	/* Its time was up: goes on where it was, without a list, on a new connection. */
	await_request(&f, 3, LIST_PATH "&watch=true");
	assert_non_null(strstr(f.server.path, "&resourceVersion=100"));
	assert_int_equal(f.server.accepted, 2);
	assert_int_equal(f.updates, 1);
	assert_int_equal(f.results[DISCOVERY_UNCHANGED], 0);
	assert_int_equal(f.results[DISCOVERY_ERROR], 0);
	finder_close(&f);
}

/* Events by the byte, several in one chunk, and blank lines. */
static void test_pieces(void **state)
{
	static const char text[] = EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))) "\n";
	char one[2] = "";
	struct finder f;
	size_t i;

	(void)state;
	finder_open(&f);
	finder_watch(&f);
	for (i = 0; i < sizeof(text) - 1; i++) {
		one[0] = text[i];
		send_chunk(&f, one);
		if (i % 16 == 0)
			assert_true(event_base_loop(f.base, EVLOOP_NONBLOCK) >= 0);
	}
	finder_run(&f, &f.updates, 2);
	assert_string_equal(f.list, "10.0.0.1:6443 10.0.0.2:6443");
	/* Gone and back in one breath: that is no news. */
	send_chunk(&f, EVENT("DELETED", OBJECT("b", "44", "")) "\n\n" EVENT(
			       "ADDED", OBJECT("b", "45", READY("10.0.0.2"))) "\n");
	await_result(&f, DISCOVERY_UNCHANGED, 1);
	assert_int_equal(f.updates, 2);
	assert_string_equal(state_of(&f).version, "45");
	finder_close(&f);
}

static void test_empty(void **state)
{
	struct finder f;

	(void)state;
	finder_open(&f);
	await_request(&f, 1, LIST_PATH);
	answer(&f, "200 OK", LIST(""));
	await_result(&f, DISCOVERY_EMPTY, 1);
	assert_int_equal(f.updates, 0);
	/* Nothing to believe, but to go on from. */
	await_request(&f, 2, LIST_PATH "&watch=true");
	begin_watch(&f);
	send_chunk(&f, EVENT("ADDED", OBJECT("a", "43", READY("10.0.0.1"))) "\n");
	finder_run(&f, &f.updates, 1);
	assert_string_equal(state_of(&f).error, "");
	send_chunk(&f, EVENT("MODIFIED",
			     OBJECT("a", "44",
				    "{\"addresses\":[\"10.0.0.1\"],\"conditions\":{\"ready\":"
				    "false}}")) "\n");
	await_result(&f, DISCOVERY_EMPTY, 2);
	assert_says(f.detail, "1 not ready");
	send_chunk(&f, EVENT("DELETED", OBJECT("a", "45", "")) "\n");
	await_result(&f, DISCOVERY_EMPTY, 3);
	assert_int_equal(f.updates, 1);
	assert_int_equal(state_of(&f).n_endpoints, 1);
	assert_says(state_of(&f).error, "not believed");
	/* A bookmark is no reason to forget that. */
	send_chunk(&f, BOOKMARK("46") "\n");
	while (strcmp(state_of(&f).version, "46") != 0)
		assert_true(event_base_loop(f.base, EVLOOP_ONCE) >= 0);
	assert_says(state_of(&f).error, "not believed");
	/* The same list as before is none that needs to be told. */
	send_chunk(&f, EVENT("ADDED", OBJECT("a", "47", READY("10.0.0.1"))) "\n");
	await_result(&f, DISCOVERY_UNCHANGED, 1);
	assert_string_equal(state_of(&f).error, "");
	finder_close(&f);
}

static void test_believed(void **state)
{
	struct klb_endpoint known[] = { endpoint("10.0.0.2:6443"), endpoint("10.0.0.1:6443") };
	struct finder f;

	(void)state;
	finder_init(&f);
	f.options.believed = known;
	f.options.n_believed = 2;
	finder_start(&f);
	await_request(&f, 1, LIST_PATH);
	answer(&f, "200 OK", TWO);
	await_result(&f, DISCOVERY_UNCHANGED, 1);
	assert_int_equal(f.updates, 0);
	assert_int_equal(state_of(&f).n_endpoints, 2);
	finder_close(&f);
}

static void test_too_many(void **state)
{
	char *text = many(KLB_MAX_BACKENDS + 1, false);
	struct finder f;

	(void)state;
	finder_open(&f);
	await_request(&f, 1, LIST_PATH);
	answer(&f, "200 OK", text);
	finder_run(&f, &f.updates, 1);
	assert_int_equal(f.warnings, 1);
	assert_says(f.warning, "65 apiservers");
	assert_int_equal(state_of(&f).n_endpoints, KLB_MAX_BACKENDS);
	free(text);
	finder_close(&f);
}

static void test_unusable(void **state)
{
	struct finder f;

	(void)state;
	finder_open(&f);
	await_request(&f, 1, LIST_PATH);
	answer(&f, "200 OK",
	       LIST(V4("a", "\"ports\":[{\"port\":443}]",
		       READY("10.96.0.1") "," READY("10.0.0.1") "," READY("127.0.0.1"))));
	finder_run(&f, &f.updates, 1);
	assert_string_equal(f.list, "10.0.0.1:443");
	assert_int_equal(f.warnings, 1);
	assert_says(f.warning, "2 endpoints are not used");
	finder_close(&f);
}

static void test_expired(void **state)
{
	struct finder f;

	(void)state;
	finder_open(&f);
	finder_watch(&f);
	/* What came before it counts. */
	send_chunk(&f, EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))) "\n" EXPIRED "\n");
	await_result(&f, DISCOVERY_EXPIRED, 1);
	assert_int_equal(f.updates, 2);
	/* The newest list, not any apiserver's idea of it. */
	await_request(&f, 3, LIST_PATH);
	assert_null(strstr(f.server.path, "resourceVersion"));
	answer(&f, "200 OK", ONE);
	finder_run(&f, &f.updates, 3);
	await_request(&f, 4, LIST_PATH "&watch=true");
	answer(&f, "410 Gone", "{\"kind\":\"Status\",\"code\":410}");
	await_result(&f, DISCOVERY_EXPIRED, 2);
	await_request(&f, 5, LIST_PATH);
	assert_null(strstr(f.server.path, "watch"));
	finder_close(&f);
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
	struct finder f;
	size_t i;

	(void)state;
	finder_open(&f);
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned int before = f.results[cases[i].result];

		await_request(&f, (unsigned int)i + 1, LIST_PATH);
		answer(&f, cases[i].status, cases[i].body);
		await_result(&f, cases[i].result, before + 1);
		assert_says(f.detail, cases[i].says);
		assert_string_equal(state_of(&f).error, f.detail);
	}
	/* And then all is well. */
	await_request(&f, (unsigned int)i + 1, LIST_PATH);
	answer(&f, "200 OK", ONE);
	finder_run(&f, &f.updates, 1);
	assert_string_equal(state_of(&f).error, "");
	finder_close(&f);
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
	struct finder f;
	size_t i;

	(void)state;
	finder_open(&f);
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		await_request(&f, (unsigned int)i + 1, LIST_PATH);
		send_text(&f, cases[i].text);
		await_result(&f, DISCOVERY_ERROR, (unsigned int)i + 1);
		assert_says(f.detail, cases[i].says);
		assert_says(f.detail, "127.0.0.1:");
	}
	/* Half a list, and the process dies. */
	await_request(&f, (unsigned int)i + 1, LIST_PATH);
	send_text(&f, "HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{\"kind\":");
	finder_run(&f, &f.ticks, 0);
	event_base_loop(f.base, EVLOOP_NONBLOCK);
	hang_up(&f);
	await_result(&f, DISCOVERY_ERROR, (unsigned int)i + 1);
	assert_says(f.detail, "closed the connection");
	assert_int_equal(f.updates, 0);
	finder_close(&f);
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
	struct finder f;
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		finder_open(&f);
		finder_watch(&f);
		send_chunk(&f, cases[i].chunk);
		if (cases[i].end)
			send_text(&f, "0\r\n\r\n");
		await_result(&f, DISCOVERY_ERROR, 1);
		assert_says(f.detail, cases[i].says);
		assert_int_equal(f.updates, 1);
		/* What makes no sense puts the version in doubt; what broke off does not. */
		await_request(&f, 3, cases[i].end ? LIST_PATH "&watch" : LIST_PATH);
		assert_true(cases[i].end || !strstr(f.server.path, "watch"));
		finder_close(&f);
	}
}

/* A watch that broke off goes on where it was; one that never works is not for ever. */
static void test_disconnects(void **state)
{
	unsigned int i;
	struct finder f;

	(void)state;
	finder_open(&f);
	finder_watch(&f);
	send_chunk(&f, EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))) "\n{\"half");
	finder_run(&f, &f.updates, 2);
	hang_up(&f);
	for (i = 3; i < 5; i++) {
		await_request(&f, i, LIST_PATH "&watch");
		assert_non_null(strstr(f.server.path, "&resourceVersion=43"));
		hang_up(&f);
	}
	await_request(&f, 5, LIST_PATH);
	assert_null(strstr(f.server.path, "watch"));
	assert_int_equal(f.results[DISCOVERY_ERROR], 3);
	finder_close(&f);
}

/* After a failure a watch's headers are the first good news, and for an hour the only. */
static void test_works_again(void **state)
{
	struct finder f;

	(void)state;
	finder_open(&f);
	finder_watch(&f);
	hang_up(&f);
	await_result(&f, DISCOVERY_ERROR, 1);
	await_request(&f, 3, LIST_PATH "&watch=true");
	assert_int_equal(f.results[DISCOVERY_UNCHANGED], 0);
	begin_watch(&f);
	await_result(&f, DISCOVERY_UNCHANGED, 1);
	assert_string_equal(state_of(&f).error, "");
	/* Once: neither for what follows, nor for a watch that no failure came before. */
	send_chunk(&f, BOOKMARK("100") "\n");
	send_text(&f, "0\r\n\r\n");
	await_request(&f, 4, LIST_PATH "&watch=true");
	begin_watch(&f);
	send_chunk(&f, BOOKMARK("101") "\n");
	while (strcmp(state_of(&f).version, "101") != 0)
		assert_true(event_base_loop(f.base, EVLOOP_ONCE) >= 0);
	assert_int_equal(f.results[DISCOVERY_UNCHANGED], 1);
	/* The owner may have had enough just then. */
	hang_up(&f);
	await_result(&f, DISCOVERY_ERROR, 2);
	await_request(&f, 5, LIST_PATH "&watch=true");
	f.hook = HOOK_FREE_IN_RESULT;
	begin_watch(&f);
	await_result(&f, DISCOVERY_UNCHANGED, 2);
	finder_close(&f);
}

/* What was not believed before the failure is no good news after it. */
static void test_works_again_with_nobody(void **state)
{
	struct finder f;

	(void)state;
	finder_open(&f);
	await_request(&f, 1, LIST_PATH);
	answer(&f, "200 OK", LIST(""));
	await_request(&f, 2, LIST_PATH "&watch=true");
	hang_up(&f);
	await_result(&f, DISCOVERY_ERROR, 1);
	await_request(&f, 3, LIST_PATH "&watch=true");
	begin_watch(&f);
	send_chunk(&f, BOOKMARK("100") "\n");
	while (strcmp(state_of(&f).version, "100") != 0)
		assert_true(event_base_loop(f.base, EVLOOP_ONCE) >= 0);
	assert_int_equal(f.results[DISCOVERY_UNCHANGED], 0);
	finder_close(&f);
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
	struct finder f;
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned int n = 2;

		finder_open(&f);
		await_request(&f, 1, LIST_PATH);
		answer(&f, "200 OK", ONE);
		do {
			await_request(&f, n++, LIST_PATH "&watch=true");
			answer(&f, cases[i].status, "{\"kind\":\"Status\"}");
			await_result(&f, cases[i].result, n - 2);
		} while (!cases[i].lists && n < 5);
		/* The third in a row puts the version in doubt, whatever it is. */
		await_request(&f, n, LIST_PATH);
		assert_null(strstr(f.server.path, "watch"));
		finder_close(&f);
	}
}

static void test_connection_not_kept(void **state)
{
	struct finder f;
	char text[1024];

	(void)state;
	finder_open(&f);
	await_request(&f, 1, LIST_PATH);
	snprintf(text, sizeof(text),
		 "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
		 strlen(ONE), ONE);
	send_text(&f, text);
	finder_run(&f, &f.updates, 1);
	await_request(&f, 2, LIST_PATH "&watch");
	assert_int_equal(f.server.accepted, 2);
	finder_close(&f);
}

static void test_unasked(void **state)
{
	struct finder f;

	(void)state;
	finder_open(&f);
	await_request(&f, 1, LIST_PATH);
	/* More than the answer: such a connection carries no watch. */
	send_text(&f, "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n");
	await_result(&f, DISCOVERY_ERROR, 1);
	assert_says(f.detail, "500: not the answer that was asked for");
	finder_close(&f);
}

/*
 * Time
 */

static void test_timeouts(void **state)
{
	struct finder f;

	(void)state;
	finder_init(&f);
	f.server.mute = true;
	f.timing.connect = 50;
	finder_start(&f);
	await_result(&f, DISCOVERY_ERROR, 1);
	assert_says(f.detail, "no connection within 50 ms");
	finder_close(&f);

	finder_init(&f);
	f.timing.answer = 200;
	finder_start(&f);
	await_request(&f, 1, LIST_PATH);
	send_text(&f, "HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{");
	await_result(&f, DISCOVERY_ERROR, 1);
	assert_says(f.detail, "no whole answer to the list within 200 ms");
	await_request(&f, 2, LIST_PATH);
	answer(&f, "200 OK", ONE);
	await_request(&f, 3, LIST_PATH "&watch");
	/* The body of an error is not a watch, and may not go on for ever. */
	send_text(&f, "HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
	await_result(&f, DISCOVERY_ERROR, 2);
	assert_says(f.detail, "no whole answer to the watch within 200 ms");
	finder_close(&f);
}

static void test_stalls(void **state)
{
	struct finder f;

	(void)state;
	finder_init(&f);
	f.timing.line = 100;
	f.timing.silence = 600;
	finder_start(&f);
	finder_watch(&f);
	/* Dribbles: every byte is progress, and yet there is none. */
	send_chunk(&f, "{");
	while (!f.results[DISCOVERY_ERROR]) {
		if (f.server.now)
			send_chunk(&f, " ");
		assert_true(event_base_loop(f.base, EVLOOP_ONCE) >= 0);
	}
	assert_says(f.detail, "an event is not complete within 100 ms");
	await_request(&f, 3, LIST_PATH "&watch");
	begin_watch(&f);
	await_result(&f, DISCOVERY_ERROR, 2);
	assert_says(f.detail, "the watch is silent for 600 ms");
	finder_close(&f);
}

/* A watch that ignores its timeoutSeconds. */
static void test_watch_beyond_its_time(void **state)
{
	struct finder f;

	(void)state;
	finder_init(&f);
	f.timing.watch = 100;
	f.timing.answer = 500;
	finder_start(&f);
	finder_watch(&f);
	while (!f.results[DISCOVERY_ERROR]) {
		if (f.server.now)
			send_chunk(&f, BOOKMARK("50") "\n");
		assert_true(event_base_loop(f.base, EVLOOP_ONCE) >= 0);
	}
	assert_says(f.detail, "beyond its time");
	finder_close(&f);
}

static void test_relist(void **state)
{
	struct finder f;

	(void)state;
	finder_init(&f);
	f.timing.relist = 1;
	finder_start(&f);
	finder_watch(&f);
	send_text(&f, "0\r\n\r\n");
	await_request(&f, 3, LIST_PATH);
	assert_null(strstr(f.server.path, "watch"));
	finder_close(&f);
}

/* Each wait is at least half of what it doubles to; never more tries than that. */
static void test_backoff(void **state)
{
	static const unsigned int waits[] = { 20, 40, 80, 160, 160, 160 };
	struct finder f;
	size_t i;

	(void)state;
	finder_init(&f);
	f.server.refuse = true;
	f.timing.backoff_min = 20;
	f.timing.backoff_max = 160;
	finder_start(&f);
	finder_run(&f, &f.server.accepted, ARRAY_SIZE(waits) + 1);
	for (i = 0; i < ARRAY_SIZE(waits); i++) {
		__u64 gap = f.server.accepted_ns[i + 1] - f.server.accepted_ns[i];

		/* libevent's clock is a coarse one. */
		if (gap + 5000000 < waits[i] / 2 * 1000000ULL)
			fail_msg("only %llu ms before try %zu", gap / 1000000, i + 2);
	}
	finder_close(&f);
}

/* An apiserver that says something good and hangs up does not get more tries. */
static void test_backoff_of_short_successes(void **state)
{
	struct finder f;
	unsigned int i;

	(void)state;
	finder_init(&f);
	f.timing.backoff_min = 20;
	f.timing.backoff_max = 160;
	finder_start(&f);
	for (i = 1; i <= 9; i += 2) {
		await_request(&f, i, LIST_PATH);
		answer(&f, "200 OK", ONE);
		await_request(&f, i + 1, LIST_PATH "&watch");
		answer(&f, "410 Gone", "");
		await_result(&f, DISCOVERY_EXPIRED, i / 2 + 1);
	}
	/* 10 + 20 + 40 + 80 */
	assert_true(f.server.accepted_ns[4] - f.server.accepted_ns[0] >= 130000000ULL);
	finder_close(&f);

	/* But one that goes on for a while does. */
	finder_init(&f);
	f.timing.backoff_min = 1;
	f.timing.backoff_max = 3600000;
	f.timing.stable = 0;
	finder_start(&f);
	for (i = 1; i <= 79; i += 2) {
		await_request(&f, i, LIST_PATH);
		answer(&f, "200 OK", ONE);
		await_request(&f, i + 1, LIST_PATH "&watch");
		answer(&f, "410 Gone", "");
	}
	finder_close(&f);
}

static void test_forbidden_waits(void **state)
{
	struct finder f;

	(void)state;
	finder_init(&f);
	f.timing.forbidden = 300;
	finder_start(&f);
	await_request(&f, 1, LIST_PATH);
	answer(&f, "403 Forbidden", "");
	await_result(&f, DISCOVERY_FORBIDDEN, 1);
	await_request(&f, 2, LIST_PATH);
	assert_true(f.server.accepted_ns[1] - f.server.accepted_ns[0] >= 130000000ULL);
	finder_close(&f);
}

/*
 * Credentials and TLS
 */

static void test_missing_kubeconfig(void **state)
{
	struct finder f;

	(void)state;
	finder_init(&f);
	unlink(f.kubeconfig);
	finder_start(&f);
	await_result(&f, DISCOVERY_CREDENTIALS, 3);
	assert_says(f.detail, "kubeconfig: no such file");
	assert_int_equal(f.server.accepted, 0);
	finder_kubeconfig(&f, "127.0.0.1", "    certificate-authority: none.crt\n", "");
	await_result(&f, DISCOVERY_CREDENTIALS, f.results[DISCOVERY_CREDENTIALS] + 2);
	assert_says(f.detail, "clusters[c].cluster.certificate-authority: ");
	assert_says(f.detail, "none.crt: no such file");
	/* It turns up: nothing needs to be told. */
	finder_kubeconfig(&f, "127.0.0.1", "    certificate-authority: ca.crt\n", "");
	await_request(&f, 1, LIST_PATH);
	assert_null(strstr(f.server.request, "Authorization"));
	answer(&f, "200 OK", ONE);
	finder_run(&f, &f.updates, 1);
	finder_close(&f);
}

/* The kubelet's certificate, a link that is turned to the next one; and a token. */
static void test_rotation(void **state)
{
	char path[PATH_SIZE], link[PATH_SIZE], next[PATH_SIZE];
	struct finder f;

	(void)state;
	finder_init(&f);
	write_client(&pki.client);
	pki_write_cert(in_dir(path, "next.pem"), pki.renewed.cert);
	pki_write_key(path, "a", pki.renewed.key, NULL);
	assert_int_equal(symlink("client.pem", in_dir(link, "current.pem")), 0);
	write_file(in_dir(path, "token"), "first\n");
	finder_kubeconfig(&f, "127.0.0.1", "    certificate-authority: ca.crt\n",
			  "client-certificate: current.pem, client-key: current.pem, "
			  "tokenFile: token");
	finder_start(&f);
	finder_watch(&f);
	assert_string_equal(f.server.client, "first");
	assert_non_null(strstr(f.server.request, "Bearer first\r\n"));
	assert_int_equal(symlink("next.pem", in_dir(next, "new-link.pem")), 0);
	assert_int_equal(rename(next, link), 0);
	write_file(path, "second\n");
	send_text(&f, "0\r\n\r\n");
	await_request(&f, 3, LIST_PATH "&watch");
	assert_string_equal(f.server.client, "second");
	assert_non_null(strstr(f.server.request, "Bearer second\r\n"));
	unlink(link);
	finder_close(&f);
}

static void test_in_cluster(void **state)
{
	char dir[PATH_SIZE], path[PATH_SIZE];
	struct finder f;

	(void)state;
	finder_init(&f);
	f.options.kubeconfig = NULL;
	f.options.service_account = in_dir(dir, "sa");
	assert_int_equal(mkdir(dir, 0700), 0);
	write_file(in_dir(path, "sa/token"), TOKEN "\n");
	pki_write_cert(in_dir(path, "sa/ca.crt"), pki.ca.cert);
	unsetenv("KUBERNETES_SERVICE_HOST");
	finder_start(&f);
	await_request(&f, 1, LIST_PATH);
	assert_non_null(strstr(f.server.request, "Bearer " TOKEN "\r\n"));
	assert_non_null(strstr(f.server.request, "Host: kubernetes.default.svc:443\r\n"));
	finder_close(&f);
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
		struct finder f;

		finder_init(&f);
		finder_kubeconfig(&f, cases[i].host, cases[i].cluster, "token: " TOKEN);
		finder_start(&f);
		if (cases[i].says) {
			await_result(&f, DISCOVERY_ERROR, 1);
			assert_says(f.detail, cases[i].says);
			assert_int_equal(f.server.requests, 0);
		} else {
			await_request(&f, 1, LIST_PATH);
		}
		assert_int_equal(f.warnings, strstr(cases[i].cluster, "insecure") ? 1 : 0);
		finder_close(&f);
	}
}

static void test_refused(void **state)
{
	struct finder f;

	(void)state;
	finder_init(&f);
	evconnlistener_disable(f.server.listener);
	f.options.server =
		&(struct klb_endpoint){ .addr = { [10] = 255, 255, 127, 0, 0, 1 }, .port = 1 };
	finder_start(&f);
	await_result(&f, DISCOVERY_ERROR, 2);
	assert_says(f.detail, "127.0.0.1:1: connect: Connection refused");
	finder_close(&f);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct finder *f = arg;

	(void)fd;
	(void)what;
	f->ticks++;
}

#define LONG_LABEL "l2345678901234567890123456789012345678901234567890123456789012345"

/* The kubeconfig's own server, by name: looked up beside the loop. */
static void test_names(void **state)
{
	const struct timeval interval = { .tv_usec = 1000 };
	struct event *tick;
	struct finder f;

	(void)state;
	finder_init(&f);
	finder_kubeconfig(&f, "localhost", "    certificate-authority: ca.crt\n", "");
	f.options.server = NULL;
	finder_start(&f);
	await_request(&f, 1, LIST_PATH);
	assert_non_null(strstr(f.server.request, "Host: localhost:"));
	finder_close(&f);

	finder_init(&f);
	finder_kubeconfig(&f, "127.0.0.1", "    certificate-authority: ca.crt\n", "");
	f.options.server = NULL;
	finder_start(&f);
	await_request(&f, 1, LIST_PATH);
	finder_close(&f);

	/* No name server needs to be asked about this one: RFC 1035, 2.3.4. */
	finder_init(&f);
	finder_kubeconfig(&f, LONG_LABEL ".invalid", "    certificate-authority: ca.crt\n", "");
	f.options.server = NULL;
	tick = event_new(f.base, -1, EV_PERSIST, on_tick, &f);
	event_add(tick, &interval);
	finder_start(&f);
	await_result(&f, DISCOVERY_ERROR, 1);
	assert_says(f.detail, "cannot look up " LONG_LABEL ".invalid: ");
	event_free(tick);
	/* While the next one is being looked up, too. */
	finder_run(&f, &f.results[DISCOVERY_ERROR], 2);
	finder_close(&f);
}

/*
 * The cache of the running thing
 */

static void test_cache_follows(void **state)
{
	char path[PATH_SIZE];
	struct discovery_cached c;
	struct finder f;
	struct err e;

	(void)state;
	finder_init(&f);
	f.options.cache = in_dir(path, "lib/backends.json");
	finder_start(&f);
	finder_watch(&f);
	send_chunk(&f, EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))) "\n");
	finder_run(&f, &f.updates, 2);
	send_chunk(&f, EVENT("ADDED", OBJECT("b", "44", READY("10.0.0.3"))) "\n");
	finder_run(&f, &f.updates, 3);
	/* The end waits for the disk. */
	finder_close(&f);
	assert_int_equal(discovery_cache_load(path, NULL, 0, &c, &e), 0);
	assert_string_equal(list_text(c.list, c.n), "10.0.0.1:6443 10.0.0.3:6443");
	remove_dir(in_dir(path, "lib"));
}

static void test_cache_failure(void **state)
{
	char path[PATH_SIZE];
	struct finder f;

	(void)state;
	finder_init(&f);
	f.options.cache = in_dir(path, "not/there/backends.json");
	finder_start(&f);
	finder_watch(&f);
	finder_run(&f, &f.warnings, 1);
	assert_says(f.warning, "could not be cached");
	assert_says(f.warning, "not/there: cannot be created");
	/* The same list again is another chance. */
	send_chunk(&f, EVENT("MODIFIED", OBJECT("a", "43", READY("10.0.0.1"))) "\n");
	finder_run(&f, &f.warnings, 2);
	assert_int_equal(mkdir(in_dir(path, "not"), 0700), 0);
	send_chunk(&f, EVENT("MODIFIED", OBJECT("a", "44", READY("10.0.0.1"))) "\n");
	await_result(&f, DISCOVERY_UNCHANGED, 2);
	finder_close(&f);
	assert_int_equal(f.warnings, 2);
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
	char path[PATH_SIZE];
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(contents); i++) {
		struct discovery_cached c;
		struct finder f;
		struct err e;

		finder_init(&f);
		f.options.cache = in_dir(path, "other.json");
		f.options.believed = &known;
		f.options.n_believed = 1;
		if (contents[i])
			write_file(path, contents[i]);
		finder_start(&f);
		await_request(&f, 1, LIST_PATH);
		answer(&f, "200 OK", ONE);
		await_result(&f, DISCOVERY_UNCHANGED, 1);
		finder_close(&f);
		assert_int_equal(f.updates, 0);
		assert_int_equal(discovery_cache_load(path, NULL, 0, &c, &e), 0);
		assert_string_equal(list_text(c.list, c.n), "10.0.0.1:6443");
		unlink(path);
	}
}

/* A file that holds the list already is left alone: no node writes for every hour's list. */
static void test_cache_that_is_right(void **state)
{
	struct klb_endpoint known = endpoint("10.0.0.1:6443");
	char path[PATH_SIZE];
	struct stat before, after;
	struct finder f;
	struct err e;

	(void)state;
	finder_init(&f);
	f.options.cache = in_dir(path, "right.json");
	f.options.believed = &known;
	f.options.n_believed = 1;
	assert_int_equal(discovery_cache_save(path, &known, 1, &e), 0);
	assert_int_equal(stat(path, &before), 0);
	finder_start(&f);
	await_request(&f, 1, LIST_PATH);
	answer(&f, "200 OK", ONE);
	await_result(&f, DISCOVERY_UNCHANGED, 1);
	finder_close(&f);
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
		struct finder f;

		finder_init(&f);
		f.hook = cases[i].hook;
		finder_start(&f);
		await_request(&f, 1, LIST_PATH);
		answer(&f, "200 OK", cases[i].body);
		while (f.discovery)
			assert_true(event_base_loop(f.base, EVLOOP_ONCE) >= 0);
		finder_close(&f);
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
			struct finder f;

			finder_open(&f);
			finder_watch(&f);
			f.hook = hooks[i];
			send_chunk(&f, chunks[j]);
			while (f.discovery)
				assert_true(event_base_loop(f.base, EVLOOP_ONCE) >= 0);
			finder_close(&f);
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
			struct finder f;
			unsigned int i;

			finder_init(&f);
			finder_kubeconfig(&f, "localhost", "    certificate-authority: ca.crt\n",
					  "");
			if (by_name)
				f.options.server = NULL;
			f.timing.connect = f.timing.answer = f.timing.silence = 50;
			finder_start(&f);
			for (i = 0; i < turns; i++) {
				if (f.server.now && f.server.requests == 1 && !f.updates && i % 2)
					answer(&f, "200 OK", ONE);
				event_base_loop(f.base, EVLOOP_ONCE);
			}
			finder_close(&f);
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
static void send_events(struct finder *f, unsigned int from, unsigned int n)
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
		send_chunk(f, text);
		if (i % 50 == 49)
			finder_run(f, &f->updates, f->updates + 1);
	}
	snprintf(text, sizeof(text), "%u", 1000 + from + n - 1);
	while (strcmp(state_of(f).version, text) != 0)
		assert_true(event_base_loop(f->base, EVLOOP_ONCE) >= 0);
}

static void test_memory_is_flat(void **state)
{
	struct mallinfo2 before, after;
	size_t rss_before, rss_after;
	struct finder f;

	(void)state;
	finder_open(&f);
	finder_watch(&f);
	send_events(&f, 0, 2000);
	before = mallinfo2();
	rss_before = resident();
	send_events(&f, 2000, 10000);
	after = mallinfo2();
	rss_after = resident();
	printf("10000 events: heap %zu -> %zu, resident %zu -> %zu\n", before.uordblks,
	       after.uordblks, rss_before, rss_after);
	/* What is on its way between the two ends differs by a record or so. */
	assert_true(after.uordblks < before.uordblks + 64 * 1024UL);
	assert_true(rss_after < rss_before + 512 * 1024UL);
	finder_close(&f);
}

/* An event without an end: refused in time, and no more is kept of it than allowed. */
static void test_endless_event(void **state)
{
	char *piece = repeat("", "x", 60000, "");
	struct finder f;
	size_t sent = 0;

	(void)state;
	finder_open(&f);
	finder_watch(&f);
	while (!f.results[DISCOVERY_ERROR]) {
		if (f.server.now &&
		    evbuffer_get_length(bufferevent_get_output(f.server.now)) < 100000) {
			send_chunk(&f, piece);
			sent += 60000;
		}
		assert_true(event_base_loop(f.base, EVLOOP_ONCE) >= 0);
		assert_true(sent < 8 * 1024 * 1024UL);
	}
	assert_says(f.detail, "too large");
	free(piece);
	finder_close(&f);
}

/* A list of nearly the greatest size, in one breath: nothing gets stuck on the way. */
static void test_large_list(void **state)
{
	char *text = repeat(ONE, " ", 2 * 1024 * 1024 - sizeof(ONE), "");
	struct finder f;

	(void)state;
	finder_open(&f);
	await_request(&f, 1, LIST_PATH);
	answer(&f, "200 OK", text);
	finder_run(&f, &f.updates, 1);
	free(text);
	await_request(&f, 2, LIST_PATH "&watch");
	finder_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(test_lists),
		LEAVES_NOTHING(test_bad_lists),
		LEAVES_NOTHING(test_list_limits),
		LEAVES_NOTHING(test_many_endpoints),
		LEAVES_NOTHING(test_events),
		LEAVES_NOTHING(test_bad_events),
		LEAVES_NOTHING(test_text),
		LEAVES_NOTHING(test_answer_content),
		LEAVES_NOTHING(test_answer_stream),
		LEAVES_NOTHING(test_kubeconfig),
		LEAVES_NOTHING(test_bad_kubeconfigs),
		LEAVES_NOTHING(test_servers),
		LEAVES_NOTHING(test_token_files),
		LEAVES_NOTHING(test_cache),
		LEAVES_NOTHING(test_bad_caches),
		LEAVES_NOTHING(test_cache_disk_full),
		LEAVES_NOTHING(test_list_and_watch),
		LEAVES_NOTHING(test_bookmarks),
		LEAVES_NOTHING(test_pieces),
		LEAVES_NOTHING(test_empty),
		LEAVES_NOTHING(test_believed),
		LEAVES_NOTHING(test_too_many),
		LEAVES_NOTHING(test_unusable),
		LEAVES_NOTHING(test_expired),
		LEAVES_NOTHING(test_statuses),
		LEAVES_NOTHING(test_bad_answers),
		LEAVES_NOTHING(test_bad_watches),
		LEAVES_NOTHING(test_disconnects),
		LEAVES_NOTHING(test_works_again),
		LEAVES_NOTHING(test_works_again_with_nobody),
		LEAVES_NOTHING(test_refused_watches),
		LEAVES_NOTHING(test_connection_not_kept),
		LEAVES_NOTHING(test_unasked),
		LEAVES_NOTHING(test_timeouts),
		LEAVES_NOTHING(test_stalls),
		LEAVES_NOTHING(test_watch_beyond_its_time),
		LEAVES_NOTHING(test_relist),
		LEAVES_NOTHING(test_backoff),
		LEAVES_NOTHING(test_backoff_of_short_successes),
		LEAVES_NOTHING(test_forbidden_waits),
		LEAVES_NOTHING(test_missing_kubeconfig),
		LEAVES_NOTHING(test_rotation),
		LEAVES_NOTHING(test_in_cluster),
		LEAVES_NOTHING(test_verification),
		LEAVES_NOTHING(test_refused),
		LEAVES_NOTHING(test_names),
		LEAVES_NOTHING(test_cache_follows),
		LEAVES_NOTHING(test_cache_failure),
		LEAVES_NOTHING(test_cache_of_what_is_believed),
		LEAVES_NOTHING(test_cache_that_is_right),
		LEAVES_NOTHING(test_free_in_ops),
		LEAVES_NOTHING(test_free_in_watch),
		LEAVES_NOTHING(test_free_at_any_time),
		LEAVES_NOTHING(test_result_names),
		LEAVES_NOTHING(test_memory_is_flat),
		LEAVES_NOTHING(test_endless_event),
		LEAVES_NOTHING(test_large_list),
	};

	return cmocka_run_group_tests(tests, set_up, pki_remove);
}
