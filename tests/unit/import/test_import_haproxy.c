/* SPDX-License-Identifier: BSD-2-Clause */
/* A haproxy.cfg is read as HAProxy reads it; test_migrate.py asks HAProxy itself. */
#include <stdio.h>

#include "importer.h"
#include "unit.h"

#define API "backend api\n server m1 10.0.0.1:6443\n"
#define INGRESS "backend ingress\n server w1 10.0.0.9:443\n"
#define K(lines) "listen k\n bind 127.0.0.1:6443\n" lines
#define A " server a 10.0.0.1:6443\n"
#define BIND(address) "listen k\n bind " address "\n" A
#define SERVER(address) "listen k\n bind 127.0.0.1:6443\n server a " address "\n"

/* --- where a frontend leads --------------------------------------------------------------- */

static void routes(void **state)
{
	static const struct importer_good list[] = {
		{ HAPROXY,
		  "frontend web\n bind *:443\n default_backend ingress\n"
		  "frontend k8s\n bind *:6443\n use_backend api\n" INGRESS API,
		  { "- 127.0.0.1:6443 ", "- 10.0.0.1:6443 ", "!10.0.0.9" } },
		/* The first that always holds, and none behind it. */
		{ HAPROXY,
		  "frontend k\n bind :6443\n use_backend api\n use_backend ingress if { src "
		  "10.0.0.0/8 "
		  "}\n default_backend ingress\n" INGRESS API,
		  { "- 10.0.0.1:6443 ", "!10.0.0.9", "!use_backend ingress" } },
		{ HAPROXY,
		  "frontend k\n bind :6443\n use_backend ingress if FALSE\n use_backend api if "
		  "TRUE\n"
		  " default_backend ingress\n" INGRESS API,
		  { "- 10.0.0.1:6443 ", "!10.0.0.9" } },
		{ HAPROXY,
		  "frontend k\n bind :6443\n default_backend ingress\n default_backend "
		  "api\n" INGRESS API,
		  { "- 10.0.0.1:6443 ", "!10.0.0.9" } },
		/* A listen with servers of its own leads to default_backend all the same. */
		{ HAPROXY,
		  "listen k\n bind :6443\n server old 10.0.0.8:6443\n default_backend api\n" API,
		  { "- 10.0.0.1:6443 ", "!10.0.0.8" } },
		{ HAPROXY,
		  "defaults\n default_backend api\nfrontend k\n bind 127.0.0.1:7443\n" API,
		  { "- 127.0.0.1:7443 ", "- 10.0.0.1:6443 " } },
		/* Two frontends to one backend; one of them on a condition. */
		{ HAPROXY,
		  "frontend a\n bind :6443\n default_backend api\nfrontend b\n bind :443\n "
		  "use_backend api if { req_ssl_sni k8s }\n default_backend ingress\n" INGRESS API,
		  { "- 127.0.0.1:6443 ", "!127.0.0.1:443", "stays with HAProxy", "!10.0.0.9" } },
		/* A switched-off frontend is none. */
		{ HAPROXY,
		  "frontend a\n disabled\n bind :6443\n default_backend ingress\n"
		  "frontend b\n bind :7443\n default_backend api\n" INGRESS API,
		  { "- 127.0.0.1:7443 ", "- 10.0.0.1:6443 ", "!127.0.0.1:6443" } },
		{ HAPROXY,
		  "defaults\n disabled\nfrontend a\n bind :6443\n default_backend ingress\n"
		  "frontend b\n enabled\n bind :7443\n default_backend api\nbackend api\n "
		  "enabled\n" A INGRESS,
		  { "- 127.0.0.1:7443 ", "- 10.0.0.1:6443 " } },
		{ HAPROXY,
		  "frontend a\n disabled\n bind :7443\n default_backend api\n"
		  "frontend b\n bind :6443\n default_backend api\n" API,
		  { "- 127.0.0.1:6443 ", "!127.0.0.1:7443" } },
		/* Another way to port 6443 is named. */
		{ HAPROXY,
		  BIND("127.0.0.1:6443") "listen other\n bind 127.0.0.1:7443\n server x "
					 "10.0.1.1:6443\n",
		  { "- 127.0.0.1:6443 ", "line 4: other to other also leads to port 6443" } },
		{ HAPROXY, K(" use-server a if { src 10.0.0.0/8 }\n" A), { "use-server a if" } },
		{ HAPROXY, ".notice \"hello\"\n" BIND(":6443"), { "- 10.0.0.1:6443 " } },
	};

	(void)state;
	importer_check_good(list, ARRAY_SIZE(list));
}

