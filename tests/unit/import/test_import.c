/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "net/endpoint.h"
#include "import/import.h"
#include "importer.h"
#include "unit.h"

/* What kubelb-load would read from it. */
static struct config *converted(enum import_kind kind, const char *text)
{
	char *made = importer_convert(kind, text);
	struct config *c = NULL;
	struct err e;

	if (config_parse(made, strlen(made), "kubelb.yaml", true, &c, &e))
		fail_msg("%s\n%s", e.text, made);
	free(made);
	return c;
}

static void check_endpoint(const struct klb_endpoint *ep, const char *want)
{
	char buf[ENDPOINT_TEXT_MAX];

	assert_string_equal(endpoint_format(ep, buf), want);
}

/* --- the files of tests/data/import ------------------------------------------ */

static char *read_data(const char *name)
{
	const char *directory = getenv("KLB_TESTDATA");
	char path[PATH_MAX], *text;
	size_t length;
	FILE *f;

	snprintf(path, sizeof(path), "%s/import/%s", directory ? directory : "tests/data", name);
	f = fopen(path, "r");
	if (!f)
		fail_msg("%s: %s; KLB_TESTDATA names tests/data", path, strerror(errno));
	text = calloc(1, 65536);
	assert_non_null(text);
	length = fread(text, 1, 65535, f);
	assert_in_range(length, 1, 65534);
	fclose(f);
	return text;
}

