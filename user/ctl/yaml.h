/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints JSON as YAML. */
#ifndef KUBELB_CTL_YAML_H
#define KUBELB_CTL_YAML_H

#include <stdio.h>

#include <jansson.h>

/* Prints root, NULL included, as one document, and frees it. Returns 0 or -ENOMEM. */
int ctl_print_yaml(json_t *root, FILE *to);

#endif
