/* SPDX-License-Identifier: BSD-2-Clause */
/* What is made of a proxy's file or a kubeconfig: texts, and what they have to give. */
#ifndef KUBELB_TESTS_IMPORTER_H
#define KUBELB_TESTS_IMPORTER_H

#include <stddef.h>

#include "import/import.h"

#define NGINX IMPORT_NGINX
#define HAPROXY IMPORT_HAPROXY
#define KUBECONFIG IMPORT_KUBECONFIG

#define STREAM(upstream, server)                                 \
	"stream {\nupstream kube {\n" upstream "\n}\nserver {\n" \
	"proxy_pass kube;\n" server "\n}\n}\n"
#define ONE "server 10.0.0.1:6443;"
#define LISTEN "listen 127.0.0.1:6443;"
#define PROXY(frontend, backend)                                                                  \
	"frontend f\n bind 127.0.0.1:6443\n default_backend b\n" frontend "\nbackend b\n" backend \
	"\n"
#define CHECKED " server one 10.0.0.1:6443 check\n"
#define CLUSTER(cluster) \
	"clusters:\n- name: c\n  cluster:\n    server: https://10.0.0.1:6443\n" cluster

/* Text that the result has, or, after a '!', has not. */
struct importer_good {
	enum import_kind kind;
	const char *text;
	const char *want[6];
};

struct importer_bad {
	enum import_kind kind;
	int line; /* 0: none is named */
	const char *text;
	const char *want; /* in the message */
};

/*
 * Converts a text that is called proxy.conf, to which a haproxy.cfg's last line feed is added.
 * Returns what the caller frees; a refusal fails the test.
 */
char *importer_convert(enum import_kind kind, const char *text);

/* Print every entry that does not hold, and fail the test if there is one. */
void importer_check_good(const struct importer_good *list, size_t n);
void importer_check_bad(const struct importer_bad *list, size_t n);
void importer_check_refused(enum import_kind kind, const char *text, size_t length, int line,
			    const char *want);

#endif
