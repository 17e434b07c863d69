/* SPDX-License-Identifier: BSD-2-Clause */
/* Kubeconfigs, good and bad. What is refused is named, and no secret is. */
#include <string.h>

#include "discovery/internal.h"
#include "unit.h"

#define TOKEN "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0.c2lnbmF0dXJl"

#define CLUSTER(keys) "clusters:\n- name: c\n  cluster:\n    server: https://10.0.0.1:6443\n" keys
#define CONTEXT                                                                              \
	"current-context: x\ncontexts:\n- name: other\n  context: {cluster: no, user: no}\n" \
	"- name: x\n  context: {cluster: c, user: u}\n"
#define USER(keys) "users:\n- name: u\n  user:\n" keys

static struct credentials *kubeconfig(const char *text)
{
	struct credentials *c = NULL;
	struct err e;

	if (kubeconfig_parse(text, strlen(text), "/etc/k/config", &c, &e))
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
	assert_string_equal(c->token.file, "/etc/token"); /* as filepath.Join */
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(test_kubeconfig),
		LEAVES_NOTHING(test_bad_kubeconfigs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