static void real_files(void **state)
{
	static const struct {
		enum import_kind kind;
		const char *name;
	} table[] = {
		{ NGINX, "kubespray-nginx.conf" },	{ NGINX, "rke-nginx.conf" },
		{ NGINX, "handmade-nginx.conf" },	{ HAPROXY, "kubespray-haproxy.cfg" },
		{ HAPROXY, "kubeadm-ha-haproxy.cfg" },	{ HAPROXY, "listen-haproxy.cfg" },
		{ KUBECONFIG, "kubelet-kubeadm.conf" }, { KUBECONFIG, "admin-kubeconfig.yaml" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char *text = read_data(table[i].name), expected[128], *want, *made[2];
		struct err e;

		snprintf(expected, sizeof(expected), "%s.expected.yaml", table[i].name);
		want = read_data(expected);
		for (size_t n = 0; n < 2; n++)
			if (import_convert(table[i].kind, text, strlen(text), table[i].name, NULL,
					   &made[n], &e))
				fail_msg("%s", e.text);
		assert_string_equal(made[0], want);
		assert_string_equal(made[1], want);
		free(text);
		free(want);
		free(made[0]);
		free(made[1]);
	}
}

/* --- what is carried over ----------------------------------------------------- */

static const struct importer_good good[] = {
	/* nginx: how files are written */
	{ NGINX,
	  "stream{server{listen 6443;proxy_pass 10.0.0.1:6443;}}",
	  { "  - 127.0.0.1:6443 ", "  - 10.0.0.1:6443 ", "listens on every address" } },
	{ NGINX,
	  "upstream k { server 10.0.0.1:6443; } server { listen 127.0.0.1:6443; proxy_pass k; }",
	  { "  - 10.0.0.1:6443 " } },
	{ NGINX,
	  STREAM("server '10.0.0.1:6443'; # one {\n#server 10.0.0.2:6443;\n", LISTEN),
	  { "  - 10.0.0.1:6443 ", "!10.0.0.2" } },
	{ NGINX,
	  "events { }\r\nstream {\r\nserver {\r\nlisten 127.0.0.1:6443;\r\nproxy_pass "
	  "10.0.0.1:6443;\r\n}\r\n}\r\n",
	  { "  - 127.0.0.1:6443               # line 4\n" } },
	{ NGINX, STREAM(ONE, "listen localhost:7443;"), { "  - 127.0.0.1:7443 " } },
	{ NGINX, STREAM(ONE, "listen [::]:6443;"), { "  - \"[::1]:6443\" ", "!- 127.0.0.1" } },
	{ NGINX,
	  STREAM(ONE, "listen [::]:6443 ipv6only=off;"),
	  { "  - \"[::1]:6443\" ", "  - 127.0.0.1:6443 ", "!listen ..." } },
	{ NGINX,
	  STREAM(ONE, "listen unix:/run/x; listen 10.0.0.7:6443;"),
	  { "- 10.0.0.7:6443 ", "listen unix:/run/x: only", "those of other hosts" } },
	{ NGINX, STREAM(ONE, LISTEN "listen [::1]:6443; "), { "  - \"[::1]:6443\" " } },
	{ NGINX, STREAM(ONE, "listen 127.0.0.1:6443 reuseport;"), { "listen ... reuseport" } },
	{ NGINX,
	  STREAM("server 10.0.0.1:6443;\nserver 10.0.0.1:6443;", LISTEN),
	  { "#   line 4: 10.0.0.1:6443 is there already (line 3)" } },
	{ NGINX,
	  STREAM(ONE "hash $\x7b"
		     "a} ; zone y\\ z 64k;",
		 LISTEN),
	  { "hash ${a}: rend", "line 3: zone y" } },
	/* nginx: the choice */
	{ NGINX,
	  "stream { server { listen 53 udp; proxy_pass 10.0.0.9:53; } server { listen "
	  "127.0.0.1:8443; proxy_pass 10.0.0.1:443; } }",
	  { "- 127.0.0.1:8443 ", "no port 6443 on either side" } },
	{ NGINX,
	  "stream { server { listen 3306; proxy_pass 10.0.0.9:3306; } server { listen 8443; "
	  "proxy_pass 10.0.0.1:6443; } }",
	  { "- 127.0.0.1:8443 ", "way to the apiservers: 3306 to 10.0.0.9:3306", "!Look at" } },
	{ NGINX,
	  "stream { upstream k { server 10.0.0.1:6443; } server { listen 127.0.0.1:6443; "
	  "proxy_pass k; } server { listen [::1]:6443; proxy_pass k; } }",
	  { "- 127.0.0.1:6443 ", "- \"[::1]:6443\" " } },
	{ NGINX,
	  "stream { proxy_connect_timeout 3; include /etc/nginx/stream.d/*;\n server { " LISTEN
	  " proxy_pass 10.0.0.1:6443; } }",
	  { "connectTimeout: 3s ", "include /etc/nginx/stream.d/* is not followed" } },
	/* nginx: policies and weights */
	{ NGINX, STREAM("least_conn;" ONE, LISTEN), { "\npolicy: least-conn  ", "!round robin" } },
	{ NGINX, STREAM("random;" ONE, LISTEN), { "\npolicy: random  " } },
	{ NGINX,
	  STREAM("hash $remote_addr consistent;" ONE, LISTEN),
	  { "\npolicy: rendezvous  " } },
	{ NGINX, STREAM(ONE, LISTEN), { "\n# policy: least-conn\n", "round robin" } },
	{ NGINX, STREAM(ONE "server 10.0.0.2:6443 weight=3;", LISTEN), { "weight: 300\n" } },
	{ NGINX,
	  STREAM("server 10.0.0.1:6443 weight=7;server 10.0.0.2:6443 weight=7;", LISTEN),
	  { "!weight:" } },
	{ NGINX,
	  STREAM("server 10.0.0.1:6443 weight=50;server 10.0.0.2:6443 weight=100;", LISTEN),
	  { "weight: 200\n", "!weight: 100", "  - 10.0.0.1:6443 " } },
	{ NGINX,
	  STREAM("server 10.0.0.1:6443 weight=256;" ONE "server 10.0.0.2:6443;", LISTEN),
	  { "weight: 768\n", "weight: 3\n" } },
	{ NGINX,
	  STREAM("server 10.0.0.1:6443 weight=4294967295;server 10.0.0.2:6443;", LISTEN),
	  { "weight: 1000\n", "weight: 1\n", "weights are rounded" } },
	{ NGINX,
	  STREAM("server 10.0.0.1:6443 down;", LISTEN),
	  { "weight: 0\n", "every weight is 0" } },
	{ NGINX,
	  STREAM(ONE "server 10.0.0.2:6443 backup;", LISTEN),
	  { "weight: 1\n", ": backup" } },
	/* nginx: times */
	{ NGINX,
	  STREAM(ONE, LISTEN "proxy_connect_timeout 1m30s;"),
	  { "connectTimeout: 1m ", "proxy_connect_timeout 90s: connectTimeout has a range" } },
	{ NGINX,
	  STREAM(ONE, LISTEN "proxy_connect_timeout '1s 500ms';"),
	  { "connectTimeout: 1500ms " } },
	{ NGINX,
	  STREAM(ONE, LISTEN "proxy_connect_timeout 999999999y;"),
	  { "connectTimeout: 1m " } },
	{ NGINX,
	  STREAM(ONE, LISTEN "proxy_connect_timeout 0;"),
	  { "# connectTimeout: 1s\n", ": proxy_connect_timeout 0" } },
	{ NGINX,
	  "http { server { listen 127.0.0.1:8081; } server { listen 8082; } }" STREAM(ONE, LISTEN),
	  { "\nhttp: 127.0.0.1:8083 " } },
	/* HAProxy: how files are written */
	{ HAPROXY, PROXY("", CHECKED), { "- 127.0.0.1:6443 ", "- 10.0.0.1:6443 ", ": one\n" } },
	{ HAPROXY,
	  "listen k\n\tbind :6443\n\tserver 'o n e' \"10.0.0.1\" # x",
	  { "- 127.0.0.1:6443 ", "- 10.0.0.1:6443 ", "line 3: o n e" } },
	{ HAPROXY,
	  "listen k\r\n bind 127.0.0.1:6443\r\n server a 10.0.0.1:6443#x\r\n",
	  { "- 10.0.0.1:6443 " } },
	{ HAPROXY,
	  "listen k\n bind :::6443 v4v6\n server a fd00::1:6443\n server b [fd00::2]:7443",
	  { "- \"[::1]:6443\" ", "- 127.0.0.1:6443 ", "- \"[fd00::1]:6443\" ", "fd00::2]:7443" } },
	{ HAPROXY,
	  "listen k\n bind ipv4@127.0.0.1:6443,ipv6@[::1]:6443,/run/x\n server a "
	  "ipv4@10.0.0.1:6443",
	  { "- 127.0.0.1:6443 ", "- \"[::1]:6443\" ", "- 10.0.0.1:6443 ", "bind /run/x: only" } },
	{ HAPROXY,
	  "listen a\\ b\n bind 127.0.0.1:6443\n server \\x41\\#\\x00z 10.0.0.1:6443",
	  { ": A#?z\n" } },
	/* HAProxy: the choice */
	{ HAPROXY,
	  "listen stats\n bind *:8404\n mode http\n stats enable\n" PROXY("", CHECKED),
	  { "- 127.0.0.1:6443 ", "apiservers: stats" } },
	{ HAPROXY,
	  "listen db\n bind :3306\n server d 10.0.0.9:3306\nlisten k\n bind :8443\n "
	  "server a 10.0.0.1:6443",
	  { "- 127.0.0.1:8443 ", "apiservers: db" } },
	{ HAPROXY,
	  PROXY(" use_backend x if { src 10.0.0.0/8 }", CHECKED),
	  { "use_backend x if { src 10.0.0.0/8 }: only what holds" } },
	/* HAProxy: defaults, by order and by name */
	{ HAPROXY,
	  "defaults\n timeout connect 7s\n" PROXY("", CHECKED),
	  { "connectTimeout: 7s " } },
	{ HAPROXY,
	  "defaults\n timeout connect 7s\n" PROXY("", " timeout connect 500\n" CHECKED),
	  { "connectTimeout: 500ms " } },
	{ HAPROXY,
	  "defaults a\n timeout connect 7s\ndefaults b\n timeout connect 8s\nlisten k "
	  "from a\n bind :6443\n server a 10.0.0.1",
	  { "connectTimeout: 7s " } },
	{ HAPROXY,
	  "defaults\n timeout connect 7s\ndefaults\n timeout connect 8s\nlisten k\n bind "
	  ":6443\n server a 10.0.0.1",
	  { "connectTimeout: 8s " } },
	{ HAPROXY,
	  "defaults\n timeout client 15m\n" PROXY("", CHECKED),
	  { "line 2: timeout client 15m: no connection" } },
	{ HAPROXY,
	  PROXY("", " timeout connect 0\n timeout check 1h\n" CHECKED),
	  { "# connectTimeout: 1s\n", "  timeout: 5m ", "probe.timeout has a range" } },
	/* HAProxy: checks */
	{ HAPROXY,
	  PROXY("", " default-server inter 2000 rise 3 fall 4\n" CHECKED),
	  { "  interval: 2s ", "  rise: 3 ", "  fall: 4 " } },
	{ HAPROXY,
	  PROXY("", " server a 10.0.0.1:6443 inter 2s rise 3"),
	  { "  # interval: 5s\n", "  # rise: 2\n" } },
	{ HAPROXY,
	  "defaults\n default-server inter 9s\n" PROXY("", CHECKED),
	  { "  interval: 9s " } },
	{ HAPROXY,
	  PROXY("", " server a 10.0.0.1:6443 check inter 50us"),
	  { "  interval: 100ms ", "probe.interval has a range that ends at 100ms" } },
	{ HAPROXY,
	  PROXY("", " server a 10.0.0.1:6443 check rise 0 fall 4294967296"),
	  { "  rise: 1 ", "  fall: 100 " } },
	{ HAPROXY,
	  PROXY("", " default-server check\n server a 10.0.0.1:6443 no-check inter 7s\n "
		    "server b 10.0.0.2:6443 inter 8s"),
	  { "  interval: 8s " } },
	{ HAPROXY,
	  PROXY("", " option httpchk GET /healthz\n" CHECKED),
	  { "/healthz as what is asked", "  # path: /readyz\n" } },
	{ HAPROXY,
	  PROXY("", " option httpchk GET /readyz?x=\"1\"\n" CHECKED),
	  { "  path: \"/readyz?x=1\" " } },
	{ HAPROXY,
	  PROXY("", " option httpchk GET '/readyz?a\"\\b'\n" CHECKED),
	  { "  path: \"/readyz?a\\\"\\\\b\" " } },
	{ HAPROXY,
	  PROXY("", " option httpchk GET '/readyz?\xc3\xa9'\n" CHECKED),
	  { "no plain ASCII" } },
	{ HAPROXY, PROXY("", " http-check expect status 403\n" CHECKED), { "without anonymous" } },
	{ HAPROXY, PROXY("", " http-check expect status 200\n" CHECKED), { "!expect" } },
	{ HAPROXY, PROXY("", " http-check expect rstatus ^2\n" CHECKED), { "200 is what makes" } },
	{ HAPROXY,
	  PROXY("", " server a 10.0.0.1:6443 check ca-file ca.pem crt /p"),
	  { "ca-file ca.pem: not an absolute path", "  clientKey: /p ", "  clientCert: /p " } },
	{ HAPROXY,
	  PROXY("", " server a 10.0.0.1:6443 check verify none ca-file /ca.pem"),
	  { "verify none", "!/ca.pem", "  ca: /etc/kubernetes/pki/ca.crt\n" } },
	{ HAPROXY,
	  PROXY("", " server a 10.0.0.1:6443 check check-sni 'a b'"),
	  { "neither a DNS name nor an address", "!serverName:" } },
	{ HAPROXY,
	  PROXY("", " server a 10.0.0.1:6443 check check-sni null"),
	  { "  serverName: \"null\" " } },
	{ HAPROXY, PROXY("", " server a 10.0.0.1:6443 tcp-ut 2h"), { "deadPeerTimeout: 1h " } },
	{ HAPROXY,
	  PROXY("", " server a 10.0.0.1:6443 non-stick on-error fastinter fastinter 1s"),
	  { ": non-stick\n", ": on-error fastinter\n", ": fastinter 1s\n" } },
	/* HAProxy: policies, weights, switches */
	{ HAPROXY, PROXY("", " balance leastconn\n" CHECKED), { "\npolicy: least-conn  " } },
	{ HAPROXY, PROXY("", " balance random\n" CHECKED), { "\npolicy: random  " } },
	{ HAPROXY, PROXY("", " balance first\n" CHECKED), { "balance first: ", "!\npolicy:" } },
	{ HAPROXY,
	  PROXY("", " default-server weight 100\n" CHECKED " server b 10.0.0.2 weight 0"),
	  { "weight: 0\n", "!every weight" } },
	{ HAPROXY,
	  PROXY("", " server a 10.0.0.1 weight 0"),
	  { "weight: 0\n", "every weight is 0" } },
	{ HAPROXY,
	  PROXY("", " default-server backup disabled\n server a 10.0.0.1 no-backup enabled"),
	  { "!weight:" } },
	{ HAPROXY,
	  "frontend h\n bind 127.0.0.1:8081,127.0.0.1:8082\n" PROXY("", CHECKED),
	  { "\nhttp: 127.0.0.1:8083 " } },
	/* kubeconfig */
	{ KUBECONFIG,
	  CLUSTER(""),
	  { "- 10.0.0.1:6443 ", "# frontends:\n", "add the others", "!certificate-authority" } },
	{ KUBECONFIG,
	  "{clusters: [{name: c, cluster: {server: 'https://[fd00::1]/'}}]}",
	  { "- \"[fd00::1]:443\" " } },
	{ KUBECONFIG,
	  CLUSTER("    insecure-skip-tls-verify: true\n"),
	  { "insecureSkipVerify: true ", "!  ca:" } },
	{ KUBECONFIG,
	  CLUSTER("    certificate-authority: pki/ca.crt\n"),
	  { "not an absolute path" } },
	{ KUBECONFIG,
	  CLUSTER("    certificate-authority: '/a: #b'\n    tls-server-name: k\n"),
	  { "  ca: \"/a: #b\" ", "  serverName: \"k\" " } },
	{ KUBECONFIG,
	  CLUSTER("    certificate-authority: \"/a\\u2028b\"\n"),
	  { "plain characters" } },
	{ KUBECONFIG,
	  CLUSTER("    proxy-url: socks5://10.0.0.9\n"),
	  { "proxy-url: backends are" } },
	{ KUBECONFIG,
	  CLUSTER("users:\n- {name: u, user: {client-key: /k}}\n"),
	  { "client-key: given without its other half", "!clientKey: /k" } },
	{ KUBECONFIG,
	  CLUSTER("users:\n- {name: u, user: {exec: {command: x}}}\n"),
	  { ": exec: " } },
	{ KUBECONFIG,
	  "current-context: x\ncontexts: [{name: x, context: {cluster: b}}]\nclusters:\n"
	  "- {name: a, cluster: {server: 'https://10.0.0.1:6443', "
	  "certificate-authority-data: QQ==}}\n- {name: b, cluster: {server: "
	  "'https://10.0.0.2:6443', certificate-authority-data: Qg==}}\n",
	  { "- 10.0.0.2:6443 ", "!- 10.0.0.1", "cluster a: another one", "names a file" } },
};

static void carried_over(void **state)
{
	(void)state;
	importer_check_good(good, ARRAY_SIZE(good));
}

/* The values, as kubelb-load reads them. */
static void values(void **state)
{
	struct config *c = converted(
		HAPROXY,
		"listen k\n bind 127.0.0.1:7443\n timeout connect 2s\n timeout check 700ms\n"
		" balance random\n server a 10.0.0.1 check inter 3s rise 4 fall 5 weight 20\n"
		" server b [fd00::2]:6444 weight 10\n");

	(void)state;
	assert_int_equal(c->n_frontends, 1);
	check_endpoint(&c->frontends[0].endpoint, "127.0.0.1:7443");
	assert_int_equal(c->n_backends, 2);
	check_endpoint(&c->backends[0].endpoint, "10.0.0.1:7443");
	check_endpoint(&c->backends[1].endpoint, "[fd00::2]:6444");
	assert_int_equal(c->backends[0].weight, 200);
	assert_int_equal(c->backends[1].weight, 100);
	assert_int_equal(c->policy, KLB_POLICY_RANDOM);
	assert_int_equal(c->connect_timeout_ms, 2000);
	assert_int_equal(c->probe.interval_ms, 3000);
	assert_int_equal(c->probe.timeout_ms, 700);
	assert_int_equal(c->probe.rise, 4);
	assert_int_equal(c->probe.fall, 5);
	assert_string_equal(c->probe.ca, "/etc/kubernetes/pki/ca.crt");
	assert_false(c->probe.insecure_skip_verify);
	config_free(c);
}

/* Both ends of every range, which config_yaml.c has to agree with. */
static void ranges(void **state)
{
	static const char low[] = "listen k\n bind :6443\n timeout connect 1\n timeout check 1\n "
				  "server a 10.0.0.1 check inter 1 rise 0 fall 0 tcp-ut 1\n";
	static const char high[] =
		"listen k\n bind :6443\n timeout connect 9d\n timeout check 9d\n "
		"server a 10.0.0.1 check inter 9d rise 999 fall 999 tcp-ut 9d\n";
	struct config *c = converted(HAPROXY, low);

	(void)state;
	assert_int_equal(c->connect_timeout_ms, 10);
	assert_int_equal(c->dead_peer_timeout_ms, 1000);
	assert_int_equal(c->probe.interval_ms, 100);
	assert_int_equal(c->probe.timeout_ms, 10);
	assert_int_equal(c->probe.rise, 1);
	assert_int_equal(c->probe.fall, 1);
	config_free(c);
	c = converted(HAPROXY, high);
	assert_int_equal(c->connect_timeout_ms, 60000);
	assert_int_equal(c->dead_peer_timeout_ms, 3600000);
	assert_int_equal(c->probe.interval_ms, 3600000);
	assert_int_equal(c->probe.timeout_ms, 300000);
	assert_int_equal(c->probe.rise, 100);
	assert_int_equal(c->probe.fall, 100);
	config_free(c);
}

/* The files that a kubeconfig names are relative to it. */
static void relative_files(void **state)
{
	static const char text[] = CLUSTER("    certificate-authority: pki/ca.crt\n");
	char *made = NULL;

	(void)state;
	assert_int_equal(import_convert(KUBECONFIG, text, strlen(text), "config", "/root/.kube",
					&made, NULL),
			 0);
	assert_non_null(strstr(made, "  ca: /root/.kube/pki/ca.crt "));
	free(made);
}

/* A line separator of YAML in a file must not end the comment that quotes it. */
static void no_way_out_of_a_comment(void **state)
{
	static const char *const texts[] = { "\xe2\x80\xa8", "\xe2\x80\xa9", "\xc2\x85",
					     "\x01\x1b[2J" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		char text[512], *made;

		snprintf(text, sizeof(text),
			 "listen k\n bind :6443\n option a%sbackends:%s- 10.6.6.6\n"
			 " server 'n%sm' 10.0.0.1:6443\n",
			 texts[i], texts[i], texts[i]);
		made = importer_convert(HAPROXY, text);
		for (const char *p = made; *p; p++)
			assert_true(*p == '\n' || (*p >= ' ' && *p < 0x7f));
		free(made);
	}
}

/* --- what is refused ---------------------------------------------------------- */

static const struct importer_bad bad[] = {
	{ NGINX, 0, "", "empty" },
	{ NGINX, 0, "# nothing\n", "empty" },
	{ NGINX, 1, "stream { }", "no server {}" },
	{ NGINX, 2, "events {}\nhttp { server { listen 6443 ssl; proxy_pass https://k; } }",
	  "ends the clients' TLS" },
	{ NGINX, 1, "stream { include /etc/nginx/stream.d/*.conf; }", "not followed; name that" },
	{ NGINX, 2, "stream {\nserver { listen 127.0.0.1:6443; proxy_pass 10.0.0.1:6443\n}}",
	  "not ended by ';'" },
	{ NGINX, 2, "stream {\nserver {", "never closed" },
	{ NGINX, 2, "stream { }\n}", "without a '{'" },
	{ NGINX, 2, "\n{ }", "without a name" },
	{ NGINX, 1, ";", "without anything" },
	{ NGINX, 2, "a;\nb 'c;\n", "never closed" },
	{ NGINX, 3, "a;\n\nproxy_pass x", "is the file complete?" },
	{ NGINX, 3, STREAM("server cp1.example:6443;", LISTEN), "is a name" },
	{ NGINX, 3, STREAM("server 10.0.0.1;", LISTEN), "has no port" },
	{ NGINX, 3, STREAM("server 10.0.0.1:6443 weight=0;", LISTEN), "no weight" },
	{ NGINX, 3, STREAM("server unix:/run/a;", LISTEN), "unix socket" },
	{ NGINX, 3, STREAM("server 0.0.0.0:6443;", LISTEN), "no address to connect to" },
	{ NGINX, 3, STREAM("server [fe80::1]:6443;", LISTEN), "link-local" },
	{ NGINX, 3, STREAM("server 127.0.0.1:6443;", LISTEN), "connect to itself" },
	{ NGINX, 2, STREAM("", LISTEN), "has no server" },
	{ NGINX, 7, STREAM(ONE, "listen 127.0.0.1:6443 ssl;"), "ends the clients' TLS" },
	{ NGINX, 7, STREAM(ONE, "listen 6445-6443;"), "no range of ports" },
	{ NGINX, 7, STREAM(ONE, "listen cp1:6443;"), "is a name" },
	{ NGINX, 7, STREAM(ONE, "listen 224.0.0.1:6443;"), "multicast" },
	{ NGINX, 5, STREAM(ONE, ""), "has no listen" },
	{ NGINX, 7, STREAM(ONE, LISTEN "proxy_ssl on;"), "speaks TLS" },
	{ NGINX, 7, STREAM(ONE, LISTEN "proxy_protocol on;"), "no apiserver" },
	{ NGINX, 7, STREAM(ONE, LISTEN "proxy_connect_timeout soon;"), "no time" },
	{ NGINX, 2, "stream {\nserver { listen 6443; proxy_pass $name; } }", "each connection" },
	{ NGINX, 2, "stream {\nserver { listen 6443; proxy_pass kube; } }", "no upstream 'kube'" },
	{ NGINX, 2,
	  "stream {\nserver { listen 1; proxy_pass 10.0.0.1:1; }\nserver { listen 2; "
	  "proxy_pass 10.0.0.2:2; } }",
	  "line 2 (1 to 10.0.0.1:1), line 3 (2 to 10.0.0.2:2); leave one" },
	{ NGINX, 1,
	  "stream { server { listen 6443; proxy_pass 10.0.0.1:1; } server { listen "
	  "127.0.0.1:6443; proxy_pass 10.0.0.2:2; } }",
	  "none of them alone" },
	{ HAPROXY, 0, "", "no frontend" },
	{ HAPROXY, 1, "stream { }", "before any section" },
	{ HAPROXY, 1, "global\n daemon\n", "no frontend" },
	{ HAPROXY, 2, "listen k\n.if defined(X)\n", "conditions" },
	{ HAPROXY, 2, "listen k\n server 'a 10.0.0.1\n", "quote" },
	{ HAPROXY, 1, "listen k\n server a 10.0.0.1:6443\n", "nothing that leads to 'k'" },
	{ HAPROXY, 2, "listen k\n bind :6443 ssl crt /x\n server a 10.0.0.1\n",
	  "ends the clients'" },
	{ HAPROXY, 2, "listen k\n bind ${IP}:6443\n server a 10.0.0.1\n",
	  "environment variable of HAProxy's; write" },
	{ HAPROXY, 2, "listen k\n bind 127.0.0.1\n server a 10.0.0.1\n", "has no port" },
	{ HAPROXY, 3, "listen k\n bind :6443\n server a\n", "without an address" },
	{ HAPROXY, 3, "listen k\n bind :6443\n server a cp1:6443\n", "is a name" },
	{ HAPROXY, 3, "listen k\n bind :6443\n server a unix@/run/x\n", "unix socket" },
	{ HAPROXY, 3, "listen k\n bind :6443\n server a 10.0.0.1 ssl verify none\n", "speaks TLS" },
	{ HAPROXY, 3, "listen k\n bind :6443\n server a 10.0.0.1 check inter 5x\n", "no time" },
	{ HAPROXY, 3, "listen k\n bind :6443\n server a 10.0.0.1 check inter\n", "no time" },
	{ HAPROXY, 3, "listen k\n bind :6443\n server a 10.0.0.1 rise x\n", "no number" },
	{ HAPROXY, 3, "listen k\n bind :6443\n server a 10.0.0.1 weight 257\n", "0..256" },
	{ HAPROXY, 3, "listen k\n bind :6443\n timeout connect 1w\n server a 10.0.0.1\n",
	  "no time" },
	{ HAPROXY, 3, "defaults\n mode http\nlisten k\n bind :6443\n server a 10.0.0.1\n",
	  "mode http" },
	{ HAPROXY, 3, "frontend f\n bind :6443\n default_backend b\n",
	  "default_backend b: not in" },
	{ HAPROXY, 4, "frontend f\n bind :6443\n default_backend b\nbackend b\n", "has no server" },
	{ HAPROXY, 1,
	  "listen a\n bind :1\n server x 10.0.0.1:1\nlisten b\n bind :2\n server y "
	  "10.0.0.2:2\n",
	  "line 1 (a to a), line 4 (b to b)" },
	{ KUBECONFIG, 1, "", "is this a kubeconfig?" },
	{ KUBECONFIG, 1, "- a\n", "is this a kubeconfig?" },
	{ KUBECONFIG, 1, "a: b\n", "no clusters" },
	{ KUBECONFIG, 2, "a: [\n", "YAML" },
	{ KUBECONFIG, 2, "a: b\n---\nc: d\n", "second document" },
	{ KUBECONFIG, 1, "clusters: [{name: a, cluster: {}}, {name: b, cluster: {}}]\n",
	  "several" },
	{ KUBECONFIG, 2, "clusters: []\ncurrent-context: x\n", "no context 'x'" },
	{ KUBECONFIG, 1, "current-context: x\ncontexts: [{name: x, context: {cluster: y}}]\n",
	  "its cluster 'y'" },
	{ KUBECONFIG, 2, "clusters:\n- {name: c, cluster: {a: b}}\n", "has no server" },
	{ KUBECONFIG, 1, "clusters: [{name: c, cluster: {server: 'http://10.0.0.1:6443'}}]\n",
	  "no https:// URL" },
	{ KUBECONFIG, 1, "clusters: [{name: c, cluster: {server: 'https://10.0.0.1/k8s/c-1'}}]\n",
	  "has a path" },
	{ KUBECONFIG, 1, "clusters: [{name: c, cluster: {server: 'https://k8s.example:6443'}}]\n",
	  "is a name" },
	{ KUBECONFIG, 1, "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:6443'}}]\n",
	  "a local proxy already" },
	{ KUBECONFIG, 1, "clusters: [{name: c, cluster: {server: 'https://[::1]:6443'}}]\n",
	  "a local proxy already" },
	{ KUBECONFIG, 1, "clusters: [{name: c, cluster: {server: 'https://localhost:6443'}}]\n",
	  "a local proxy already" },
	{ KUBECONFIG, 1, "clusters: [{name: c, cluster: {server: 'https://0.0.0.0:6443'}}]\n",
	  "no address to connect to" },
	{ KUBECONFIG, 1, "clusters: &a [*a]\n", "not a mapping" },
};

static void refused(void **state)
{
	(void)state;
	importer_check_bad(bad, ARRAY_SIZE(bad));
}

static void bad_bytes(void **state)
{
	static const char nul[] = "a;\nb\0c;\n";
	size_t size = CONFIG_BYTES_MAX + 1;
	char *text = malloc(size);

	(void)state;
	assert_non_null(text);
	memset(text, '\n', size);
	for (int kind = NGINX; kind <= KUBECONFIG; kind++) {
		importer_check_refused((enum import_kind)kind, nul, sizeof(nul) - 1, 2, "NUL byte");
		importer_check_refused((enum import_kind)kind, text, size, 0, "larger than");
	}
	free(text);
}

/* More than a configuration may hold, and more than a person would write. */
static void too_much(void **state)
{
	static const struct {
		enum import_kind kind;
		const char *before, *each, *after, *want;
		int n;
	} table[] = {
		{ NGINX, "stream { server { listen 6443; proxy_pass k; } upstream k {",
		  "server 10.0.%d.1:6443;", "} }", "more than 64 apiservers", 65 },
		{ NGINX, "stream { server { proxy_pass 10.0.0.1:6443;", "listen 127.0.%d.1:6443;",
		  "} }", "more than 16 addresses", 17 },
		{ NGINX, "stream {", "server { listen %d; proxy_pass 10.0.0.%1$d:1; }", "}",
		  "more than 64 upstreams", 65 },
		{ NGINX, "", "a%d {", "", "more than 32 blocks", 33 },
		{ HAPROXY, "listen k\n bind :6443\n", " server s%d 10.0.%1$d.1:6443\n", "",
		  "more than 64 apiservers", 65 },
		{ HAPROXY, "", "listen k%d\n bind :%1$d\n server s 10.0.0.1:%1$d\n", "",
		  "more than 64 frontends", 65 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char text[8192], *made;
		struct err e;
		int length = snprintf(text, sizeof(text), "%s", table[i].before);

		for (int n = 1; n <= table[i].n; n++)
			length += snprintf(text + length, sizeof(text) - (size_t)length,
					   table[i].each, n);
		snprintf(text + length, sizeof(text) - (size_t)length, "%s", table[i].after);
		assert_int_equal(import_convert(table[i].kind, text, strlen(text), "proxy.conf",
						NULL, &made, &e),
				 -EINVAL);
		if (!strstr(e.text, table[i].want))
			fail_msg("want %s, have %s", table[i].want, e.text);
	}
}

/* As many notes as there may be, and then some. */
static void many_notes(void **state)
{
	char text[16384], *made;
	int length = snprintf(text, sizeof(text), "listen k\n bind :6443\n server s 10.0.0.1\n");

	(void)state;
	for (int n = 0; n < 200; n++)
		length +=
			snprintf(text + length, sizeof(text) - (size_t)length, " option o%d\n", n);
	for (int n = 0; n < 20; n++)
		length += snprintf(text + length, sizeof(text) - (size_t)length, " option o0\n");
	made = importer_convert(HAPROXY, text);
	assert_non_null(strstr(made, "and more, which is not listed here"));
	assert_non_null(strstr(made, " and 13 more: option o0"));
	free(made);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(real_files),	  cmocka_unit_test(carried_over),
		cmocka_unit_test(values),	  cmocka_unit_test(ranges),
		cmocka_unit_test(relative_files), cmocka_unit_test(no_way_out_of_a_comment),
		cmocka_unit_test(refused),	  cmocka_unit_test(bad_bytes),
		cmocka_unit_test(too_much),	  cmocka_unit_test(many_notes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