static void refused_routes(void **state)
{
	static const struct importer_bad list[] = {
		/* The only servers on 6443 are behind a condition. */
		{ HAPROXY, 3,
		  "frontend f\n bind :8443\n use_backend api if { req_ssl_sni k8s }\n "
		  "default_backend "
		  "ingress\n" INGRESS API,
		  "on a condition only" },
		{ HAPROXY, 4,
		  "frontend f\n bind :6443\n use_backend x if { dst_port 443 }\n use_backend api "
		  "unless "
		  "{ dst_port 443 }\n" API,
		  "lines 3 and 4" },
		{ HAPROXY, 7,
		  "frontend f\n bind :8443\n use_backend %[req.ssl_sni]\n default_backend "
		  "ingress\n" INGRESS API,
		  "no line leads there" },
		{ HAPROXY, 3, "frontend f\n bind :6443\n use_backend %[req.ssl_sni]\n" API,
		  "worked out for each connection" },
		/* Two ways to 6443 from the same frontend. */
		{ HAPROXY, 1,
		  "frontend f\n bind :6443\n use_backend b if { src 10.0.0.0/8 }\n default_backend "
		  "api\nbackend b\n server x 10.0.1.1:6443\n" API,
		  "(f to api), line 1 (f to b)" },
		/* What is in another file is not passed over for what is in this one. */
		{ HAPROXY, 3,
		  "frontend k\n bind :6443\n default_backend api\nfrontend w\n bind :443\n "
		  "default_backend ingress\n" INGRESS,
		  "default_backend api: not in this file" },
		{ HAPROXY, 3, "frontend k\n bind :6443\n use_backend api\n", "not in this file" },
		{ HAPROXY, 3, "frontend k\n bind :6443\n default_backend \"${B}\"\n" API,
		  "from the environment" },
		{ HAPROXY, 4,
		  "frontend k\n bind :6443\n default_backend api\nbackend api\n disabled\n" A,
		  "'api' is disabled" },
		{ HAPROXY, 3, K(" default_backend k\n" A), "leads to itself" },
		{ HAPROXY, 1, "listen k\n disabled\n bind :6443\n" A, "'k' is disabled" },
		{ HAPROXY, 1, "frontend k\n bind :6443\n", "leads nowhere" },
		{ HAPROXY, 3, K(" server-template m 1-3 m.example:6443\n"), "from DNS" },
		{ HAPROXY, 4, K(A " server-template m 1-3 m.example:6443\n"), "from DNS" },
		{ HAPROXY, 3, K(" dispatch 10.0.0.1:6443\n"), "write it as a server" },
		{ HAPROXY, 3, K(" tcp-request content set-dst var(x)\n" A), "set-dst" },
	};

	(void)state;
	importer_check_bad(list, ARRAY_SIZE(list));
}

/* --- addresses ------------------------------------------------------------------------------ */

