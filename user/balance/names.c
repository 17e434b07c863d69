/* SPDX-License-Identifier: BSD-2-Clause */
/* The names of states, reasons, failures and of discovery's state. */
#include "balance/names.h"

#include <stdio.h>

#include "base/array.h"

const char *names_state(enum klb_state state)
{
	switch (state) {
	case KLB_STATE_UNKNOWN:
		return "unknown";
	case KLB_STATE_READY:
		return "ready";
	case KLB_STATE_SUSPECT:
		return "suspect";
	case KLB_STATE_DRAINING:
		return "draining";
	case KLB_STATE_DEAD:
		return "dead";
	}
	return "invalid";
}

static const struct {
	const char *key, *name;
} reasons[] = {
	[KLB_REASON_NONE] = { "none", "not probed" },
	[KLB_REASON_OK] = { "ok", "ok" },
	[KLB_REASON_NOT_READY] = { "not_ready", "not ready" },
	[KLB_REASON_UNAUTHORIZED] = { "unauthorized", "unauthorized" },
	[KLB_REASON_REFUSED] = { "refused", "refused" },
	[KLB_REASON_UNREACHABLE] = { "unreachable", "unreachable" },
	[KLB_REASON_CONNECT_TIMEOUT] = { "connect_timeout", "connect timeout" },
	[KLB_REASON_TLS] = { "tls", "tls handshake" },
	[KLB_REASON_CERTIFICATE] = { "certificate", "certificate" },
	[KLB_REASON_NO_ANSWER] = { "no_answer", "no answer" },
	[KLB_REASON_CLOSED] = { "closed", "connection closed" },
	[KLB_REASON_PROTOCOL] = { "protocol", "not http" },
};

const char *names_reason_key(enum klb_reason reason)
{
	return (unsigned int)reason < ARRAY_SIZE(reasons) ? reasons[reason].key : "invalid";
}

const char *names_reason(enum klb_reason reason)
{
	return (unsigned int)reason < ARRAY_SIZE(reasons) ? reasons[reason].name : "invalid";
}

const char *names_reason_text(enum klb_reason reason, __u32 http_status, char *buf)
{
	if (http_status && reason != KLB_REASON_OK)
		snprintf(buf, NAMES_REASON_MAX, "%s (HTTP %u)", names_reason(reason), http_status);
	else
		snprintf(buf, NAMES_REASON_MAX, "%s", names_reason(reason));
	return buf;
}

static const struct {
	const char *key, *name;
} failures[KLB_FAILURES] = {
	[KLB_FAILURE_REFUSED] = { "refused", "refused" },
	[KLB_FAILURE_TIMED_OUT] = { "timed_out", "timed out" },
	[KLB_FAILURE_UNREACHABLE] = { "unreachable", "unreachable" },
	[KLB_FAILURE_GAVE_UP] = { "gave_up", "client gave up" },
	[KLB_FAILURE_OTHER] = { "other", "other" },
};

const char *names_failure_key(enum klb_failure failure)
{
	return (unsigned int)failure < KLB_FAILURES ? failures[failure].key : "invalid";
}

const char *names_failure(enum klb_failure failure)
{
	return (unsigned int)failure < KLB_FAILURES ? failures[failure].name : "invalid";
}

static const struct {
	const char *key, *text;
} discoveries[] = {
	[KLB_DISCOVERY_OFF] = { "off", "off" },
	[KLB_DISCOVERY_SEEDS] = { "seeds", "on: the configuration's own backends count" },
	[KLB_DISCOVERY_CACHE] = { "cache", "on: backends from the cache so far" },
	[KLB_DISCOVERY_CURRENT] = { "current", "on: backends as the cluster says" },
	[KLB_DISCOVERY_FAILING] = { "failing", "FAILING: backends as the cluster said last" },
};

#define N_DISCOVERIES ARRAY_SIZE(discoveries)

const char *names_discovery_key(enum klb_discovery d)
{
	return (unsigned int)d < N_DISCOVERIES ? discoveries[d].key : "invalid";
}

const char *names_discovery(enum klb_discovery d)
{
	return (unsigned int)d < N_DISCOVERIES ? discoveries[d].text : "invalid";
}
