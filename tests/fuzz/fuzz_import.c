/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whatever the bytes: a configuration that config_parse accepts and the same one again
 * the next time, or one printable line and nothing else. The first byte chooses what
 * the rest is taken for: n, h, or anything else for a kubeconfig. The environment
 * variable FUZZ_KIND chooses one for all inputs.
 */
#include <errno.h>
#include <stdlib.h>

#include "config/config.h"
#include "import/import.h"
#include "fuzz.h"

static void check_error(int r, const struct err *e)
{
	require(r == -EINVAL);
	require_line(e, "/fuzz/it:");
	/* Said by the last check, which the readers leave nothing to find. */
	require(strncmp(e->text, "/fuzz/it: makes no valid", 24) != 0);
}

static void check_made(const char *made, const char *again)
{
	struct config *c = NULL;

	require(strcmp(made, again) == 0);
	for (const char *p = made; *p; p++)
		require(*p == '\n' || (*p >= ' ' && *p < 0x7f));
	require(config_parse(made, strlen(made), "made", true, &c, NULL) == 0);
	require(c->n_backends >= 1 && c->n_frontends >= 1);
	config_free(c);
}

static enum import_kind kind_of(uint8_t first)
{
	const char *one = getenv("FUZZ_KIND");

	if (one)
		first = (uint8_t)*one;
	return first == 'n' ? IMPORT_NGINX : first == 'h' ? IMPORT_HAPROXY : IMPORT_KUBECONFIG;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum import_kind kind;
	char *made = NULL, *again = NULL;
	const char *text;
	struct err e;
	int r;

	if (!size)
		return 0;
	kind = kind_of(data[0]);
	text = (const char *)data + 1;
	r = import_convert(kind, text, size - 1, "/fuzz/it", "/fuzz", &made, &e);
	if (r < 0) {
		check_error(r, &e);
		return 0;
	}
	require(import_convert(kind, text, size - 1, "/fuzz/it", "/fuzz", &again, &e) == 0);
	check_made(made, again);
	free(made);
	free(again);
	return 0;
}
