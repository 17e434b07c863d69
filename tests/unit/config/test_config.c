/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "config/config.h"
#include "net/endpoint.h"
#include "unit.h"

/* The sample that the documentation shows. */
static const char sample[] =
	"frontends:                       # default: 127.0.0.1:6443 and [::1]:6443\n"
	"  - 127.0.0.1:6443\n"
	"  - address: 10.96.0.1:443       # the `kubernetes` Service, say\n"
	"    scope: all                   # host (default), or all: pods too\n"
	"backends:                        # the seed list\n"
	"  - 192.168.17.11                # :6443\n"
	"  - address: 192.168.17.12:6443\n"
	"    weight: 100\n"
	"policy: least-conn               # least-conn | random | rendezvous | latency\n"
	"local: prefer\n"
	"connectTimeout: 1s\n"
	"deadPeerTimeout: 10s\n"
	"probe:\n"
	"  path: /readyz\n"
	"  livePath: /livez\n"
	"  interval: 5s                   # jittered by 20 %\n"
	"  timeout: 3s\n"
	"  rise: 2\n"
	"  fall: 2\n"
	"  ca: /etc/kubernetes/pki/ca.crt # insecureSkipVerify: true turns that off\n"
	"  serverName: kubernetes         # default: the backend's address\n"
	"  clientCert: /var/lib/kubelet/pki/kubelet-client-current.pem   # optional\n"
	"  clientKey: /var/lib/kubelet/pki/kubelet-client-current.pem\n"
	"discovery:                       # optional\n"
	"  kubeconfig: /etc/kubernetes/kubelet.conf   # or in-cluster credentials\n"
	"  cache: /var/lib/kubelb/backends.json\n"
	"http: 127.0.0.1:8081             # \"\" turns it off\n"
	"cgroup: \"\"                       # as --cgroup\n";

static struct config *parse(const char *text)
{
	struct config *c = NULL;
	struct err e;

	if (config_parse(text, strlen(text), "test.yaml", true, &c, &e))
		fail_msg("%s", e.text);
	return c;
}

/* One line in the form that is promised, and nothing handed out. */
static void check_refused(const char *name, const char *text, size_t length, int line,
			  const char *key)
{
	struct config *untouched = (struct config *)&sample, *c = untouched;
	struct err e = { "" };
	char place[64];

	snprintf(place, sizeof(place), "test.yaml:%d: ", line);
	if (config_parse(text, length, "test.yaml", true, &c, &e) != -EINVAL)
		fail_msg("%s: was accepted", name);
	assert_ptr_equal(c, untouched);
	if (strncmp(e.text, place, strlen(place)) != 0)
		fail_msg("%s: expected line %d: %s", name, line, e.text);
	if (!strstr(e.text + strlen(place), key))
		fail_msg("%s: expected key %s: %s", name, key, e.text);
	if (strpbrk(e.text, "\n\r\t\033"))
		fail_msg("%s: not one printable line: %s", name, e.text);
	assert_int_equal(config_parse(text, length, "test.yaml", true, &c, NULL), -EINVAL);
}

static void check_endpoint(const struct klb_endpoint *ep, const char *want)
{
	char buf[ENDPOINT_TEXT_MAX];

	assert_string_equal(endpoint_format(ep, buf), want);
}

/* Who may connect from another machine, and to which of the frontends. */
static void for_other_machines(void **state)
{
	static const char text[] = "backends: [10.0.0.1]\n"
				   "dataPath: relay\n"
				   "frontends:\n"
				   "  - 127.0.0.1:6443\n"
				   "  - address: 192.168.17.100:8443\n"
				   "    scope: network\n"
				   "    allow: [192.168.17.0/24, \"fd00::/8\"]\n"
				   "relay:\n"
				   "  connectionsPerSource: 0\n";
	struct config *c = parse(text);
	char first[CIDR_TEXT_MAX], second[CIDR_TEXT_MAX];

	(void)state;
	assert_int_equal(c->data_path, CONFIG_DATA_PATH_RELAY);
	assert_int_equal(c->frontends[0].scope, KLB_SCOPE_HOST);
	assert_int_equal(c->access[0].n_allow, 0);
	assert_int_equal(c->frontends[1].scope, KLB_SCOPE_NETWORK);
	assert_int_equal(c->access[1].n_allow, 2);
	assert_string_equal(cidr_format(&c->access[1].allow[0], first), "192.168.17.0/24");
	assert_string_equal(cidr_format(&c->access[1].allow[1], second), "fd00::/8");
	assert_int_equal(c->relay.per_source, 0);
	config_free(c);
}

static void bad_configurations(void **state)
{
	const char *directory = getenv("KLB_TESTDATA");
	json_t *table, *entry;
	json_error_t error;
	char path[PATH_MAX];
	size_t i;

	(void)state;
	snprintf(path, sizeof(path), "%s/bad_config.json", directory ? directory : "tests/data");
	table = json_load_file(path, JSON_ALLOW_NUL, &error);
	if (!json_is_array(table))
		fail_msg("%s:%d: %s; KLB_TESTDATA names its directory", path, error.line,
			 error.text);
	assert_true(json_array_size(table) >= 45);
	json_array_foreach(table, i, entry) {
		json_t *yaml = json_object_get(entry, "yaml");
		const char *name = json_string_value(json_object_get(entry, "name"));
		const char *key = json_string_value(json_object_get(entry, "key"));

		if (!name || !key || !json_is_string(yaml))
			fail_msg("%s: entry %zu lacks name, yaml or key", path, i);
		check_refused(name, json_string_value(yaml), json_string_length(yaml),
			      (int)json_integer_value(json_object_get(entry, "line")), key);
	}
	json_decref(table);
}

