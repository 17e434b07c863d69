/* SPDX-License-Identifier: BSD-2-Clause */
/* A kubeconfig is read as Kubernetes' clients read it (client-go's clientcmd). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "importer.h"
#include "unit.h"

#define ENTRY(name, server, rest) \
	"- {name: " name ", cluster: {server: 'https://" server "'" rest "}}\n"
#define CA ", certificate-authority-data: QQ=="
#define CURRENT(name)                                                       \
	"current-context: x\ncontexts: [{name: x, context: {cluster: " name \
	", user: u}}]\nclusters:\n"

static void the_current_cluster(void **state)
{
	static const struct importer_good list[] = {
		{ KUBECONFIG,
		  CURRENT("b") ENTRY("a", "10.0.0.1:6443", CA) ENTRY("b", "10.0.0.2:6443", CA),
		  { "- 10.0.0.2:6443 ", "!- 10.0.0.1", "line 4: cluster a has the same",
		    "add 10.0.0.1" } },
		/* A name has no address, but others of the same CA may. */
		{ KUBECONFIG,
		  CURRENT("a") ENTRY("a", "k8s.example:6443", CA) ENTRY("b", "10.0.0.2:6443", CA)
			  ENTRY("c", "10.0.0.3:6443", CA) ENTRY("d", "10.0.0.4:6443", "")
				  ENTRY("e", "127.0.0.1:6443", CA) ENTRY("f", "other.example", CA),
		  { "- 10.0.0.2:6443 ", "- 10.0.0.3:6443 ", "!- 10.0.0.4",
		    "server k8s.example is a name", "serverName: \"k8s.example\" ",
		    "cluster e: no address" } },
		{ KUBECONFIG,
		  CURRENT("a") ENTRY("a", "k8s.example", CA ", tls-server-name: n")
			  ENTRY("b", "10.0.0.2:6443", CA),
		  { "- 10.0.0.2:6443 ", "serverName: \"n\" " } },
	};
	static const struct importer_bad refused[] = {
		{ KUBECONFIG, 4,
		  CURRENT("a") ENTRY("a", "k8s.example", CA) ENTRY("b", "10.0.0.2:6443", ""),
		  "kubectl get endpoints kubernetes" },
		{ KUBECONFIG, 2,
		  "kind: Config\nclusters:\n" ENTRY("a", "10.0.0.1", CA) ENTRY("b", "10.0.0.2", CA),
		  "no current-context" },
		{ KUBECONFIG, 4, CURRENT("a") ENTRY("a", "127.0.0.1:6443", CA),
		  "the apiserver itself" },
		{ KUBECONFIG, 4, CURRENT("a") ENTRY("a", "{{ .Server }}", CA), "was not rendered" },
		{ KUBECONFIG, 4, CURRENT("a") ENTRY("a", "$APISERVER:6443", CA),
		  "was not rendered" },
		{ KUBECONFIG, 1, CURRENT("b") ENTRY("a", "10.0.0.1:6443", CA), "its cluster 'b'" },
		{ KUBECONFIG, 4,
		  CURRENT("a") ENTRY("a", "10.0.0.1:6443", CA ", insecure-skip-tls-verify: true"),
		  "which clients refuse" },
	};

	(void)state;
	importer_check_good(list, ARRAY_SIZE(list));
	importer_check_bad(refused, ARRAY_SIZE(refused));
}

/* What is in the kubeconfig itself comes before a file's name. */
static void data_before_files(void **state)
{
	static const struct importer_good list[] = {
		{ KUBECONFIG,
		  CLUSTER("    certificate-authority: /ca.crt\n    certificate-authority-data: "
			  "QQ==\n"),
		  { "!  ca: /ca.crt", "line 5: certificate-authority: clients prefer",
		    "line 6: " } },
		{ KUBECONFIG,
		  CLUSTER("users:\n- name: u\n  user:\n    client-certificate: /c\n    client-key: "
			  "/k\n"
			  "    client-certificate-data: QQ==\n    client-key-data: QQ==\n"),
		  { "!  clientCert: /c", "!  clientKey: /k", "clients prefer client-key-data" } },
		{ KUBECONFIG,
		  CLUSTER("    certificate-authority: "
			  "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt\n"),
		  { "in a pod alone", "  ca: /etc/kubernetes/pki/ca.crt\n" } },
		{ KUBECONFIG,
		  CLUSTER("    certificate-authority: /run/secrets/x/ca.crt\n"),
		  { "in a pod alone", "!  ca: /run" } },
	};

	(void)state;
	importer_check_good(list, ARRAY_SIZE(list));
}

static char *convert_in(const char *directory, const char *text)
{
	char *made = NULL;
	struct err e = { "" };

	if (import_convert(KUBECONFIG, text, strlen(text), "config", directory, &made, &e))
		fail_msg("%s", e.text);
	return made;
}

static void relative_files(void **state)
{
	static const char *const table[][2] = {
		{ "pki/ca.crt", "  ca: /root/.kube/pki/ca.crt " },
		{ "../pki/./ca.crt", "  ca: /root/pki/ca.crt " },
		{ "/etc/ca.crt", "  ca: /etc/ca.crt " },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char text[256], *made;

		snprintf(text, sizeof(text), CLUSTER("    certificate-authority: %s\n"),
			 table[i][0]);
		made = convert_in("/root/.kube", text);
		if (!strstr(made, table[i][1]))
			fail_msg("want %s in %s", table[i][1], made);
		free(made);
	}
	/* Standard input is in no directory. */
	importer_check_good(&(struct importer_good){ KUBECONFIG,
						     CLUSTER("    certificate-authority: ca.crt\n"),
						     { "ca.crt: not an absolute path" } },
			    1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_current_cluster),
		cmocka_unit_test(data_before_files),
		cmocka_unit_test(relative_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
