/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads a kubeconfig's text: contexts, clusters and users, value by value. What a value means,
 * and whether it is refused, is up to the caller.
 *
 * The first failure is kept (struct kubeconfig, r). After it every value is absent and no other
 * failure replaces it, so that callers need to look at r only where they act on a value.
 */
#ifndef KUBELB_KUBECONFIG_H
#define KUBELB_KUBECONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <yaml.h>

#include "base/err.h"

/* A value of the document. Its pointers are valid until kubeconfig_close. */
struct kubeconfig_value {
	const yaml_node_t *node; /* NULL: absent, null or "" */
	const char *text; /* of a string; or NULL */
	unsigned int line; /* of its key; if absent, of the mapping that lacks it; 0: none */
	char key[160]; /* for messages: "users[node].user.client-key" */
};

struct kubeconfig {
	const char *path; /* for messages */
	const char *directory; /* where relative file names begin; NULL: in that of path */
	struct err *e;
	int r; /* 0, or the first failure, a negative errno with e */
	yaml_document_t document;
	struct kubeconfig_value root; /* node NULL: the document is no mapping */
};

/*
 * Opens a file's bytes; path and e must outlive ret. Returns 0 and an object for
 * kubeconfig_close, or a negative errno with e as `FILE:LINE: YAML: what is wrong; what next`.
 */
int kubeconfig_open(struct kubeconfig *ret, const char *text, size_t length, const char *path,
		    struct err *e);
void kubeconfig_close(struct kubeconfig *k);

/*
 * Fails with `FILE:LINE: KEY: …` about a value, unless k has failed before; returns k->r. No
 * message may repeat a value: it can be a secret.
 */
int kubeconfig_fail(struct kubeconfig *k, const struct kubeconfig_value *at, const char *format,
		    ...) __attribute__((format(printf, 3, 4)));
int kubeconfig_fail_memory(struct kubeconfig *k);

/*
 * The value of a mapping's key: of any kind, or a string. They fail when the key is there
 * twice (which one counts would be a guess), and when mapping or value are of another kind.
 */
struct kubeconfig_value kubeconfig_get(struct kubeconfig *k, const struct kubeconfig_value *mapping,
				       const char *name);
struct kubeconfig_value kubeconfig_text(struct kubeconfig *k,
					const struct kubeconfig_value *mapping, const char *name);

/*
 * The mapping of the entry called name in a list: what is below `cluster` for the list
 * "clusters", and likewise for "contexts" and "users". Fails when two entries have the name,
 * and, if it is required, when none has.
 */
struct kubeconfig_value kubeconfig_named(struct kubeconfig *k, const char *list, const char *name,
					 bool required);
/* The same for a list's entry n, counted from 0. Its name: "" for none, NULL after the last. */
struct kubeconfig_value kubeconfig_nth(struct kubeconfig *k, const char *list, size_t n,
				       const char **ret_name);

/*
 * A file that the kubeconfig names, relative to the kubeconfig as with kubectl: "..", too, is
 * taken off the name. Returns a text to be freed, or NULL after kubeconfig_fail_memory.
 */
char *kubeconfig_file(struct kubeconfig *k, const char *file);

#endif
