/* SPDX-License-Identifier: BSD-2-Clause */
/* Finds secrets in texts that people would read. */
#include "base/redact.h"

#include <string.h>

#define LOWER_AND_DIGITS "abcdefghijklmnopqrstuvwxyz0123456789"

/* Three parts with dots between them. The first part is a JSON object in base64. */
static bool is_signed_token(const char *text)
{
	const char *dot = strchr(text, '.');

	return !strncmp(text, "eyJ", 3) && dot && strchr(dot + 1, '.');
}

/* "abcdef.0123456789abcdef", the form that kubeadm makes. */
static bool is_bootstrap_token(const char *text)
{
	return strspn(text, LOWER_AND_DIGITS) == 6 && text[6] == '.' &&
	       strspn(text + 7, LOWER_AND_DIGITS) == 16 && !text[23];
}

bool secret_is_likely(const char *text)
{
	/* The second is "-----BEGIN" in base64. */
	return strstr(text, "-----BEGIN") || strstr(text, "LS0tLS1CRUdJTi") ||
	       is_signed_token(text) || is_bootstrap_token(text);
}

/* A quoted answer may contain a part of the secret. Common words are shorter than this. */
#define PIECE 16

bool secret_is_in(const char *text, const char *secret)
{
	size_t length = strlen(text), whole = strlen(secret);

	if (!whole)
		return false;
	if (whole <= PIECE)
		return strstr(text, secret);
	for (size_t i = 0; i + PIECE <= length; i++)
		if (memmem(secret, whole, text + i, PIECE))
			return true;
	return false;
}
