/* SPDX-License-Identifier: BSD-2-Clause */
/* What leaves this machine in a bug report. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/redact_text.h"
#include "unit.h"

#define TOKEN "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0.c2lnbmF0dXJl"
#define KEY "c3VwZXJzZWNyZXRrZXlvZjMyYnl0ZXMhMTIzNDU2Nzg="

static char *redacted(const char *text)
{
	char *ret;
	size_t length;
	FILE *to = open_memstream(&ret, &length);

	assert_non_null(to);
	redact_text(text, to);
	assert_int_equal(fclose(to), 0);
	return ret;
}

static void secrets_are_taken_out(void **state)
{
	static const struct {
		const char *text, *want;
	} cases[] = {
		{ "a " TOKEN " b\n", "a [removed] b\n" },
		{ "x=" TOKEN, "[removed]" },
		{ "join abcdef.0123456789abcdef now", "join [removed] now" },
		{ "token: hunter2", "token: [removed]" },
		{ "  bootstrap-token = hunter2 # x", "  bootstrap-token = [removed]" },
		{ "\"password\": \"hunter2\"}", "\"password\": [removed]" },
		{ "Authorization: Bearer hunter2", "Authorization: Bearer [removed]" },
		{ "GET x, bearer hunter2", "GET x, bearer [removed]" },
		{ "tokens and token=hunter2", "tokens and token= [removed]" },
		{ "Authorization: Basic hunter2", "Authorization: [removed]" },
		{ "client-key-data: " KEY, "client-key-data: [removed]" },
		{ "data " KEY ".", "data " KEY "." },
		{ "data \"" KEY "\"", "data \"[removed]\"" },
		{ "server: https://me:hunter2@10.0.0.1:6443/x",
		  "server: https://[removed]@10.0.0.1:6443/x" },
		{ "server https://me@10.0.0.1", "server https://[removed]@10.0.0.1" },
		{ "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb\n",
		  "a\n[removed]\nb\n" },
		{ "a\n-----BEGIN X-----\nnever ends\n", "a\n[removed]" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *text = redacted(cases[i].text);

		assert_string_equal(text, cases[i].want);
		free(text);
	}
}

static void everything_else_stays(void **state)
{
	static const char *const texts[] = {
		"",
		"\n\n",
		"probe:\n  ca: /etc/kubernetes/pki/ca.crt\n",
		"discovery:\n  kubeconfig: /etc/kubernetes/kubelet.conf\n",
		"10.0.0.1:6443 https://10.0.0.1:6443/readyz?verbose=1@2",
		"/kubepods/besteffort/pod0123/cri-containerd-"
		"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope",
		"tag 0123456789abcdef0123456789abcdef0123456789abcdef\n",
		"level=info msg=\"the token file has changed\"\n",
		"token:\n",
		"  \"hostNetnsCookie\": 4711,\n",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		char *text = redacted(texts[i]);

		assert_string_equal(text, texts[i]);
		free(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(secrets_are_taken_out),
		cmocka_unit_test(everything_else_stays),
	};

	return cmocka_run_group_tests_name("redact_text", tests, NULL, NULL);
}
