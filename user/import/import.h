/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Migration: what a local proxy, or a kubeconfig, says about the apiservers becomes
 * a kubelb.yaml. Bytes to a struct and that struct to text: no maps, no sockets, no
 * files, no clock; the same bytes give the same text.
 *
 *   migrate.c             the struct to text
 *   migrate_build.c       what the readers share: notes, lists, the choice
 *   migrate_words.c       words and blocks of a proxy's file
 *   migrate_nginx.c       an nginx.conf to the struct
 *   migrate_haproxy.c     a haproxy.cfg to the struct
 *   migrate_kubeconfig.c  a kubeconfig to the struct
 */
#ifndef KUBELB_MIGRATE_H
#define KUBELB_MIGRATE_H

#include <stddef.h>

#include "base/err.h"

enum migrate_kind { MIGRATE_NGINX, MIGRATE_HAPROXY, MIGRATE_KUBECONFIG };

/* The option of kubelb-load that stands for kind: "--from-nginx". */
const char *migrate_option(enum migrate_kind kind);

/*
 * Returns 0 with a complete configuration in *ret, which config_parse accepts and the
 * caller frees; what could not be carried over is named in comments at its top.
 * Otherwise a negative errno with e as `SOURCE:LINE: what; what next`: -EINVAL for
 * what cannot be understood or has no counterpart that would do the same job. source
 * stands for the file's name in messages and comments. *ret is untouched on failure.
 */
int migrate_convert(enum migrate_kind kind, const char *text, size_t length, const char *source,
		    char **ret, struct err *e);

#endif
