/* SPDX-License-Identifier: BSD-2-Clause */
/* Finds the key that a misspelled one probably means. */
#include "base/similar.h"
#include "config/internal.h"

const char *config_suggest(const struct config_key *keys, const char *text)
{
	struct similar s = { .text = text };

	for (; keys->name; keys++)
		similar_offer(&s, keys->name);
	return s.best;
}
