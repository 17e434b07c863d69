/* SPDX-License-Identifier: BSD-2-Clause */
/* Takes secrets out of a text of any origin that is to be shown to others. Pure. */
#ifndef KUBELB_REDACT_TEXT_H
#define KUBELB_REDACT_TEXT_H

#include <stdio.h>

/* What stands in a secret's place. */
#define REDACTED "[removed]"

/*
 * Writes text to `to` without what looks like a secret: PEM, tokens, keys in base64, the user and
 * password of a URL, and the value of a key that is named like one ("password: x", "token=x"). It
 * takes out too much rather than too little.
 */
void redact_text(const char *text, FILE *to);

#endif
