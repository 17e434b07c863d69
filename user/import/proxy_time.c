/* SPDX-License-Identifier: BSD-2-Clause */
/* Parses a time as nginx.conf and haproxy.cfg write it: numbers with units. */
#include <limits.h>
#include <string.h>

#include "import/internal.h"

#define DIGITS_MAX 10

static bool take_number(const char **at, uint64_t *ret)
{
	size_t digits = strspn(*at, "0123456789");

	if (!digits || digits > DIGITS_MAX)
		return false;
	*ret = 0;
	for (; digits; digits--)
		*ret = *ret * 10 + (uint64_t)(*(*at)++ - '0');
	return true;
}

/* The unit at *at, which may be none; NULL when it is unknown. */
static const struct import_unit *take_unit(const char **at, const struct import_unit *units)
{
	const struct import_unit *first = units;

	/* Without a unit, the first one of the table applies. */
	if (!**at)
		return first;
	while (units->name && strncmp(*at, units->name, strlen(units->name)) != 0)
		units++;
	if (!units->name)
		return NULL;
	*at += strlen(units->name);
	return units;
}

bool import_parse_time(const char *text, const struct import_unit *units, bool several,
		       unsigned int *ret_ms)
{
	uint64_t sum = 0, value;

	do {
		const struct import_unit *unit;

		if (!take_number(&text, &value))
			return false;
		unit = take_unit(&text, units);
		if (!unit)
			return false;
		if (__builtin_mul_overflow(value, unit->us, &value) ||
		    __builtin_add_overflow(sum, value, &sum))
			sum = UINT64_MAX / 2; /* stays too large for everything */
		if (several)
			text += strspn(text, " ");
	} while (*text && several);
	*ret_ms = sum / 1000 >= UINT_MAX ? UINT_MAX : (unsigned int)((sum + 999) / 1000);
	return !*text;
}
