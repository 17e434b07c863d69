/* SPDX-License-Identifier: BSD-2-Clause */
/* What must not get into a line that people read. */
#include <string.h>

#include "base/redact.h"
#include "unit.h"

#define TOKEN "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0.c2lnbmF0dXJl"

static void secrets_are_known_by_their_shape(void **state)
{
	static const struct {
		const char *text;
		bool secret;
	} cases[] = {
		{ "-----BEGIN PRIVATE KEY-----\nMIIE", true },
		{ "x-----BEGIN", true },
		{ "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t", true },
		{ TOKEN, true },
		{ "eyJ..", true },
		{ "abcdef.0123456789abcdef", true },

		{ "", false },
		{ "/etc/kubernetes/kubelet.conf", false },
		{ "-----END", false },
		{ "eyJhbGciOiJSUzI1NiJ9", false },
		{ "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0", false },
		{ "a.b.c", false },
		{ "10.96.0.1:443", false },
		{ "abcdef.0123456789abcde", false },
		{ "abcdef.0123456789abcdef0", false },
		{ "abcde.0123456789abcdef", false },
		{ "abcdef:0123456789abcdef", false },
		{ "ABCDEF.0123456789abcdef", false },
		{ "abcdef.0123456789abcdeF", false },
		{ "abcdef.0123456789abcdef.example", false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (secret_is_likely(cases[i].text) != cases[i].secret)
			fail_msg("'%s'", cases[i].text);
}

static void a_long_secret_is_given_away_by_a_part(void **state)
{
	static const struct {
		const char *text;
		bool given;
	} cases[] = {
		{ TOKEN, true },
		{ "token " TOKEN " is bad", true },
		{ "bad: eyJhbGciOiJSUzI1", true }, /* sixteen from its beginning */
		{ "...9.c2VjcmV0.c2lnbm...", true }, /* from its middle */
		{ "0.c2lnbmF0dXJl", false }, /* its last fourteen */
		{ "bad: eyJhbGciOiJSUzI", false }, /* fifteen */
		{ "eyJhbGciOiJSUzI.9.c2VjcmV0", false },
		{ "", false },
		{ "no such token", false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (secret_is_in(cases[i].text, TOKEN) != cases[i].given)
			fail_msg("'%s'", cases[i].text);
}

static void a_short_secret_is_given_away_as_a_whole(void **state)
{
	(void)state;
	assert_true(secret_is_in("password hunter2 is wrong", "hunter2"));
	assert_true(secret_is_in("0123456789abcdef", "0123456789abcdef"));
	assert_false(secret_is_in("hunter", "hunter2"));
	assert_false(secret_is_in("0123456789abcde", "0123456789abcdef"));
	/* No secret is in no text. */
	assert_false(secret_is_in("anything", ""));
	assert_false(secret_is_in("", ""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(secrets_are_known_by_their_shape),
		cmocka_unit_test(a_long_secret_is_given_away_by_a_part),
		cmocka_unit_test(a_short_secret_is_given_away_as_a_whole),
	};

	return cmocka_run_group_tests_name("redact", tests, NULL, NULL);
}
