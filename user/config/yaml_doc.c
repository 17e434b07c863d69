/* SPDX-License-Identifier: BSD-2-Clause */
/* Parses a text into one YAML document with libyaml, within limits. */
#include "config/yaml_doc.h"

#include <errno.h>
#include <string.h>

#include "base/array.h"

/* A text that becomes a document. */
struct reading {
	const char *source;
	const char *text;
	size_t length;
	const struct yamldoc_limits *limits;
	struct err *e;
	/* What has been read so far. */
	unsigned int documents, depth, nodes;
};

unsigned int yamldoc_line(const yaml_node_t *node)
{
	return (unsigned int)node->start_mark.line + 1;
}

bool yamldoc_is_null(const yaml_node_t *node)
{
	static const char *const nulls[] = { "", "~", "null", "Null", "NULL" };
	size_t i;

	if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
		return false;
	for (i = 0; i < ARRAY_SIZE(nulls); i++)
		if (strcmp((const char *)node->data.scalar.value, nulls[i]) == 0)
			return true;
	return false;
}

bool yamldoc_is(const yaml_node_t *node, const char *text)
{
	return node->type == YAML_SCALAR_NODE && node->data.scalar.length == strlen(text) &&
	       memcmp(node->data.scalar.value, text, node->data.scalar.length) == 0;
}

const yaml_node_pair_t *yamldoc_pair(yaml_document_t *document, const yaml_node_t *mapping,
				     const char *name, const yaml_node_pair_t *after)
{
	const yaml_node_pair_t *pair = after ? after + 1 : mapping->data.mapping.pairs.start;

	for (; pair < mapping->data.mapping.pairs.top; pair++)
		if (yamldoc_is(yaml_document_get_node(document, pair->key), name))
			return pair;
	return NULL;
}

yaml_node_t *yamldoc_item(yaml_document_t *document, const yaml_node_t *list, size_t n)
{
	const yaml_node_item_t *start = list->data.sequence.items.start;

	if (n >= (size_t)(list->data.sequence.items.top - start))
		return NULL;
	return yaml_document_get_node(document, start[n]);
}

/* For bytes that are not text libyaml gives the place as an offset only. */
static unsigned int line_at(const struct reading *y, size_t offset)
{
	unsigned int line = 1;
	size_t i;

	for (i = 0; i < y->length && i < offset; i++)
		line += y->text[i] == '\n';
	return line;
}

static int fail_memory(const struct reading *y)
{
	return err_no_memory_for(y->e, y->source);
}

static int fail_syntax(const struct reading *y, const yaml_parser_t *parser)
{
	const char *problem = parser->problem;
	size_t line = parser->problem_mark.line + 1;

	/* The composer may run out of memory without an error. */
	if (!problem || parser->error == YAML_MEMORY_ERROR)
		return fail_memory(y);
	if (parser->error == YAML_READER_ERROR)
		return err_set(y->e, EINVAL, "%s:%u: YAML: %s; save the file as UTF-8 text",
			       y->source, line_at(y, parser->problem_offset), problem);
	if (!parser->context)
		return err_set(y->e, EINVAL, "%s:%zu: YAML: %s; %s", y->source, line, problem,
			       y->limits->advice);
	return err_set(y->e, EINVAL, "%s:%zu: YAML: %s %s that begins on line %zu; %s", y->source,
		       line, problem, parser->context, parser->context_mark.line + 1,
		       y->limits->advice);
}

/* Counts one event, and says which limit it exceeds. */
static int check_event(struct reading *y, const yaml_event_t *event)
{
	size_t line = event->start_mark.line + 1;

	switch (event->type) {
	case YAML_DOCUMENT_START_EVENT:
		/* With two documents it would be unclear which one counts. */
		if (y->documents++)
			return err_set(y->e, EINVAL, "%s:%zu: YAML: a second document; remove it",
				       y->source, line);
		break;
	case YAML_SEQUENCE_START_EVENT:
	case YAML_MAPPING_START_EVENT:
		y->nodes++;
		if (++y->depth > y->limits->depth)
			return err_set(y->e, EINVAL,
				       "%s:%zu: YAML: nested too deeply; remove some brackets",
				       y->source, line);
		break;
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		y->depth--;
		break;
	case YAML_SCALAR_EVENT:
	case YAML_ALIAS_EVENT:
		y->nodes++;
		break;
	default:
		break;
	}
	if (y->nodes > y->limits->nodes)
		return err_set(y->e, EINVAL, "%s:%zu: YAML: more than %u values; remove some",
			       y->source, line, y->limits->nodes);
	return 0;
}

/*
 * Parses the document once without keeping it. libyaml's time grows with the square of the nesting
 * and of the number of anchors, so a few hundred kilobytes of brackets take minutes. This pass
 * stops at the limits.
 */
static int check_shape(struct reading *y, yaml_parser_t *parser)
{
	bool end = false;
	int r = 0;

	while (r == 0 && !end) {
		yaml_event_t event;

		if (!yaml_parser_parse(parser, &event))
			return fail_syntax(y, parser);
		r = check_event(y, &event);
		end = event.type == YAML_STREAM_END_EVENT;
		yaml_event_delete(&event);
	}
	return r;
}

/* ret NULL: the first pass, which keeps nothing. */
static int run(struct reading *y, yaml_document_t *ret)
{
	yaml_parser_t parser;
	int r = 0;

	if (!yaml_parser_initialize(&parser))
		return fail_memory(y);
	yaml_parser_set_input_string(&parser, (const unsigned char *)y->text, y->length);
	if (!ret)
		r = check_shape(y, &parser);
	else if (!yaml_parser_load(&parser, ret))
		r = fail_syntax(y, &parser);
	yaml_parser_delete(&parser);
	return r;
}

int yamldoc_load(const char *source, const char *text, size_t length,
		 const struct yamldoc_limits *limits, yaml_document_t *ret, struct err *e)
{
	struct reading y = {
		.source = source, .text = text, .length = length, .limits = limits, .e = e
	};
	yaml_document_t document;
	int r = run(&y, NULL);

	if (r == 0)
		r = run(&y, &document);
	if (r == 0)
		*ret = document;
	return r;
}
