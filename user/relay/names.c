/* SPDX-License-Identifier: BSD-2-Clause */
/* The relay's words. */
#include "relay/relay.h"

const char *relay_from_name(enum relay_from from)
{
	static const char *const names[RELAY_FROMS] = {
		[RELAY_RETRANSMIT] = "retransmit",
		[RELAY_UNREACHABLE] = "unreachable",
		[RELAY_FRONTEND] = "frontend",
		[RELAY_NETWORK] = "network",
	};

	return from < RELAY_FROMS ? names[from] : "unknown";
}