static void addresses(void **state)
{
	static const struct importer_good list[] = {
		{ HAPROXY, BIND(":::6443"), { "- \"[::1]:6443\" ", "- 127.0.0.1:6443 " } },
		{ HAPROXY, BIND("[::]:6443"), { "- \"[::1]:6443\" ", "- 127.0.0.1:6443 " } },
		{ HAPROXY, BIND(":::6443 v6only"), { "- \"[::1]:6443\" ", "!- 127.0.0.1" } },
		{ HAPROXY, BIND("ipv6@:6443"), { "- \"[::1]:6443\" ", "- 127.0.0.1:6443 " } },
		{ HAPROXY, BIND("ipv6@*:6443 v6only"), { "- \"[::1]:6443\" ", "!- 127.0.0.1" } },
		{ HAPROXY, BIND("tcp6@::1:6443"), { "- \"[::1]:6443\" ", "!- 127.0.0.1" } },
		{ HAPROXY, BIND("ipv4@:6443"), { "- 127.0.0.1:6443 ", "![::1]" } },
		{ HAPROXY, BIND("*:6443 v4v6"), { "- 127.0.0.1:6443 ", "![::1]" } },
		{ HAPROXY, BIND("localhost:6443"), { "- 127.0.0.1:6443 " } },
		{ HAPROXY, BIND("::ffff:127.0.0.1:6443"), { "- 127.0.0.1:6443 " } },
		{ HAPROXY, BIND(":6443;"), { "- 127.0.0.1:6443 " } },
		{ HAPROXY,
		  BIND("127.0.0.1:6443-6445"),
		  { "- 127.0.0.1:6443 ", "- 127.0.0.1:6444 ", "- 127.0.0.1:6445 " } },
		{ HAPROXY,
		  BIND("127.0.0.1:6443,[::1]:6443 interface lo tfo"),
		  { "- \"[::1]:6443\" ", "bind ... interface lo\n", "bind ... tfo\n" } },
		{ HAPROXY, BIND("fd@3,127.0.0.1:6443"), { "bind fd@3: only addresses" } },
		{ HAPROXY, SERVER("10.0.0.1:6443;"), { "- 10.0.0.1:6443 " } },
		{ HAPROXY, SERVER("ipv6@fd00::1:6443"), { "- \"[fd00::1]:6443\" " } },
		{ HAPROXY, SERVER("ipv6@[fd00::1]"), { "- \"[fd00::1]:6443\" " } },
		{ HAPROXY, SERVER("fd00::1:"), { "- \"[fd00::1]:6443\" " } },
		{ HAPROXY, SERVER("10.0.0.1:0"), { "- 10.0.0.1:6443 " } },
		{ HAPROXY, SERVER("10.0.0.1:+1000"), { "- 10.0.0.1:7443 " } },
		{ HAPROXY, SERVER("10.0.0.1:-443"), { "- 10.0.0.1:6000 " } },
	};

	(void)state;
	importer_check_good(list, ARRAY_SIZE(list));
}

/* Servers without a port of their own have that which was dialled. */
static void dialled_ports(void **state)
{
	static const struct importer_good list[] = {
		{ HAPROXY,
		  "listen k\n bind :8132\n bind :6443\n bind :9443\n server a 10.0.0.1\n",
		  { "- 127.0.0.1:6443 ", "- 10.0.0.1:6443 ", "!- 127.0.0.1:8132",
		    "!- 127.0.0.1:9443", "line 2: bind :8132: ", "line 4: bind :9443: " } },
		{ HAPROXY,
		  "frontend k\n bind :6443-6450\n default_backend b\nbackend b\n server a "
		  "10.0.0.1\n",
		  { "- 127.0.0.1:6443 ", "- 10.0.0.1:6443 ", "!:6444 ",
		    "line 2: bind :6443-6450: " } },
		{ HAPROXY,
		  "listen k\n bind :5443\n bind :6443\n server a 10.0.0.1:+1000\n",
		  { "- 127.0.0.1:5443 ", "- 10.0.0.1:6443 ", "!- 127.0.0.1:6443" } },
		{ HAPROXY,
		  "listen k\n bind 127.0.0.1:8443\n bind [::1]:8443\n server a 10.0.0.1\n server b "
		  "10.0.0.2:6443\n",
		  { "- 127.0.0.1:8443 ", "- 10.0.0.1:8443 ", "- 10.0.0.2:6443 ",
		    "- \"[::1]:8443\" " } },
		{ HAPROXY,
		  "listen k\n bind :6443\n bind :7443\n server a 10.0.0.1:6443\n",
		  { "- 127.0.0.1:6443 ", "- 127.0.0.1:7443 ", "- 10.0.0.1:6443 " } },
	};

	(void)state;
	importer_check_good(list, ARRAY_SIZE(list));
}

