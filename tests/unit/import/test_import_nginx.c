/* SPDX-License-Identifier: BSD-2-Clause */
/* An nginx.conf is read as nginx reads it; test_migrate.py asks nginx itself. */
#include "importer.h"
#include "unit.h"

/* --- the choice ------------------------------------------------------------------------------ */

static void chosen(void **state)
{
	static const struct importer_good list[] = {
		{ NGINX,
		  "stream { server { listen 6443; proxy_pass 10.0.0.1:6443; }\nserver { listen "
		  "7443; "
		  "proxy_pass 10.0.1.1:6443; } }",
		  { "- 127.0.0.1:6443 ", "!  - 10.0.1.1", "line 2: 7443 to 10.0.1.1:6443 also" } },
		/* nginx ignores case, and takes UDP and TCP apart. */
		{ NGINX,
		  "stream { upstream Kube { " ONE
		  " } server { listen 127.0.0.1:6443; proxy_pass kube; } "
		  "server { listen [::1]:6443; proxy_pass KUBE; } }",
		  { "- 127.0.0.1:6443 ", "- \"[::1]:6443\" ", "- 10.0.0.1:6443 " } },
		{ NGINX,
		  STREAM(ONE, "listen 127.0.0.1:53 udp;" LISTEN),
		  { "- 127.0.0.1:6443 ", "!:53" } },
		{ NGINX,
		  STREAM(ONE, "listen 127.0.0.1:6443-6445;"),
		  { "- 127.0.0.1:6443 ", "- 127.0.0.1:6444 ", "- 127.0.0.1:6445 " } },
		{ NGINX,
		  STREAM(ONE, "listen 127.0.0.1:6443 so_keepalive=on backlog=9 deferred;"),
		  { "listen ... so_keepalive=on", "listen ... backlog=9" } },
		/* What nginx, or a module of others, may have beside it. */
		{ NGINX,
		  "stream { map $a $b { default x; } log_format f '$a'\n '$b'; resolver 10.0.0.2; "
		  "lua_shared_dict x 1m; init_by_lua_block { x = { y = 1 } } upstream k { zone k "
		  "64k; "
		  "server "
		  "10.0.0.1:6443 slow_start=3s max_conns=9 resolve; } server { listen 6443; "
		  "ssl_preread on; proxy_pass k; } }",
		  { "- 10.0.0.1:6443 ", "ssl_preread on" } },
		{ NGINX,
		  "include /etc/nginx/modules-enabled/*.conf;\n" STREAM(ONE, LISTEN),
		  { "!not followed" } },
		{ NGINX, "# {{ ansible_managed }}\n" STREAM(ONE, LISTEN), { "- 10.0.0.1:6443 " } },
	};

	(void)state;
	importer_check_good(list, ARRAY_SIZE(list));
}

static void not_chosen(void **state)
{
	static const struct importer_bad list[] = {
		{ NGINX, 3,
		  "stream {\nmap $ssl_preread_server_name $up { default ingress; k8s api; "
		  "}\nserver { "
		  "listen 6443; proxy_pass $up; }\nupstream api { " ONE " } }",
		  "by the block of line 2" },
		/* An ingress beside it is not taken for the apiservers. */
		{ NGINX, 2,
		  "stream {\nupstream api { " ONE
		  " }\nserver { listen 443; proxy_pass $up; }\nserver { "
		  "listen 8443; proxy_pass 10.0.0.9:443; } }",
		  "no server {} passes there" },
		{ NGINX, 3,
		  "stream {\nserver { listen 6443; server_name a; proxy_pass 10.0.0.1:6443; "
		  "}\nserver { "
		  "listen 6443; server_name b; proxy_pass 10.0.0.9:443; } }",
		  "chooses by server_name" },
		{ NGINX, 7, STREAM(ONE, LISTEN LISTEN), "is there already (line 7)" },
		{ NGINX, 2,
		  "stream {\nserver { listen 6443; proxy_pass kube; }\ninclude "
		  "/etc/nginx/upstreams/*.conf; }",
		  "include of line 3" },
	};

	(void)state;
	importer_check_bad(list, ARRAY_SIZE(list));
}

/* --- includes, templates ---------------------------------------------------------------------- */

