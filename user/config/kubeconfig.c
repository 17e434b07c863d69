/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads a kubeconfig's contexts, clusters and users, strictly: what could be understood in two ways
 * is an error. The keys are those of client-go (k8s.io/client-go/tools/clientcmd/api/v1); other
 * keys are passed over.
 */
#include "config/kubeconfig.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/path.h"
#include "config/yaml_doc.h"

/* An administrator's file has a dozen values for each cluster. */
#define DEPTH_MAX 32
#define NODES_MAX 16384

int kubeconfig_fail(struct kubeconfig *k, const struct kubeconfig_value *at, const char *format,
		    ...)
{
	char what[ERR_TEXT_MAX], line[16] = "";
	va_list ap;

	if (k->r)
		return k->r;
	va_start(ap, format);
	vsnprintf(what, sizeof(what), format, ap);
	va_end(ap);
	if (at->line)
		snprintf(line, sizeof(line), "%u:", at->line);
	k->r = err_set(k->e, EINVAL, "%s:%s %s: %s", k->path, line, at->key, what);
	return k->r;
}

int kubeconfig_fail_memory(struct kubeconfig *k)
{
	if (!k->r)
		k->r = err_no_memory_for(k->e, k->path);
	return k->r;
}

/* --- values -------------------------------------------------------------------------- */

static void find(struct kubeconfig *k, const yaml_node_t *mapping, const char *name,
		 struct kubeconfig_value *ret)
{
	const yaml_node_pair_t *pair = NULL;
	unsigned int line = 0;

	while ((pair = yamldoc_pair(&k->document, mapping, name, pair))) {
		ret->line = yamldoc_line(yaml_document_get_node(&k->document, pair->key));
		if (line)
			kubeconfig_fail(k, ret,
					"is there already (on line %u); remove one of the two",
					line);
		line = ret->line;
		ret->node = yaml_document_get_node(&k->document, pair->value);
	}
	if (k->r || (ret->node && (yamldoc_is_null(ret->node) || yamldoc_is(ret->node, ""))))
		ret->node = NULL;
}

struct kubeconfig_value kubeconfig_get(struct kubeconfig *k, const struct kubeconfig_value *mapping,
				       const char *name)
{
	struct kubeconfig_value found = { .line = mapping->line };

	snprintf(found.key, sizeof(found.key), "%.110s%s%.40s", mapping->key,
		 mapping->key[0] ? "." : "", name);
	if (mapping->node && mapping->node->type != YAML_MAPPING_NODE)
		kubeconfig_fail(k, mapping, "not a mapping; write key: value");
	else if (mapping->node)
		find(k, mapping->node, name, &found);
	return found;
}

struct kubeconfig_value kubeconfig_text(struct kubeconfig *k,
					const struct kubeconfig_value *mapping, const char *name)
{
	struct kubeconfig_value found = kubeconfig_get(k, mapping, name);
	const char *text;

	if (!found.node)
		return found;
	if (found.node->type != YAML_SCALAR_NODE) {
		kubeconfig_fail(k, &found, "not a string; write one");
		return found;
	}
	text = (const char *)found.node->data.scalar.value;
	if (strlen(text) == found.node->data.scalar.length)
		found.text = text;
	else
		kubeconfig_fail(k, &found, "a NUL in the value; remove it");
	return found;
}

/* --- lists --------------------------------------------------------------------------- */

/* "cluster" for "clusters": the key that an entry has besides its name. */
static const char *content_key(const char *list, char buf[16])
{
	snprintf(buf, 16, "%.*s", (int)strlen(list) - 1, list);
	return buf;
}

static struct kubeconfig_value get_list(struct kubeconfig *k, const char *list)
{
	struct kubeconfig_value found = kubeconfig_get(k, &k->root, list);
	char key[16];

	if (found.node && found.node->type != YAML_SEQUENCE_NODE) {
		kubeconfig_fail(k, &found, "not a list; write entries with name and %s",
				content_key(list, key));
		found.node = NULL;
	}
	return found;
}

/* Entry n, which messages call list[name]; its node is NULL after the last. */
static struct kubeconfig_value get_entry(struct kubeconfig *k, const struct kubeconfig_value *list,
					 size_t n, const char *name)
{
	struct kubeconfig_value entry = { .node = NULL };

	if (list->node)
		entry.node = yamldoc_item(&k->document, list->node, n);
	if (entry.node)
		entry.line = yamldoc_line(entry.node);
	snprintf(entry.key, sizeof(entry.key), "%.20s[%.60s]", list->key, name);
	return entry;
}

struct kubeconfig_value kubeconfig_named(struct kubeconfig *k, const char *list, const char *name,
					 bool required)
{
	struct kubeconfig_value at = get_list(k, list), entry, called, found = { .node = NULL };
	bool seen = false;
	char key[16];

	for (size_t n = 0; (entry = get_entry(k, &at, n, name)).node && !k->r; n++) {
		called = kubeconfig_text(k, &entry, "name");
		if (strcmp(called.text ? called.text : "", name) != 0)
			continue;
		if (seen)
			kubeconfig_fail(k, &called,
					"another entry of this name; remove one of the two");
		seen = true;
		found = kubeconfig_get(k, &entry, content_key(list, key));
	}
	if (required && !seen)
		kubeconfig_fail(k, &at, "no entry named '%.64s'; add it, or correct the name",
				name);
	if (required && !found.node)
		kubeconfig_fail(k, &found, "is missing; add it");
	return found;
}

struct kubeconfig_value kubeconfig_nth(struct kubeconfig *k, const char *list, size_t n,
				       const char **ret_name)
{
	struct kubeconfig_value at = get_list(k, list), entry, name;
	char text[24];

	snprintf(text, sizeof(text), "%zu", n);
	entry = get_entry(k, &at, n, text);
	name = kubeconfig_text(k, &entry, "name");
	*ret_name = NULL;
	if (entry.node && !k->r)
		*ret_name = name.text ? name.text : "";
	return kubeconfig_get(k, &entry, content_key(list, text));
}

/* --- the file ------------------------------------------------------------------------ */

int kubeconfig_open(struct kubeconfig *ret, const char *text, size_t length, const char *path,
		    struct err *e)
{
	static const struct yamldoc_limits limits = {
		.depth = DEPTH_MAX,
		.nodes = NODES_MAX,
		.advice = "check quotes and indentation (no tabs)",
	};
	struct kubeconfig k = { .path = path, .e = e };
	int r = yamldoc_load(path, text, length, &limits, &k.document, e);

	if (r)
		return r;
	k.root.node = yaml_document_get_root_node(&k.document);
	if (k.root.node && k.root.node->type != YAML_MAPPING_NODE)
		k.root.node = NULL;
	*ret = k;
	return 0;
}

void kubeconfig_close(struct kubeconfig *k)
{
	yaml_document_delete(&k->document);
}

char *kubeconfig_file(struct kubeconfig *k, const char *file)
{
	char *own = k->directory ? NULL : path_directory(k->path), *full = NULL;

	if (own || k->directory)
		full = path_resolve(own ? own : k->directory, file);
	free(own);
	if (!full)
		kubeconfig_fail_memory(k);
	return full;
}
