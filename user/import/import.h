/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Import: makes a kubelb.yaml of a local proxy's configuration, or of a kubeconfig. Pure: no
 * maps, no sockets, no files, no clock; the same bytes give the same text.
 *
 *   render.c      the result as text
 *   adjust.c      what is worked out of all that was read
 *   convert.c     what the readers share: notes, lists, the choice
 *   source_text.c what is no finished configuration
 *   lexer.c       words and blocks of a proxy's file
 *   proxy_time.c  times in a proxy's file
 *   nginx*.c      an nginx.conf
 *   haproxy*.c    a haproxy.cfg
 *   kubeconfig.c  a kubeconfig
 */
#ifndef KUBELB_IMPORT_H
#define KUBELB_IMPORT_H

#include <stddef.h>

#include "base/err.h"

enum import_kind { IMPORT_NGINX, IMPORT_HAPROXY, IMPORT_KUBECONFIG };

/* The option of kubelb-load that stands for kind: "--from-nginx". */
const char *import_option(enum import_kind kind);

/*
 * Returns 0 with a complete configuration in *ret, which config_parse accepts and the caller frees.
 * Comments at its top name what could not be carried over. Otherwise a negative errno with e as
 * `SOURCE:LINE: what; what next`: -EINVAL for a file that cannot be understood, or has a setting
 * without an equivalent. source is the file's name in messages and comments. directory: the
 * absolute one that the file is in, where relative names in a kubeconfig begin; NULL: unknown.
 * *ret is untouched on failure.
 */
int import_convert(enum import_kind kind, const char *text, size_t length, const char *source,
		   const char *directory, char **ret, struct err *e);

#endif