static void elsewhere(void **state)
{
	static const struct importer_bad list[] = {
		{ NGINX, 4,
		  "include /etc/nginx/modules-enabled/*.conf;\nevents { }\nhttp { include "
		  "/etc/nginx/conf.d/*; }\ninclude /etc/nginx/tcpconf.d/*;",
		  "an include (line 4), which is not followed; name that file: "
		  "/etc/nginx/tcpconf.d/*" },
		{ NGINX, 2,
		  "include /etc/nginx/other.conf;\ninclude /etc/nginx/stream.conf;\nevents { }",
		  "name that file: /etc/nginx/stream.conf" },
		{ NGINX, 2,
		  "include /etc/nginx/modules-enabled/*.conf;\ninclude /etc/nginx/k8s.conf;",
		  "name that file: /etc/nginx/k8s.conf" },
		{ NGINX, 3, "include /etc/nginx/modules-enabled/*.conf;\nevents { }\nhttp { }",
		  "ends the clients' TLS" },
		{ NGINX, 3,
		  "include /etc/nginx/stream.conf;\nstream {\n include /etc/k8s/*.conf; }",
		  "name that file: /etc/k8s/*.conf" },
		{ NGINX, 3, STREAM("include /etc/nginx/masters;" ONE, LISTEN),
		  "has servers of upstream 'kube'" },
		{ NGINX, 3, STREAM("balancer_by_lua_block { x() } " ONE, LISTEN),
		  "a program chooses" },
		{ NGINX, 1, "server 10.0.0.1:6443;\nserver 10.0.0.2:6443;", "has no {} here" },
		/* http {} */
		{ NGINX, 2,
		  "upstream k { " ONE " }\nserver { listen 6443; location / { proxy_pass "
		  "http://k; } }",
		  "ends the clients' TLS" },
		{ NGINX, 1, "server { listen 6443; proxy_pass https://k; }",
		  "ends the clients' TLS" },
		/* Templates */
		{ NGINX, 3, STREAM("{% for m in masters -%}", LISTEN), "was not rendered" },
		{ NGINX, 3, STREAM("server {{ m }}:6443;", LISTEN), "was not rendered" },
		{ NGINX, 3, STREAM("{%for m in masters%}", LISTEN), "was not rendered" },
		{ NGINX, 3, STREAM("%{ for m in masters ~}", LISTEN), "was not rendered" },
		{ NGINX, 3, STREAM("{# masters #}", LISTEN), "was not rendered" },
		{ NGINX, 3, STREAM("<%= @masters %>", LISTEN), "was not rendered" },
		{ NGINX, 3, STREAM("$SERVERS;", LISTEN), "was not rendered" },
		{ NGINX, 3, STREAM("server $MASTER:6443;", LISTEN), "a template that was not" },
		{ NGINX, 3, STREAM("server ${MASTER}:6443;", LISTEN), "a template that was not" },
		{ NGINX, 7, STREAM(ONE, "listen $ADDRESS:6443;"), "a template that was not" },
		{ NGINX, 1, "server {{", "'{{': a template" }, /* at the very end */
	};

	(void)state;
	importer_check_bad(list, ARRAY_SIZE(list));
}

/* --- what nginx refuses -------------------------------------------------------------------------
 */