static void refused_addresses(void **state)
{
	static const struct importer_bad list[] = {
		{ HAPROXY, 4, "listen k\n bind :8132\n bind :9443\n server a 10.0.0.1\n",
		  "leave one bind" },
		{ HAPROXY, 2, BIND("127.0.0.1:0"), "has no port" },
		{ HAPROXY, 2, BIND("127.0.0.1:+6443"), "has no port" },
		{ HAPROXY, 2, BIND("127.0.0.1:99999"), "no port that HAProxy takes" },
		{ HAPROXY, 2, BIND("127.0.0.1:6443, [::1]:6443"), "no word of a bind line" },
		{ HAPROXY, 2, BIND(":6443 ;"), "no word of a bind line" },
		{ HAPROXY, 2, BIND("\"${ADDRESS}:6443\""), "environment variable of HAProxy's" },
		{ HAPROXY, 2, BIND("ipv4@[::1]:6443"), "no IPv4 address" },
		{ HAPROXY, 3, SERVER("\"$M1:6443\""), "environment variable of HAProxy's" },
		{ HAPROXY, 3, SERVER("\"${M1-10.0.0.1}:6443\""), "environment variable" },
		{ HAPROXY, 3, SERVER("'${M1}:6443'"), "environment variable" },
		{ HAPROXY, 3, SERVER("fd00::1"), "'fd00:'" },
		{ HAPROXY, 3, SERVER("10.0.0.1:6443,10.0.0.2:6443"), "no port number" },
		{ HAPROXY, 3, SERVER("10.0.0.1:6443-6445"), "a range of ports" },
		{ HAPROXY, 3, SERVER(":6443"), "no address to connect to" },
		{ HAPROXY, 3, SERVER("10.0.0.1:+60000"), "port 66443" },
		{ HAPROXY, 3, SERVER("abns@x"), "unix socket" },
	};

	(void)state;
	importer_check_bad(list, ARRAY_SIZE(list));
}

/* --- what a section inherits ------------------------------------------------------------------ */

