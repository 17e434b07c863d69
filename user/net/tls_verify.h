/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Verifies a server's certificates as Kubernetes' clients do (Go's crypto/x509, Certificate.Verify
 * with the key usage ExtKeyUsageServerAuth).
 */
#ifndef KUBELB_TLS_VERIFY_H
#define KUBELB_TLS_VERIFY_H

#include <openssl/ssl.h>

/* The error of a key that costs too much, or that Go does not know (tls_cost.h). */
#define TLS_VERIFY_KEY X509_V_ERR_APPLICATION_VERIFICATION

/* Makes ctx verify with these rules, against the certificates in its store. */
void tls_verify_set_up(SSL_CTX *ctx);
/* Makes ctx look only at how much the certificates cost. */
void tls_verify_set_up_insecure(SSL_CTX *ctx);

#endif
