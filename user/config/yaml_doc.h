/* SPDX-License-Identifier: BSD-2-Clause */
/* Parses a text into one YAML document, within limits. */
#ifndef KUBELB_YAML_DOC_H
#define KUBELB_YAML_DOC_H

#include <stdbool.h>
#include <stddef.h>
#include <yaml.h>

#include "base/err.h"

struct yamldoc_limits {
	unsigned int depth; /* of nesting */
	unsigned int nodes; /* values of all kinds */
	const char *advice; /* what to check when the text is not YAML */
};

/*
 * Returns 0 and a document for yaml_document_delete, which has no root when the text is empty. On
 * failure returns a negative errno with e as `SOURCE:LINE: YAML: what is wrong; what next`
 * (-EINVAL), or about memory. *ret is unchanged on failure.
 */
int yamldoc_load(const char *source, const char *text, size_t length,
		 const struct yamldoc_limits *limits, yaml_document_t *ret, struct err *e);

/* The line of the node, counted from 1. */
unsigned int yamldoc_line(const yaml_node_t *node);
/* Whether the node is null in YAML 1.2: nothing, or ~ or null without quotes. */
bool yamldoc_is_null(const yaml_node_t *node);
/* Whether the node is a scalar with exactly this text. */
bool yamldoc_is(const yaml_node_t *node, const char *text);
/*
 * The pair of a mapping whose key is name: the first one, or the next one after the given one; NULL
 * when there are no more. libyaml allows a key to stand twice.
 */
const yaml_node_pair_t *yamldoc_pair(yaml_document_t *document, const yaml_node_t *mapping,
				     const char *name, const yaml_node_pair_t *after);
/* Item n of a list, counted from 0; NULL after the last. */
yaml_node_t *yamldoc_item(yaml_document_t *document, const yaml_node_t *list, size_t n);

#endif
