/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints JSON as YAML, by libyaml. */
#include "ctl/yaml.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <strings.h>

#include <yaml.h>

#include "base/array.h"
#include "ctl/json.h"

/* Strings are quoted, keys only where YAML 1.1 takes the word for a boolean (relay.rescue.on). */
static bool is_boolean(const char *key)
{
	static const char *const words[] = { "y", "n", "yes", "no", "on", "off", "true", "false" };

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (!strcasecmp(key, words[i]))
			return true;
	return false;
}

static int add_text(yaml_document_t *d, const char *text, bool quoted)
{
	return yaml_document_add_scalar(d, NULL, (const yaml_char_t *)text, -1,
					quoted ? YAML_DOUBLE_QUOTED_SCALAR_STYLE
					       : YAML_PLAIN_SCALAR_STYLE);
}

/* A number, a boolean or null, as JSON writes it. */
static int add_literal(yaml_document_t *d, json_t *value)
{
	char *text = NULL;
	size_t size = 0;
	FILE *to = open_memstream(&text, &size);
	int node = 0;

	if (!to)
		return 0;
	ctl_print_json_value(json_incref(value), to);
	if (!fclose(to))
		node = yaml_document_add_scalar(d, NULL, (const yaml_char_t *)text, -1,
						YAML_PLAIN_SCALAR_STYLE);
	free(text);
	return node;
}

static int add(yaml_document_t *d, json_t *value);

static int add_list(yaml_document_t *d, json_t *value)
{
	int list = yaml_document_add_sequence(d, NULL,
					      json_array_size(value) ? YAML_BLOCK_SEQUENCE_STYLE
								     : YAML_FLOW_SEQUENCE_STYLE);
	json_t *item;
	size_t i;

	json_array_foreach(value, i, item) {
		int node = list ? add(d, item) : 0;

		if (!node || !yaml_document_append_sequence_item(d, list, node))
			return 0;
	}
	return list;
}

static int add_object(yaml_document_t *d, json_t *value)
{
	int object = yaml_document_add_mapping(d, NULL, YAML_BLOCK_MAPPING_STYLE);
	const char *key;
	json_t *item;

	json_object_foreach(value, key, item) {
		int name = object ? add_text(d, key, is_boolean(key)) : 0;
		int node = name ? add(d, item) : 0;

		if (!node || !yaml_document_append_mapping_pair(d, object, name, node))
			return 0;
	}
	return object;
}

/* Returns the node's number; 0 without memory. */
static int add(yaml_document_t *d, json_t *value)
{
	if (json_is_object(value))
		return add_object(d, value);
	if (json_is_array(value))
		return add_list(d, value);
	if (json_is_string(value))
		return add_text(d, json_string_value(value), true);
	return add_literal(d, value);
}

static int dump(yaml_document_t *d, FILE *to)
{
	yaml_emitter_t emitter;
	int done;

	if (!yaml_emitter_initialize(&emitter))
		return 0;
	yaml_emitter_set_output_file(&emitter, to);
	yaml_emitter_set_unicode(&emitter, 1);
	yaml_emitter_set_width(&emitter, -1);
	/* It frees the document. */
	done = yaml_emitter_dump(&emitter, d);
	yaml_emitter_delete(&emitter);
	return done;
}

int ctl_print_yaml(json_t *root, FILE *to)
{
	yaml_document_t d;
	int done = root && yaml_document_initialize(&d, NULL, NULL, NULL, 1, 1);

	if (done && !add(&d, root)) {
		yaml_document_delete(&d);
		done = 0;
	}
	if (done)
		done = dump(&d, to);
	json_decref(root);
	return done || ferror(to) ? 0 : -ENOMEM;
}
