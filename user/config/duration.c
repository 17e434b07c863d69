/* SPDX-License-Identifier: BSD-2-Clause */
/* Parses and prints durations, and parses numbers. */
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/array.h"
#include "base/ascii.h"
#include "base/clock.h"
#include "config/internal.h"

#define NS_MAX (UINT_MAX * NS_PER_MS)

/* The units of Go's time.ParseDuration. A name stands before any other one that it begins with. */
static const struct {
	const char *name;
	uint64_t ns;
} units[] = {
	{ "ns", 1 },
	{ "us", 1000 },
	{ "\u00b5s", 1000 }, /* micro sign */
	{ "\u03bcs", 1000 }, /* Greek mu */
	{ "ms", NS_PER_MS },
	{ "s", NS_PER_MS * 1000 },
	{ "m", NS_PER_MS * 1000 * 60 },
	{ "h", NS_PER_MS * 1000 * 3600 },
};

/* Adds count times unit to *sum, up to NS_MAX. */
static bool add_ns(uint64_t *sum, uint64_t count, uint64_t unit)
{
	if (count > (NS_MAX - *sum) / unit)
		return false;
	*sum += count * unit;
	return true;
}

static bool take_unit(const char **text, uint64_t *ret_ns)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(units); i++) {
		size_t length = strlen(units[i].name);

		if (strncmp(*text, units[i].name, length) == 0) {
			*text += length;
			*ret_ns = units[i].ns;
			return true;
		}
	}
	return false;
}

/*
 * Adds the fraction in digits..end of unit. A digit that is worth less than a nanosecond cannot be
 * part of whole milliseconds.
 */
static bool add_fraction(uint64_t *sum, const char *digits, const char *end, uint64_t unit)
{
	bool exact = true;

	for (; digits < end; digits++) {
		exact = exact && unit % 10 == 0;
		unit /= 10;
		if (*digits == '0')
			continue;
		if (!exact || !add_ns(sum, (uint64_t)(*digits - '0'), unit))
			return false;
	}
	return true;
}

/*
 * Parses one part such as "1.5h" at the start of *text, moves *text behind it and adds it to *sum.
 */
static bool take_part(const char **text, uint64_t *sum)
{
	const char *whole = *text, *fraction, *end;
	uint64_t unit, count = 0;

	for (end = whole; ascii_is_digit(*end); end++)
		if (count <= NS_MAX)
			count = count * 10 + (uint64_t)(*end - '0');
	fraction = end;
	if (*end == '.')
		for (fraction = ++end; ascii_is_digit(*end); end++)
			;
	if (!ascii_is_digit(*whole) && fraction == end) /* "s", ".s" */
		return false;
	*text = end;
	return take_unit(text, &unit) && add_ns(sum, count, unit) &&
	       add_fraction(sum, fraction, end, unit);
}

int config_duration_ms(const char *text, unsigned int *ret)
{
	uint64_t sum = 0;

	if (strcmp(text, "0") == 0) { /* the only duration without a unit */
		*ret = 0;
		return 0;
	}
	if (!*text)
		return -EINVAL;
	while (*text)
		if (!take_part(&text, &sum))
			return -EINVAL;
	if (sum % NS_PER_MS)
		return -EINVAL;
	*ret = (unsigned int)(sum / NS_PER_MS);
	return 0;
}

const char *config_duration_format(unsigned int ms, char *buf)
{
	static const struct {
		const char *name;
		unsigned int ms;
	} names[] = { { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 } };
	size_t i = 0;

	while (ms % names[i].ms)
		i++;
	snprintf(buf, CONFIG_DURATION_TEXT_MAX, "%u%s", ms / names[i].ms, ms ? names[i].name : "");
	return buf;
}

int config_uint(const char *text, unsigned int *ret)
{
	unsigned int value = 0;

	/* Some readers take 010 for eight, others for ten, so it is refused. */
	if (!*text || (text[0] == '0' && text[1]))
		return -EINVAL;
	for (; *text; text++) {
		if (!ascii_is_digit(*text) || __builtin_mul_overflow(value, 10U, &value) ||
		    __builtin_add_overflow(value, (unsigned int)(*text - '0'), &value))
			return -EINVAL;
	}
	*ret = value;
	return 0;
}
