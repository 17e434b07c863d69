/* SPDX-License-Identifier: BSD-2-Clause */
/* A GET for either protocol that an HTTPS connection may speak. */
#ifndef KUBELB_HTTPS_GET_H
#define KUBELB_HTTPS_GET_H

#include <stdbool.h>

#include "net/https_conn.h"

/* Makes the GET for path; false when memory is short. Free with https_get_free in any case. */
bool https_get_make(const char *path, const struct tls_peer *peer, struct https_get *ret);
void https_get_free(struct https_get *get);

#endif