static void inherited(void **state)
{
	static const struct importer_good list[] = {
		{ HAPROXY,
		  "defaults one\n mode tcp\n timeout connect 4s\n timeout check 900ms\n balance "
		  "random\n"
		  "defaults two from one\n default-server check inter 7s fall 5\n"
		  "defaults\n timeout connect 9s\nlisten k from two\n bind :6443\n" A,
		  { "connectTimeout: 4s ", "  timeout: 900ms ", "policy: random ",
		    "  interval: 7s ", "  fall: 5 " } },
		{ HAPROXY,
		  "defaults one\n default-server check inter 7s fall 5\ndefaults two from one\n "
		  "default-server inter 8s\nlisten k from two\n bind :6443\n" A,
		  { "  interval: 8s ", "  fall: 5 " } },
		/* A defaults section without `from` begins anew. */
		{ HAPROXY,
		  "defaults\n mode http\n timeout connect 4s\ndefaults\n mode tcp\nlisten k\n bind "
		  ":6443\n" A,
		  { "# connectTimeout: 1s" } },
		{ HAPROXY,
		  "defaults\n mode http\nlisten k\n mode tcp\n bind :6443\n" A,
		  { "- 10.0.0.1:6443 " } },
		{ HAPROXY,
		  "defaults\n option httpchk GET /healthz\n http-check expect status 403\nlisten "
		  "k\n "
		  "bind :6443\n" A,
		  { "line 2: /healthz as what is asked", "# path: /readyz",
		    "status 403: a cluster without" } },
		{ HAPROXY,
		  "defaults\n option httpchk GET /readyz?verbose\nlisten k\n bind :6443\n" A,
		  { "  path: \"/readyz?verbose\" " } },
		{ HAPROXY,
		  "defaults\n option httpchk GET /readyz?verbose\nlisten k\n no option httpchk\n "
		  "bind "
		  ":6443\n" A,
		  { "# path: /readyz", "!verbose" } },
		{ HAPROXY,
		  "defaults\n default-server send-proxy backup\nlisten k\n default-server "
		  "no-send-proxy "
		  "no-backup\n bind :6443\n" A,
		  { "- 10.0.0.1:6443 ", "!weight:" } },
	};
	static const struct importer_bad refused[] = {
		{ HAPROXY, 5,
		  "defaults one\n mode http\ndefaults two from one\n retries 2\nlisten k from "
		  "two\n bind "
		  ":6443\n" A,
		  "mode http" },
		{ HAPROXY, 3,
		  "defaults\n mode tcp\nbackend b\n mode http\n" A
		  "frontend k\n bind :6443\n default_backend b\n",
		  "mode http" },
		{ HAPROXY, 2, "defaults\n default-server send-proxy-v2\nlisten k\n bind :6443\n" A,
		  "PROXY header" },
		{ HAPROXY, 2,
		  "defaults\n default-server ssl verify none\nlisten k\n bind :6443\n" A,
		  "speaks TLS" },
		{ HAPROXY, 2,
		  "defaults\n tcp-request connection expect-proxy layer4\nlisten k\n bind "
		  ":6443\n" A,
		  "PROXY header" },
		{ HAPROXY, 1, "listen k from x\n bind :6443\n" A, "no defaults section before" },
		{ HAPROXY, 1, "listen k from x\n bind :6443\n" A "defaults x\n mode tcp\n",
		  "no defaults section before" },
		{ HAPROXY, 3, "defaults x\ndefaults x\nlisten k from x\n bind :6443\n" A,
		  "lines 1 and 2" },
	};

	(void)state;
	importer_check_good(list, ARRAY_SIZE(list));
	importer_check_bad(refused, ARRAY_SIZE(refused));
}

/* --- checks, and what HAProxy refuses -----------------------------------------------------------
 */

static void paths(void **state)
{
	static const char *const untold[] = {
		"option httpchk",
		"option httpchk /livez",
		"option httpchk GET /version",
		"option httpchk HEAD /healthz HTTP/1.1\\r\\nHost:\\ /readyz",
		"option httpchk GET /readyz/etcd",
		"option httpchk GET /api/v1",
		"option httpchk\n http-check send meth GET uri /livez?verbose ver HTTP/1.1",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(untold); i++) {
		char text[256];
		struct importer_good one = { HAPROXY,
					     text,
					     { "# path: /readyz", "as what is asked for" } };

		snprintf(text, sizeof(text), K(" %s\n" A), untold[i]);
		importer_check_good(&one, 1);
	}
}

static void proxy_protocol(void **state)
{
	static const struct importer_bad list[] = {
		{ HAPROXY, 2, BIND("127.0.0.1:6443 accept-proxy"), "PROXY header" },
		{ HAPROXY, 2, BIND("127.0.0.1:6443 accept-netscaler-cip 1"), "PROXY header" },
		{ HAPROXY, 3, SERVER("10.0.0.1:6443 send-proxy"), "send-proxy: a PROXY header" },
		{ HAPROXY, 3, SERVER("10.0.0.1:6443 send-proxy-v2-ssl-cn"), "PROXY header" },
		{ HAPROXY, 3, SERVER("10.0.0.1:6443 check check-send-proxy"), "PROXY header" },
		{ HAPROXY, 3,
		  K(" tcp-request connection expect-proxy layer4 if { src 10.0.0.1 }\n" A),
		  "PROXY header" },
	};

	(void)state;
	importer_check_bad(list, ARRAY_SIZE(list));
}

