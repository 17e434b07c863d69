/* SPDX-License-Identifier: BSD-2-Clause */
/* One line of HTTP/1 headers, strictly (RFC 9112, 5); and what requests have in theirs. */
#ifndef KUBELB_HEADER_H
#define KUBELB_HEADER_H

#include <stdbool.h>

#include <linux/types.h>

#ifndef KLB_VERSION
#define KLB_VERSION "dev"
#endif
/* What requests say about their sender. */
#define HTTP_USER_AGENT "kubelb-agent/" KLB_VERSION

/*
 * Splits "Name: value" in place. False for a line that is none: a folded one, or one with a blank
 * before the colon.
 */
bool header_split(char *line, char **ret_value);
/* The value of a Date header in Unix time; 0: it is none (RFC 9110, 5.6.7, IMF-fixdate). */
__s64 header_date_s(const char *value);
/* Whether a comma-separated list holds a token. */
bool header_has_token(const char *list, const char *token);

#endif
