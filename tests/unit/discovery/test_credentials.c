/* SPDX-License-Identifier: BSD-2-Clause */
/* As whom, and with whom, discovery talks: URLs, tokens, certificates, and their successors. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "finder.h"
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
	assert_int_equal(credentials_load(NULL, dir, &c, &e), -ENOENT);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(test_servers),
		LEAVES_NOTHING(test_token_files),
		LEAVES_NOTHING(test_missing_kubeconfig),
		LEAVES_NOTHING(test_rotation),
		LEAVES_NOTHING(test_in_cluster),
	};

	return cmocka_run_group_tests(tests, set_up, pki_remove);
}