/* Bytes that JSON cannot hold, or should not. */
static void bad_bytes(void **state)
{
	static const char nul[] = "backends:\n  - 10.0.0.1\nhttp: \"\"\0\n";
	static const char latin1[] = "backends:\n  - 10.0.0.1 # r\xe9seau\n";
	static const char escape[] = "backends:\n  - 10.0.0.1\n\"\\e[2J\\x9b\\n\": 1\n";

	(void)state;
	check_refused("NUL", nul, sizeof(nul) - 1, 3, "YAML");
	check_refused("Latin-1", latin1, sizeof(latin1) - 1, 2, "YAML");
	check_refused("terminal escape in a key", escape, sizeof(escape) - 1, 3, "??");
}

static void too_large(void **state)
{
	char *text = malloc(CONFIG_BYTES_MAX + 1);
	struct config *c;
	struct err e;

	(void)state;
	assert_non_null(text);
	memset(text, '\n', CONFIG_BYTES_MAX + 1);
	memcpy(text, "backends: [10.0.0.1]", 20);
	assert_int_equal(config_parse(text, CONFIG_BYTES_MAX + 1, "test.yaml", true, &c, &e),
			 -EINVAL);
	assert_non_null(strstr(e.text, "test.yaml: larger"));
	assert_int_equal(config_parse(text, CONFIG_BYTES_MAX, "test.yaml", true, &c, &e), 0);
	config_free(c);
	free(text);
}

/* Repeats pattern up to the largest size there may be. */
static char *fill(const char *pattern)
{
	char *text = malloc(CONFIG_BYTES_MAX);
	size_t length = strlen(pattern);

	assert_non_null(text);
	for (size_t i = 0; i < CONFIG_BYTES_MAX; i++)
		text[i] = pattern[i % length];
	return text;
}

