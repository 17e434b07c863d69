/* SPDX-License-Identifier: BSD-2-Clause */
/* What must not get into a line that people read. Pure. */
#ifndef KUBELB_REDACT_H
#define KUBELB_REDACT_H

#include <stdbool.h>

/*
 * PEM, PEM in base64 (a kubeconfig's …-data), a signed token (JWT), a bootstrap token.
 * Error messages name files, and so would show it to whoever reads the log.
 */
bool secret_is_likely(const char *text);

/* Whether text gives a secret away: all of it, or so much of it as could matter. */
bool secret_is_in(const char *text, const char *secret);

#endif
