/* SPDX-License-Identifier: BSD-2-Clause */
/* What the fuzz targets share. */
#ifndef KUBELB_TESTS_FUZZ_H
#define KUBELB_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the run when it does not hold; libFuzzer keeps the input. */
static inline void require(int holds)
{
	if (!holds)
		abort();
}

/* A refusal is one printable line that begins with place. */
static inline void require_line(const struct err *e, const char *place)
{
	require(*e->text && !strncmp(e->text, place, strlen(place)));
	require(!strpbrk(e->text, "\n\r\t\033\177"));
}

#endif
