/* SPDX-License-Identifier: BSD-2-Clause */
/* Finds secrets in texts that people would read. Pure. */
#ifndef KUBELB_REDACT_H
#define KUBELB_REDACT_H

#include <stdbool.h>

/*
 * Whether text looks like PEM, PEM in base64 (a kubeconfig's …-data), a signed token (JWT) or a
 * bootstrap token. Error messages quote file names; a secret in place of one would end up in the
 * log.
 */
bool secret_is_likely(const char *text);

/* Whether text contains the secret, or a part of it that is long enough to matter. */
bool secret_is_in(const char *text, const char *secret);

#endif
