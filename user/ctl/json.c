/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints JSON. */
#include "ctl/json.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"

/* So many digits tell times of a nanosecond apart. */
#define SECONDS_DIGITS 9
#define PRECISION JSON_REAL_PRECISION(SECONDS_DIGITS)

static int print(json_t *root, size_t format, FILE *to)
{
	int r;

	if (!root)
		return -ENOMEM;
	r = json_dumpf(root, to, format | PRECISION);
	json_decref(root);
	return r && !ferror(to) ? -ENOMEM : 0;
}

int ctl_print_json(json_t *root, size_t format, FILE *to)
{
	int r = print(root, format, to);

	if (r)
		return r;
	fputc('\n', to);
	return 0;
}

int ctl_print_json_value(json_t *value, FILE *to)
{
	return print(value, JSON_ENCODE_ANY, to);
}

/* As jansson writes a real: with a point or an exponent, and that without a plus and zeros. */
void ctl_print_json_seconds(__u64 ns, FILE *to)
{
	char text[32];
	char *exponent;
	size_t zeros;

	snprintf(text, sizeof(text), "%.*g", SECONDS_DIGITS, (double)ns / NS_PER_S);
	exponent = strchr(text, 'e');
	if (!exponent) {
		fprintf(to, strchr(text, '.') ? "%s" : "%s.0", text);
		return;
	}
	exponent += exponent[1] == '-' ? 2 : 1;
	zeros = strspn(exponent, "+0");
	memmove(exponent, exponent + zeros, strlen(exponent + zeros) + 1);
	fputs(text, to);
}