static void refused_by_haproxy(void **state)
{
	static const struct importer_bad list[] = {
		{ HAPROXY, 3, K(" \xc2\xa0server a 10.0.0.1:6443\n" A), "no-break space" },
		{ HAPROXY, 3, K(" sever b 10.0.0.2:6443\n" A), "'sever' is no keyword" },
		{ HAPROXY, 3, SERVER("10.0.0.1:6443 nonsense"), "no word of a server line" },
		{ HAPROXY, 2, BIND(":6443 nonsense"), "no word of a bind line" },
		{ HAPROXY, 4, K(A A), "is there already (line 3)" },
		{ HAPROXY, 4, BIND(":6443") "listen k\n", "is there already (line 1)" },
		{ HAPROXY, 4, BIND(":6443") "frontend k\n", "is there already (line 1)" },
		{ HAPROXY, 4, BIND(":6443") "backend k\n", "is there already (line 1)" },
		{ HAPROXY, 2, "defaults\n server a 10.0.0.1:6443\n" BIND(":6443"),
		  "takes no 'server'" },
		{ HAPROXY, 3, "frontend f\n bind :6443\n server a 10.0.0.1:6443\n",
		  "takes no 'server'" },
		{ HAPROXY, 1, "frontend\n bind :6443\n", "without a name" },
		{ HAPROXY, 1, "listen k :6443\n server a 10.0.0.1:6443\n", "write bind :6443" },
		{ HAPROXY, 2, "listen k\n mode tpc\n bind :6443\n" A, "mode ... 'tpc'" },
		{ HAPROXY, 3, K(" default_backend b if TRUE\n" A), "... 'if'" },
		{ HAPROXY, 3, K(" timeout check 3s server b 10.0.0.2:6443\n" A),
		  "end of a line missing" },
		{ HAPROXY, 3, K(" balance leastconn server b 10.0.0.2:6443\n" A), "end of a line" },
		{ HAPROXY, 3, K(" timeout chek 3s\n" A), "timeout ... 'chek'" },
		{ HAPROXY, 3, SERVER("10.0.0.1:6443 check verify non"), "'non' is no word" },
		{ HAPROXY, 3, "defaults d\nbackend b\nlisten k from d bind :6443\n" A,
		  "'bind' behind" },
		{ HAPROXY, 3, K(" use_backend b c\n" A), "... 'c'" },
		{ HAPROXY, 1, "\xef\xbb\xbf" BIND(":6443"), "byte-order mark" },
		{ HAPROXY, 3, K(" {% for m in masters %}\n" A), "template that was not rendered" },
		{ HAPROXY, 3, K(" ${SERVERS}\n" A), "was not rendered" },
		{ HAPROXY, 3, K(" server a {{ m1 }}:6443\n"), "template that was not rendered" },
	};
	static const struct importer_good fine[] = {
		{ HAPROXY, "# {{ ansible_managed }}\n" BIND(":6443"), { "- 10.0.0.1:6443 " } },
		{ HAPROXY,
		  K(" log-format \"%ci {%[ssl_fc_sni]} {%ts}\"\n" A),
		  { "- 10.0.0.1:6443 " } },
	};
	static const char cut_off[] = BIND(":6443") " server b 10.0.0";

	(void)state;
	importer_check_bad(list, ARRAY_SIZE(list));
	importer_check_good(fine, ARRAY_SIZE(fine));
	importer_check_refused(HAPROXY, cut_off, sizeof(cut_off) - 1, 4, "cut off");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(routes),
		cmocka_unit_test(refused_routes),
		cmocka_unit_test(addresses),
		cmocka_unit_test(dialled_ports),
		cmocka_unit_test(refused_addresses),
		cmocka_unit_test(inherited),
		cmocka_unit_test(paths),
		cmocka_unit_test(proxy_protocol),
		cmocka_unit_test(refused_by_haproxy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