/* Too much of anything ends in a complaint: not in a full stack, nor in minutes of work. */
static void too_much(void **state)
{
	static const struct {
		const char *pattern, *complaint;
	} table[] = {
		{ "[", "nested too deeply" },
		{ "{", "nested too deeply" },
		{ "- ", "nested too deeply" },
		{ "[a,", "nested too deeply" },
		{ "- a\n", "more than 4096 values" },
		{ "- &a b\n- *a\n", "more than 4096 values" },
		{ "a: b\n", "more than 4096 values" },
		{ "--- a\n", "second document" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char *text = fill(table[i].pattern);
		struct config *c;
		struct err e;

		alarm(30);
		assert_int_equal(config_parse(text, CONFIG_BYTES_MAX, "test.yaml", true, &c, &e),
				 -EINVAL);
		alarm(0);
		if (!strstr(e.text, table[i].complaint))
			fail_msg("no '%s' in: %s", table[i].complaint, e.text);
		free(text);
	}
}

static void alias_circle(void **state)
{
	static const char list[] = "backends: &a [*a]\n";
	static const char mapping[] = "probe: &a\n  path: *a\n";

	(void)state;
	check_refused("circle of lists", list, sizeof(list) - 1, 1, "backends[0]");
	check_refused("circle of mappings", mapping, sizeof(mapping) - 1, 2, "probe.path");
}

static void defaults(void **state)
{
	struct config *c = parse("backends: [10.0.0.1]\n");

	(void)state;
	assert_string_equal(c->source, "test.yaml");
	assert_int_equal(c->n_frontends, 2);
	check_endpoint(&c->frontends[0].endpoint, "127.0.0.1:6443");
	check_endpoint(&c->frontends[1].endpoint, "[::1]:6443");
	assert_int_equal(c->frontends[0].scope, KLB_SCOPE_HOST);
	assert_int_equal(c->frontends[1].scope, KLB_SCOPE_HOST);
	assert_int_equal(c->n_backends, 1);
	check_endpoint(&c->backends[0].endpoint, "10.0.0.1:6443");
	assert_int_equal(c->backends[0].weight, KLB_WEIGHT_DEFAULT);
	assert_int_equal(c->policy, KLB_POLICY_LEAST_CONN);
	assert_int_equal(c->local, KLB_LOCAL_PREFER);
	assert_int_equal(c->connect_timeout_ms, 1000);
	assert_int_equal(c->dead_peer_timeout_ms, 10000);
	assert_int_equal(c->slow_start_ms, 30000);
	assert_false(c->rebalance);
	assert_int_equal(c->relay.drain_ms, 10000);
	assert_int_equal(c->relay.connections, 2048);
	assert_true(c->relay.rescue);
	assert_true(c->relay.detour);
	assert_int_equal(c->relay.mark, 0x1000);
	assert_int_equal(c->relay.mask, 0x3fff);
	assert_int_equal(c->relay.table, 6443);
	assert_false(c->discovery);
	assert_null(c->discovery_kubeconfig);
	assert_null(c->discovery_cache);
	assert_true(c->http_enabled);
	check_endpoint(&c->http, "127.0.0.1:8081");
	assert_null(c->http_socket);
	assert_null(c->cgroup);
	config_free(c);
}

static void probe_defaults(void **state)
{
	static const char *const texts[] = { "backends: [10.0.0.1]\n",
					     "backends: [10.0.0.1]\nprobe: {}\n" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct config *c = parse(texts[i]);

		assert_string_equal(c->probe.path, "/readyz");
		assert_string_equal(c->probe.live_path, "/livez");
		assert_int_equal(c->probe.interval_ms, 5000);
		assert_int_equal(c->probe.timeout_ms, 3000);
		assert_int_equal(c->probe.ping_ms, 1000);
		assert_int_equal(c->probe.ping_timeout_ms, 1000);
		assert_int_equal(c->probe.rise, 2);
		assert_int_equal(c->probe.fall, 2);
		assert_null(c->probe.ca);
		assert_false(c->probe.insecure_skip_verify);
		assert_null(c->probe.server_name);
		assert_null(c->probe.client_cert);
		assert_null(c->probe.client_key);
		assert_true(c->probe.anonymous_auth);
		config_free(c);
	}
}

static void default_frontends_without_ipv6(void **state)
{
	static const char text[] = "backends: [10.0.0.1, \"[::1]:6443\"]\n";
	struct config *c;
	struct err e;

	(void)state;
	assert_int_equal(config_parse(text, strlen(text), "f", false, &c, &e), 0);
	assert_int_equal(c->n_frontends, 1);
	check_endpoint(&c->frontends[0].endpoint, "127.0.0.1:6443");
	config_free(c);
	/* With IPv6, the second backend is a default frontend. */
	assert_int_equal(config_parse(text, strlen(text), "f", true, &c, &e), -EINVAL);
	assert_non_null(strstr(e.text, "backends[1]"));
}

static void check_sample(const char *text)
{
	struct config *c = parse(text);

	assert_int_equal(c->n_frontends, 2);
	check_endpoint(&c->frontends[1].endpoint, "10.96.0.1:443");
	assert_int_equal(c->frontends[0].scope, KLB_SCOPE_HOST);
	assert_int_equal(c->frontends[1].scope, KLB_SCOPE_ALL);
	assert_int_equal(c->n_backends, 2);
	check_endpoint(&c->backends[0].endpoint, "192.168.17.11:6443");
	check_endpoint(&c->backends[1].endpoint, "192.168.17.12:6443");
	assert_int_equal(c->backends[1].weight, 100);
	assert_int_equal(c->policy, KLB_POLICY_LEAST_CONN);
	assert_int_equal(c->probe.interval_ms, 5000);
	assert_string_equal(c->probe.ca, "/etc/kubernetes/pki/ca.crt");
	assert_string_equal(c->probe.server_name, "kubernetes");
	assert_string_equal(c->probe.client_cert,
			    "/var/lib/kubelet/pki/kubelet-client-current.pem");
	assert_string_equal(c->probe.client_key, "/var/lib/kubelet/pki/kubelet-client-current.pem");
	assert_true(c->discovery);
	assert_string_equal(c->discovery_kubeconfig, "/etc/kubernetes/kubelet.conf");
	assert_string_equal(c->discovery_cache, "/var/lib/kubelb/backends.json");
	assert_true(c->http_enabled);
	assert_null(c->cgroup);
	config_free(c);
}

static void full_sample(void **state)
{
	char windows[2 * sizeof(sample)], *out = windows;

	(void)state;
	check_sample(sample);
	for (const char *in = sample; *in; in++) {
		if (*in == '\n')
			*out++ = '\r';
		*out++ = *in;
	}
	*out = '\0';
	check_sample(windows);
}

/* The old key means what it always did; beside the new one it says the same or is refused. */
static void prefer_local_is_the_old_key(void **state)
{
	static const struct {
		const char *text;
		enum klb_local local;
	} cases[] = {
		{ "local: prefer\n", KLB_LOCAL_PREFER },
		{ "local: only\n", KLB_LOCAL_ONLY },
		{ "local: ignore\n", KLB_LOCAL_IGNORE },
		{ "preferLocal: true\n", KLB_LOCAL_PREFER },
		{ "preferLocal: false\n", KLB_LOCAL_IGNORE },
		{ "preferLocal: false\nlocal: ignore\n", KLB_LOCAL_IGNORE },
		{ "local: prefer\npreferLocal: true\n", KLB_LOCAL_PREFER },
	};
	char text[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct config *c;

		snprintf(text, sizeof(text), "backends: [10.0.0.1]\n%s", cases[i].text);
		c = parse(text);
		assert_int_equal(c->local, cases[i].local);
		config_free(c);
	}
}

/* What is printed is the same configuration, and is printed in the same way. */
static void check_printed(const char *text)
{
	struct config *c = parse(text), *again;
	char *first = NULL, *second = NULL;
	struct err e;

	assert_int_equal(config_print(c, true, &first, &e), 0);
	again = parse(first);
	assert_true(config_same_probe(c, again) && config_same_discovery(c, again));
	assert_int_equal(config_print(again, true, &second, &e), 0);
	assert_string_equal(first, second);
	free(first);
	free(second);
	config_free(c);
	config_free(again);
}

static void printed_and_read_again(void **state)
{
	(void)state;
	check_printed(sample);
	check_printed("backends: [10.0.0.1]\n");
	check_printed("discovery: {cache: \"\"}\nhttp: \"\"\n");
	check_printed("backends: [10.0.0.1, 10.0.0.2]\nhttp: [127.0.0.1:1, unix:/a]\n");
	check_printed("backends: [10.0.0.1]\nhttp: \"unix:/a b\"\n");
	check_printed(
		"backends: [10.0.0.1]\nprobe: {ca: \"/a \\\"\\\\ # \u00e9\\u2028\\ufeff\"}\n");
	check_printed("discovery: {kubeconfig: /a}\nprobe: {clientCert: /b, clientKey: /c}\n");
}

/* Each value of a configuration without a default, and each default with the word behind it. */
static void printed_values(void **state)
{
	static const char text[] =
		"backends: [{address: 10.0.0.1, weight: 7}]\n"
		"dataPath: relay\n"
		"frontends:\n"
		"  - 127.0.0.1:6443\n"
		"  - {address: \"[fd00::1]:8443\", scope: network, allow: [10.0.0.0/8]}\n"
		"policy: latency\nlocal: only\nconnectTimeout: 250ms\n"
		"deadPeerTimeout: 0\nslowStart: 90s\nrebalance: true\n"
		"probe: {path: /x, livePath: /y, interval: 1s, timeout: 2s, ping: 3s,\n"
		"        pingTimeout: 4s, rise: 5, fall: 6, serverName: a,\n"
		"        insecureSkipVerify: true, anonymousAuth: false}\n"
		"relay: {rescue: false, detour: false, mark: 0x40000/0xff0000, table: 7,\n"
		"        connections: 8, connectionsPerSource: 0, drain: 9s}\n"
		"http: \"[::1]:1\"\ncgroup: /c\n";
	static const char *const lines[] = {
		"  - address: \"[fd00::1]:8443\"\n    scope: network\n    allow:\n      - "
		"\"10.0.0.0/8\"\n",
		"  - address: 10.0.0.1:6443\n    weight: 7\n",
		"\npolicy: latency\n",
		"\nlocal: only\n",
		"\ndataPath: relay\n",
		"\nconnectTimeout: 250ms\n",
		"\ndeadPeerTimeout: 0\n",
		"\nslowStart: 90s\n",
		"\nrebalance: true\n",
		"  path: /x\n",
		"  livePath: /y\n",
		"  interval: 1s\n",
		"  timeout: 2s\n",
		"  ping: 3s\n",
		"  pingTimeout: 4s\n",
		"  rise: 5\n",
		"  fall: 6\n",
		"  serverName: \"a\"\n",
		"  insecureSkipVerify: true\n",
		"  anonymousAuth: false\n",
		"  rescue: false\n",
		"  detour: false\n",
		"  mark: 0x40000/0xff0000\n",
		"  table: 7\n",
		"  connections: 8\n",
		"  connectionsPerSource: 0\n",
		"  drain: 9s\n",
		"\nhttp: \"[::1]:1\"\n",
		"\ncgroup: /c\n",
	};
	struct config *c = parse(text);
	unsigned int n = 0;
	char *printed = NULL;
	struct err e;

	(void)state;
	assert_int_equal(config_print(c, true, &printed, &e), 0);
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		if (!strstr(printed, lines[i]))
			fail_msg("%s is not in:\n%s", lines[i], printed);
	assert_null(strstr(printed, "# default"));
	free(printed);
	config_free(c);
	c = parse("backends: [10.0.0.1]\n");
	assert_int_equal(config_print(c, true, &printed, &e), 0);
	/* All but the address of the backend. */
	for (const char *at = printed; (at = strstr(at, " # default\n")); at++)
		n++;
	assert_int_equal(n, 29);
	free(printed);
	config_free(c);
}

static void where_http_is_served(void **state)
{
	static const struct {
		const char *text;
		const char *address; /* NULL: none */
		const char *socket;
	} cases[] = {
		{ "http: unix:/run/kubelb/agent.sock\n", NULL, "/run/kubelb/agent.sock" },
		{ "http: [127.0.0.1:1]\n", "127.0.0.1:1", NULL },
		{ "http: [\"[::1]:1\", unix:/a]\n", "[::1]:1", "/a" },
		{ "http:\n  - unix:/a\n  - 127.0.0.1:1\n", "127.0.0.1:1", "/a" },
		{ "http: [unix:/a]\n", NULL, "/a" },
	};
	char text[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct config *c, *copy = NULL;
		struct err e;

		snprintf(text, sizeof(text), "backends: [10.0.0.1]\n%s", cases[i].text);
		c = parse(text);
		assert_int_equal(config_with_backends(c, NULL, 0, &copy, &e), 0);
		config_free(c);
		assert_int_equal(copy->http_enabled, cases[i].address != NULL);
		if (cases[i].address)
			check_endpoint(&copy->http, cases[i].address);
		if (cases[i].socket)
			assert_string_equal(copy->http_socket, cases[i].socket);
		else
			assert_null(copy->http_socket);
		config_free(copy);
	}
}

static void every_value_other_than_default(void **state)
{
	struct config *c = parse("frontends: [\"[fd00::1]:443\"]\n"
				 "backends: [{address: 'fd00::2', weight: 0}]\n"
				 "policy: rendezvous\n"
				 "local: only\n"
				 "connectTimeout: 250ms\n"
				 "deadPeerTimeout: 0\n"
				 "slowStart: 1m30s\n"
				 "rebalance: true\n"
				 "probe: {path: '/a?b=c%20d', livePath: /x, interval: 100ms,\n"
				 "        ping: 30s, pingTimeout: 100ms,\n"
				 "        timeout: 5m, rise: 100, fall: 1,\n"
				 "        insecureSkipVerify: true, serverName: 'fd00::2',\n"
				 "        anonymousAuth: false}\n"
				 "relay: {drain: 0, connections: 1, rescue: false,\n"
				 "        detour: false, mark: 0x40000/0xff0000, table: 7}\n"
				 "http: \"\"\n"
				 "cgroup: /sys/fs/cgroup/kubelet\n");

	(void)state;
	assert_int_equal(c->n_frontends, 1);
	check_endpoint(&c->frontends[0].endpoint, "[fd00::1]:443");
	check_endpoint(&c->backends[0].endpoint, "[fd00::2]:6443");
	assert_int_equal(c->backends[0].weight, 0);
	assert_int_equal(c->policy, KLB_POLICY_RENDEZVOUS);
	assert_int_equal(c->local, KLB_LOCAL_ONLY);
	assert_int_equal(c->connect_timeout_ms, 250);
	assert_int_equal(c->dead_peer_timeout_ms, 0);
	assert_int_equal(c->slow_start_ms, 90000);
	assert_true(c->rebalance);
	assert_false(c->probe.anonymous_auth);
	assert_string_equal(c->probe.path, "/a?b=c%20d");
	assert_string_equal(c->probe.live_path, "/x");
	assert_int_equal(c->probe.interval_ms, 100);
	assert_int_equal(c->probe.timeout_ms, 300000);
	assert_int_equal(c->probe.ping_ms, 30000);
	assert_int_equal(c->probe.ping_timeout_ms, 100);
	assert_int_equal(c->probe.rise, 100);
	assert_int_equal(c->probe.fall, 1);
	assert_true(c->probe.insecure_skip_verify);
	assert_string_equal(c->probe.server_name, "fd00::2");
	assert_int_equal(c->relay.drain_ms, 0);
	assert_int_equal(c->relay.connections, 1);
	assert_false(c->relay.rescue);
	assert_false(c->relay.detour);
	assert_int_equal(c->relay.mark, 0x40000);
	assert_int_equal(c->relay.mask, 0xff0000);
	assert_int_equal(c->relay.table, 7);
	assert_false(c->http_enabled);
	assert_string_equal(c->cgroup, "/sys/fs/cgroup/kubelet");
	config_free(c);
}

static void every_policy(void **state)
{
	static const struct {
		const char *text;
		enum klb_policy policy;
	} table[] = {
		{ "backends: [10.0.0.1]\npolicy: least-conn\n", KLB_POLICY_LEAST_CONN },
		{ "backends: [10.0.0.1]\npolicy: random\n", KLB_POLICY_RANDOM },
		{ "backends: [10.0.0.1]\npolicy: rendezvous\n", KLB_POLICY_RENDEZVOUS },
		{ "backends: [10.0.0.1]\npolicy: 'latency'\n", KLB_POLICY_LATENCY },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct config *c = parse(table[i].text);

		assert_int_equal(c->policy, table[i].policy);
		config_free(c);
	}
}

static void discovery_section(void **state)
{
	struct config *c = parse("discovery: {}\n");

	(void)state;
	assert_true(c->discovery);
	assert_int_equal(c->n_backends, 0);
	assert_null(c->discovery_kubeconfig);
	assert_string_equal(c->discovery_cache, "/var/lib/kubelb/backends.json");
	config_free(c);
	c = parse("discovery:\n  cache: \"\"\nbackends: []\n");
	assert_true(c->discovery);
	assert_null(c->discovery_cache);
	config_free(c);
}

static void slow_start_range(void **state)
{
	static const struct {
		const char *text;
		unsigned int ms;
	} table[] = {
		{ "backends: [10.0.0.1]\nslowStart: 0\n", 0 },
		{ "backends: [10.0.0.1]\nslowStart: 0s\n", 0 },
		{ "backends: [10.0.0.1]\nslowStart: 1s\n", 1000 },
		{ "backends: [10.0.0.1]\nslowStart: 1h\n", 3600000 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct config *c = parse(table[i].text);

		assert_int_equal(c->slow_start_ms, table[i].ms);
		config_free(c);
	}
}

/* A mark of bits that the default mask has not is compared as a whole. */
static void marks(void **state)
{
	static const struct {
		const char *text;
		__u32 mark, mask;
	} table[] = {
		{ "4096", 0x1000, 0x3fff },
		{ "0x10", 0x10, 0x3fff },
		{ "0xaB000000", 0xab000000, 0xffffffff },
		{ "0xffffffff/0xffffffff", 0xffffffff, 0xffffffff },
		{ "1/255", 1, 255 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char text[96];
		struct config *c;

		snprintf(text, sizeof(text), "backends: [10.0.0.1]\nrelay: {mark: %s}\n",
			 table[i].text);
		c = parse(text);
		assert_int_equal(c->relay.mark, table[i].mark);
		assert_int_equal(c->relay.mask, table[i].mask);
		config_free(c);
	}
}

/* --- with the backends of discovery -------------------------------------------------- */

static unsigned int endpoints_of(const char *const *texts, unsigned int n, struct klb_endpoint *ret)
{
	for (unsigned int i = 0; i < n; i++)
		ret[i] = endpoint(texts[i]);
	return n;
}

static void with_backends(void **state)
{
	static const char *const texts[] = { "10.0.0.2", "10.0.0.1:7443", "fd00::9", "10.0.0.1" };
	struct klb_endpoint list[ARRAY_SIZE(texts)];
	unsigned int n = endpoints_of(texts, ARRAY_SIZE(texts), list);
	struct config *c = parse(sample), *with = NULL;
	struct err e = { "" };

	(void)state;
	c->backends[1].weight = 7;
	endpoints_of((const char *const[]){ "192.168.17.12" }, 1, &list[3]);
	assert_int_equal(config_with_backends(c, list, n, &with, &e), 0);
	assert_int_equal(with->n_backends, 4);
	for (unsigned int i = 0; i < n; i++)
		assert_true(endpoint_equal(&with->backends[i].endpoint, &list[i]));
	assert_int_equal(with->backends[0].weight, KLB_WEIGHT_DEFAULT);
	assert_int_equal(with->backends[2].weight, KLB_WEIGHT_DEFAULT);
	assert_int_equal(with->backends[3].weight, 7);
	/* A copy of all the rest, which outlives the first. */
	config_free(c);
	assert_int_equal(with->n_frontends, 2);
	check_endpoint(&with->frontends[1].endpoint, "10.96.0.1:443");
	assert_string_equal(with->source, "test.yaml");
	assert_string_equal(with->probe.path, "/readyz");
	assert_string_equal(with->probe.live_path, "/livez");
	assert_string_equal(with->probe.ca, "/etc/kubernetes/pki/ca.crt");
	assert_string_equal(with->probe.server_name, "kubernetes");
	assert_string_equal(with->probe.client_cert,
			    "/var/lib/kubelet/pki/kubelet-client-current.pem");
	assert_string_equal(with->probe.client_key,
			    "/var/lib/kubelet/pki/kubelet-client-current.pem");
	assert_string_equal(with->discovery_kubeconfig, "/etc/kubernetes/kubelet.conf");
	assert_string_equal(with->discovery_cache, "/var/lib/kubelb/backends.json");
	config_free(with);
}

static void with_no_backends_found(void **state)
{
	struct config *c = parse(sample), *with = NULL;

	(void)state;
	assert_int_equal(config_with_backends(c, NULL, 0, &with, NULL), 0);
	assert_int_equal(with->n_backends, 2);
	check_endpoint(&with->backends[1].endpoint, "192.168.17.12:6443");
	config_free(with);
	config_free(c);
}

static void with_as_many_as_possible(void **state)
{
	struct config *c = parse("discovery: {cache: \"\"}\ncgroup: /x\n"), *with = NULL;
	struct klb_endpoint list[KLB_MAX_BACKENDS];
	char text[32];

	(void)state;
	for (int i = 0; i < KLB_MAX_BACKENDS; i++) {
		snprintf(text, sizeof(text), "10.0.1.%d", i);
		list[i] = endpoint(text);
	}
	assert_int_equal(config_with_backends(c, list, KLB_MAX_BACKENDS, &with, NULL), 0);
	assert_int_equal(c->n_backends, 0);
	config_free(c);
	assert_int_equal(with->n_backends, KLB_MAX_BACKENDS);
	check_endpoint(&with->backends[KLB_MAX_BACKENDS - 1].endpoint, "10.0.1.63:6443");
	assert_null(with->discovery_kubeconfig);
	assert_null(with->discovery_cache);
	assert_string_equal(with->cgroup, "/x");
	config_free(with);
}

static void aliases(void **state)
{
	struct config *c = parse("backends: &apiservers [10.0.0.1, 10.0.0.2]\n"
				 "probe: {path: &path /readyz?verbose, livePath: *path}\n");

	(void)state;
	assert_int_equal(c->n_backends, 2);
	assert_string_equal(c->probe.live_path, "/readyz?verbose");
	config_free(c);
}

static void as_many_as_allowed(void **state)
{
	char text[4096];
	size_t length = 0;
	struct config *c;

	(void)state;
	length += (size_t)snprintf(text, sizeof(text), "backends:\n");
	for (int i = 1; i <= KLB_MAX_BACKENDS; i++)
		length +=
			(size_t)snprintf(text + length, sizeof(text) - length, "- 10.0.0.%d\n", i);
	length += (size_t)snprintf(text + length, sizeof(text) - length, "frontends:\n");
	for (int i = 1; i <= KLB_MAX_FRONTENDS; i++)
		length += (size_t)snprintf(text + length, sizeof(text) - length, "- 127.0.0.1:%d\n",
					   i);
	c = parse(text);
	assert_int_equal(c->n_backends, KLB_MAX_BACKENDS);
	assert_int_equal(c->n_frontends, KLB_MAX_FRONTENDS);
	check_endpoint(&c->backends[KLB_MAX_BACKENDS - 1].endpoint, "10.0.0.64:6443");
	config_free(c);
}

/* Two messages that people act upon, word by word. */
static void messages(void **state)
{
	static const struct {
		const char *text, *want;
	} table[] = {
		{ "backends: [10.0.0.1]\npolcy: random\n",
		  "test.yaml:2: polcy: unknown key; did you mean policy?" },
		{ "backends:\n- 10.0.0.1\n- ::ffff:10.0.0.1\n",
		  "test.yaml:3: backends[1]: 10.0.0.1:6443 is there already (on line 2); "
		  "remove one of the two" },
		{ "backends: [10.0.0.1]\nfrontends: []\n",
		  "test.yaml:2: frontends: empty; remove the key for the default" },
		{ "backends: [10.0.0.1]\npolicy: rr\n",
		  "test.yaml:2: policy: 'rr' is not a policy; write least-conn, random, "
		  "rendezvous or latency" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		size_t length = strlen(table[i].text);
		struct config *c;
		struct err e;
		int r;

		r = config_parse(table[i].text, length, "test.yaml", true, &c, &e);
		assert_int_equal(r, -EINVAL);
		assert_string_equal(e.text, table[i].want);
	}
}

static void durations(void **state)
{
	static const struct {
		const char *text;
		unsigned int ms;
	} table[] = {
		{ "0", 0 },
		{ "0s", 0 },
		{ "1ms", 1 },
		{ "500ms", 500 },
		{ "5s", 5000 },
		{ "1m30s", 90000 },
		{ "1h", 3600000 },
		{ "1h0m1s", 3601000 },
		{ "1.5s", 1500 },
		{ ".5s", 500 },
		{ "1.s", 1000 },
		{ "0.001s", 1 },
		{ "0.25m", 15000 },
		{ "0.00001h", 36 },
		{ "1000us", 1 },
		{ "1000\u00b5s", 1 },
		{ "1000\u03bcs", 1 },
		{ "1000000ns", 1 },
		{ "0.5ms500us", 1 },
		{ "1s1m", 61000 },
		{ "007s", 7000 },
		{ "1.500000000000000000000000000000s", 1500 },
		{ "4294967295ms", UINT_MAX },
		{ "1193h2m47.295s", UINT_MAX },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		unsigned int ms = 12345;

		if (config_duration_ms(table[i].text, &ms))
			fail_msg("'%s' was refused", table[i].text);
		if (ms != table[i].ms)
			fail_msg("'%s' is %u ms", table[i].text, ms);
	}
}

static void bad_durations(void **state)
{
	static const char *const table[] = {
		"",
		"5",
		"00",
		"0.0",
		"s",
		".s",
		".",
		"-5s",
		"+5s",
		"-0",
		" 5s",
		"5s ",
		"5 s",
		"1m 30s",
		"5S",
		"5d",
		"5sec",
		"1.5.5s",
		"1,5s",
		"1e3s",
		"0x5s",
		"1.5ms",
		"1us",
		"999999ns",
		"0.0001s",
		"0.5ns",
		"0.000000000000000001h",
		"4294967296ms",
		"1194h",
		"18446744073709551616ns",
		"99999999999999999999999999s",
		"1193h2m47.296s",
		"5\xc2",
		"5\xb5s",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		unsigned int ms = 12345;

		if (config_duration_ms(table[i], &ms) != -EINVAL)
			fail_msg("'%s' was accepted", table[i]);
		assert_int_equal(ms, 12345);
	}
}

static void arguments(void **state)
{
	static const char *const frontends[] = { "127.0.0.1:6443", "[::1]:6443" };
	static const char *const backends[] = { "10.0.0.1", "10.0.0.2:443,weight=0",
						"[fd00::1]:443,weight=1000", "fd00::2,weight=7" };
	struct config *c;
	struct err e;

	(void)state;
	if (config_from_args(frontends, ARRAY_SIZE(frontends), backends, ARRAY_SIZE(backends),
			     false, &c, &e))
		fail_msg("%s", e.text);
	assert_string_equal(c->source, "command line");
	assert_int_equal(c->n_frontends, 2);
	check_endpoint(&c->frontends[1].endpoint, "[::1]:6443");
	assert_int_equal(c->frontends[1].scope, KLB_SCOPE_HOST);
	assert_int_equal(c->n_backends, 4);
	check_endpoint(&c->backends[1].endpoint, "10.0.0.2:443");
	check_endpoint(&c->backends[3].endpoint, "[fd00::2]:6443");
	assert_int_equal(c->backends[0].weight, KLB_WEIGHT_DEFAULT);
	assert_int_equal(c->backends[1].weight, 0);
	assert_int_equal(c->backends[2].weight, 1000);
	assert_int_equal(c->backends[3].weight, 7);
	assert_string_equal(c->probe.path, "/readyz");
	assert_int_equal(c->dead_peer_timeout_ms, 10000);
	config_free(c);
	assert_int_equal(config_from_args(NULL, 0, backends, 1, false, &c, &e), 0);
	assert_int_equal(c->n_frontends, 1);
	config_free(c);
}

static void bad_arguments(void **state)
{
	static const struct {
		const char *frontend, *backend, *second, *want;
	} table[] = {
		{ NULL, NULL, NULL, "command line: -b: no backend" },
		{ "127.0.0.1:6443", NULL, NULL, "command line: -b: no backend" },
		{ "127.0.0.1", "10.0.0.1", NULL, "command line: -f 127.0.0.1: " },
		{ "localhost:1", "10.0.0.1", NULL, "command line: -f localhost:1: " },
		{ NULL, "localhost", NULL, "command line: -b localhost: " },
		{ NULL, "", NULL, "command line: -b : " },
		{ NULL, ",weight=1", NULL, "command line: -b ,weight=1: " },
		{ NULL, "10.0.0.1,", NULL, "command line: -b 10.0.0.1,: ',' is unknown" },
		{ NULL, "10.0.0.1,weight=", NULL, "command line: -b 10.0.0.1,weight=: weight ''" },
		{ NULL, "10.0.0.1,weight=1001", NULL, "command line: -b 10.0.0.1,weight=1001: " },
		{ NULL, "10.0.0.1,weight=-1", NULL, "command line: -b 10.0.0.1,weight=-1: " },
		{ NULL, "10.0.0.1,weight=1,weight=2", NULL, "command line: -b 10.0.0.1,weight=1," },
		{ NULL, "10.0.0.1,scope=all", NULL, "',scope=all' is unknown" },
		{ NULL, "10.0.0.1", "10.0.0.1:6443", "is there already (-b 10.0.0.1)" },
		{ NULL, "127.0.0.1", NULL, "is also a frontend (by default)" },
		{ "10.0.0.9:443", "10.0.0.9:443", NULL, "is also a frontend (-f 10.0.0.9:443)" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const char *backends[] = { table[i].backend, table[i].second };
		size_t n_backends = !!table[i].backend + !!table[i].second;
		struct config *c;
		struct err e;
		int r;

		r = config_from_args(&table[i].frontend, !!table[i].frontend, backends, n_backends,
				     true, &c, &e);
		if (r != -EINVAL)
			fail_msg("entry %zu was accepted", i);
		if (!strstr(e.text, table[i].want))
			fail_msg("no '%s' in: %s", table[i].want, e.text);
	}
}

static void too_many_arguments(void **state)
{
	const char *backends[KLB_MAX_BACKENDS + 1], *frontends[KLB_MAX_FRONTENDS + 1];
	char text[KLB_MAX_BACKENDS + 1][32];
	struct config *c;
	struct err e;
	int r;

	(void)state;
	for (int i = 0; i <= KLB_MAX_BACKENDS; i++) {
		snprintf(text[i], sizeof(text[i]), "10.0.0.%d:%d", i, i + 1);
		backends[i] = text[i];
		if (i <= KLB_MAX_FRONTENDS)
			frontends[i] = text[i];
	}
	r = config_from_args(NULL, 0, backends, KLB_MAX_BACKENDS + 1, true, &c, &e);
	assert_int_equal(r, -EINVAL);
	assert_non_null(strstr(e.text, "-b 10.0.0.64:65: more than 64 backends"));
	r = config_from_args(frontends, KLB_MAX_FRONTENDS + 1, backends, 1, true, &c, &e);
	assert_int_equal(r, -EINVAL);
	assert_non_null(strstr(e.text, "-f 10.0.0.16:17: more than 16 frontends"));
}

static void the_http_port_as_an_argument(void **state)
{
	static const char *const frontends[] = { "127.0.0.1:8081" };
	static const char *const backends[] = { "10.0.0.1" };
	struct config *c;

	(void)state;
	/* Nobody serves http there: kubelb-agent takes no such arguments. */
	assert_int_equal(config_from_args(frontends, 1, backends, 1, true, &c, NULL), 0);
	config_free(c);
}

/* A directory of its own for the tests that need files; gone afterwards. */
static int make_directory(void **state)
{
	static char path[] = "/tmp/kubelb-test-config-XXXXXX";

	*state = mkdtemp(path);
	return *state ? 0 : -1;
}

static int remove_directory(void **state)
{
	return rmdir(*state);
}

static void load_file(void **state)
{
	char path[PATH_MAX];
	struct config *c;
	struct err e;
	FILE *f;

	snprintf(path, sizeof(path), "%s/kubelb.yaml", (const char *)*state);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(sample, f) >= 0);
	assert_int_equal(fclose(f), 0);
	if (config_load(path, true, &c, &e))
		fail_msg("%s", e.text);
	assert_string_equal(c->source, path);
	assert_int_equal(c->n_backends, 2);
	config_free(c);
	assert_int_equal(truncate(path, 10), 0); /* "frontends:" */
	assert_int_equal(config_load(path, true, &c, &e), -EINVAL);
	assert_int_equal(strncmp(e.text, path, strlen(path)), 0);
	assert_non_null(strstr(e.text, ".yaml:1: frontends: no value"));
	assert_int_equal(truncate(path, CONFIG_BYTES_MAX + 1), 0);
	assert_int_equal(config_load(path, true, &c, &e), -EINVAL);
	assert_non_null(strstr(e.text, "larger"));
	assert_int_equal(unlink(path), 0);
}

static void load_what_is_not_there(void **state)
{
	char path[PATH_MAX];
	struct config *c;
	struct err e;

	snprintf(path, sizeof(path), "%s/absent.yaml", (const char *)*state);
	assert_int_equal(config_load(path, true, &c, &e), -ENOENT);
	assert_non_null(strstr(e.text, "absent.yaml: no such file; create it"));
	assert_int_equal(config_load(path, true, &c, NULL), -ENOENT);
}

static void load_what_is_no_file(void **state)
{
	char path[PATH_MAX];
	struct config *c;
	struct err e;

	assert_int_equal(config_load(*state, true, &c, &e), -EISDIR);
	assert_non_null(strstr(e.text, "is a directory"));
	assert_int_equal(config_load("/dev/null", true, &c, &e), -EINVAL);
	snprintf(path, sizeof(path), "%s/fifo", (const char *)*state);
	assert_int_equal(mkfifo(path, 0600), 0);
	alarm(10); /* it would wait for a writer */
	assert_int_equal(config_load(path, true, &c, &e), -EINVAL);
	alarm(0);
	assert_non_null(strstr(e.text, "not a regular file"));
	assert_int_equal(unlink(path), 0);
}

static void load_closes_its_file(void **state)
{
	int before = dup(0), after;
	struct config *c;

	close(before);
	assert_int_equal(config_load(*state, true, &c, NULL), -EISDIR);
	assert_int_equal(config_load("/dev/null", true, &c, NULL), -EINVAL);
	assert_int_equal(config_load("/proc/self/status", true, &c, NULL), -EINVAL);
	after = dup(0);
	close(after);
	assert_int_equal(before, after);
}

static void free_nothing(void **state)
{
	(void)state;
	config_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(for_other_machines),
		cmocka_unit_test(bad_configurations),
		cmocka_unit_test(bad_bytes),
		cmocka_unit_test(too_large),
		cmocka_unit_test(too_much),
		cmocka_unit_test(alias_circle),
		cmocka_unit_test(defaults),
		cmocka_unit_test(probe_defaults),
		cmocka_unit_test(default_frontends_without_ipv6),
		cmocka_unit_test(full_sample),
		cmocka_unit_test(prefer_local_is_the_old_key),
		cmocka_unit_test(where_http_is_served),
		cmocka_unit_test(printed_and_read_again),
		cmocka_unit_test(printed_values),
		cmocka_unit_test(every_value_other_than_default),
		cmocka_unit_test(every_policy),
		cmocka_unit_test(discovery_section),
		cmocka_unit_test(slow_start_range),
		cmocka_unit_test(marks),
		cmocka_unit_test(with_backends),
		cmocka_unit_test(with_no_backends_found),
		cmocka_unit_test(with_as_many_as_possible),
		cmocka_unit_test(aliases),
		cmocka_unit_test(as_many_as_allowed),
		cmocka_unit_test(messages),
		cmocka_unit_test(durations),
		cmocka_unit_test(bad_durations),
		cmocka_unit_test(arguments),
		cmocka_unit_test(bad_arguments),
		cmocka_unit_test(too_many_arguments),
		cmocka_unit_test(the_http_port_as_an_argument),
		cmocka_unit_test(load_file),
		cmocka_unit_test(load_what_is_not_there),
		cmocka_unit_test(load_what_is_no_file),
		cmocka_unit_test(load_closes_its_file),
		cmocka_unit_test(free_nothing),
	};

	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