static void refused_by_nginx(void **state)
{
	static const struct importer_bad list[] = {
		{ NGINX, 3, STREAM("server 10.0.0.1:6443\nserver 10.0.0.2:6443;", LISTEN),
		  "is a ; missing?" },
		{ NGINX, 3, STREAM("least_conn\n" ONE, LISTEN), "is a ; missing?" },
		{ NGINX, 3, STREAM("server 10.0.0.1:6443\nzone k 64k;" ONE, LISTEN),
		  "is a ; missing?" },
		{ NGINX, 3, STREAM("server 10.0.0.1:6443 10.0.0.2:6443;", LISTEN), "no parameter" },
		{ NGINX, 7, STREAM(ONE, "listen 6443\nproxy_timeout 3s;"), "is a ; missing?" },
		{ NGINX, 7, STREAM(ONE, LISTEN "proxy_timeout 3s\nproxy_socket_keepalive on;"),
		  "is a ; missing?" },
		{ NGINX, 1, "worker_processes 1\n" STREAM(ONE, LISTEN), "is a ; missing?" },
		{ NGINX, 2,
		  "stream {\nproxy_timeout 3s\nserver { " LISTEN " proxy_pass 10.0.0.1:6443; } }",
		  "is a ; missing" },
		{ NGINX, 3, STREAM("\xc2\xa0 server 10.0.0.2:6443;" ONE, LISTEN),
		  "no-break space" },
		{ NGINX, 3, STREAM("sever 10.0.0.2:6443;" ONE, LISTEN), "'sever' is no directive" },
		{ NGINX, 3, STREAM("Server 10.0.0.2:6443;" ONE, LISTEN),
		  "'Server' is no directive" },
		{ NGINX, 3, STREAM("ip_hash;" ONE, LISTEN), "'ip_hash' is no directive" },
		{ NGINX, 7, STREAM(ONE, LISTEN "location / { }"), "'location' is no directive" },
		{ NGINX, 1, "\xc2\xa0user root;" STREAM(ONE, LISTEN), "no-break space" },
		{ NGINX, 3,
		  "stream {\nupstream k { " ONE " }\nupstream K { server 10.0.0.2:6443; }\nserver "
		  "{ listen 6443; proxy_pass k; } }",
		  "is there already (line 2)" },
		{ NGINX, 7, STREAM(ONE, LISTEN "proxy_pass kube;"), "is there already (line 6)" },
		{ NGINX, 1, "server 10.0.0.2:6443;\n" STREAM(ONE, LISTEN), "the top of a file" },
		{ NGINX, 2, "events { }\nstrem { }", "'strem' is no directive" },
		{ NGINX, 2, "stream { }\nstream { }", "a second stream {} (the first: line 1)" },
		{ NGINX, 2, "stream {\nserver { listen 6443; }\n}", "no proxy_pass" },
		{ NGINX, 3, STREAM("server '10.0.0.1:6443'x;", LISTEN),
		  "follows the closing quote" },
		{ NGINX, 7, STREAM(ONE, "listen 127.0.0.1:6443 foo;"), "no parameter" },
		{ NGINX, 7, STREAM(ONE, "listen 127.0.0.1:6443 proxy_protocol;"), "PROXY header" },
		{ NGINX, 2,
		  "stream {\nproxy_protocol on; upstream k { " ONE " } server { " LISTEN
		  " proxy_pass k; } }",
		  "no apiserver" },
		{ NGINX, 3, STREAM("server 10.0.0.1:6443 max_fails=x;", LISTEN), "no parameter" },
		{ NGINX, 3, STREAM("server 10.0.0.1:6443 backup;", LISTEN), "every server" },
		{ NGINX, 3, STREAM("random;" ONE "server 10.0.0.2:6443 backup;", LISTEN),
		  "with 'random'" },
		{ NGINX, 1, "\xef\xbb\xbf" STREAM(ONE, LISTEN), "byte-order mark" },
		{ NGINX, 1, "\xff\xfes", "UTF-16" },
	};

	(void)state;
	importer_check_bad(list, ARRAY_SIZE(list));
}

/* --- what cannot work
 * ----------------------------------------------------------------------------- */

static void families(void **state)
{
	static const struct importer_good list[] = {
		{ NGINX,
		  STREAM("server [fd00::1]:6443;", LISTEN),
		  { "line 7: 127.0.0.1:6443 is IPv4, and all" } },
		{ NGINX,
		  STREAM("server [fd00::1]:6443; server 10.0.0.1:6443 down;",
			 LISTEN "listen [::1]:6443;"),
		  { "line 7: 127.0.0.1:6443 is IPv4, and all" } },
		{ NGINX, STREAM("server [fd00::1]:6443;", "listen [::1]:6443;"), { "!is IPv4" } },
		{ NGINX, STREAM("server [fd00::1]:6443; " ONE, LISTEN), { "!is IPv4" } },
		/* A socket of IPv6 reaches IPv4. */
		{ NGINX, STREAM(ONE, "listen [::1]:6443;"), { "!is IPv" } },
		{ HAPROXY,
		  "listen k\n bind :::6443\n server a fd00::1:6443\n",
		  { "line 2: 127.0.0.1:6443 is IPv4" } },
		{ KUBECONFIG,
		  "{clusters: [{name: c, cluster: {server: 'https://[fd00::1]:6443'}}]}",
		  { "127.0.0.1:6443, a default frontend,", "server: https://[::1]:6443 there" } },
	};

	(void)state;
	importer_check_good(list, ARRAY_SIZE(list));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chosen),    cmocka_unit_test(not_chosen),
		cmocka_unit_test(elsewhere), cmocka_unit_test(refused_by_nginx),
		cmocka_unit_test(families),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
