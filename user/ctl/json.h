/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints JSON. */
#ifndef KUBELB_CTL_JSON_H
#define KUBELB_CTL_JSON_H

#include <stdio.h>

#include <jansson.h>
#include <linux/types.h>

/*
 * Prints root and a line feed, and frees root. format: JSON_COMPACT or JSON_INDENT(2). Returns 0,
 * or -ENOMEM when root is NULL or memory is short; cli_end reports a failed write.
 */
int ctl_print_json(json_t *root, size_t format, FILE *to);

/* Prints one value on its own, without a newline, in the same form, and frees it. Likewise. */
int ctl_print_json_value(json_t *value, FILE *to);

/* Prints nanoseconds as seconds, as jansson prints that real: without an allocation, for long
 * lists. */
void ctl_print_json_seconds(__u64 ns, FILE *to);

#endif
