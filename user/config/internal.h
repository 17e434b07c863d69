/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between the rooms that make a snapshot: bytes to a validated snapshot; no maps,
 * no sockets.
 *
 *   config.c           the public calls: memory, files, defaults
 *   config_yaml.c      a document to a snapshot, by tables of keys
 *   config_value.c     one scalar to one field
 *   config_build.c     the lists, and what spans several keys
 *   config_duration.c  durations and numbers
 *   config_suggest.c   the key that was probably meant
 */
#ifndef KUBELB_CONFIG_INTERNAL_H
#define KUBELB_CONFIG_INTERNAL_H

#include <errno.h>
#include <yaml.h>

#include "config/config.h"
#include "config/yaml_doc.h"

#define CONFIG_KEY_MAX 96
/* "4294967295ms" and its NUL. */
#define CONFIG_DURATION_TEXT_MAX 16

/* Where a value comes from, for the message about it. */
struct config_where {
	unsigned int line; /* 0: not from a file */
	char key[CONFIG_KEY_MAX]; /* "probe.path", "backends[2]", "-b 10.0.0.1"; "": a default */
};

/* A snapshot under construction. */
struct config_build {
	struct config *config;
	struct config_where frontends[KLB_MAX_FRONTENDS];
	struct config_where backends[KLB_MAX_BACKENDS];
	struct config_where no_backend; /* what to name when there is none */
	struct config_where http;
	struct err *e;
};

/* A value of the document. */
struct config_node {
	yaml_document_t *document;
	yaml_node_t *node;
	struct config_where where;
};

/* A key that a mapping may have, and how its value gets into the mapping's object. */
struct config_key {
	const char *name; /* NULL ends a table */
	/* base: the object; the field is offset bytes into it. Returns 0 or a negative errno. */
	int (*read)(struct config_build *b, const struct config_node *at,
		    const struct config_key *key, void *base);
	size_t offset;
	unsigned int min, max; /* of numbers; of durations in milliseconds */
	bool or_off; /* 0, or "", is allowed too and turns it off */
};

/*
 * Fills the line `SOURCE:LINE: KEY: …` and returns -EINVAL. A macro, so that
 * compilers see that it is an error and what a caller leaves unset then.
 */
#define config_fail(b, at, ...) (config_explain(b, at, __VA_ARGS__), -EINVAL)
void config_explain(const struct config_build *b, const struct config_where *at, const char *format,
		    ...) __attribute__((format(printf, 3, 4)));
/* The same for memory that could not be had. */
int config_fail_memory(const struct config_build *b);

/* Parses text, checks the address by itself and among its like, and appends it. */
int config_add_frontend(struct config_build *b, const struct config_where *at, const char *text,
			enum klb_scope scope);
int config_add_backend(struct config_build *b, const struct config_where *at, const char *text,
		       unsigned int weight);
/* Fills in the default frontends and checks what spans several keys. */
int config_finish(struct config_build *b, bool host_has_ipv6);

/*
 * The document into b->config; config_finish comes after it. Returns 0, or a negative errno
 * with b->e; b->config, which may be half filled then, stays the caller's to free.
 */
int config_read_yaml(struct config_build *b, const char *text, size_t length);
/* Of a document that a person writes. */
extern const struct yamldoc_limits config_limits;

/* Replaces *field, an owned string or NULL, by a copy of text. */
int config_set_string(const struct config_build *b, char **field, const char *text);
/* What node is, in a word for a message. */
const char *config_kind(const yaml_node_t *node);
/*
 * The text of a scalar, owned by the document. want: what belongs there, for the
 * message when it is something else.
 */
int config_read_text(struct config_build *b, const struct config_node *at, const char *want,
		     const char **ret);

/* A DNS name, or an address without a port. */
bool config_is_server_name(const char *text);

/* For the tables: see struct config_key. */
int config_read_uint(struct config_build *b, const struct config_node *at,
		     const struct config_key *key, void *base);
int config_read_bool(struct config_build *b, const struct config_node *at,
		     const struct config_key *key, void *base);
int config_read_duration(struct config_build *b, const struct config_node *at,
			 const struct config_key *key, void *base);
int config_read_file(struct config_build *b, const struct config_node *at,
		     const struct config_key *key, void *base);
int config_read_http_path(struct config_build *b, const struct config_node *at,
			  const struct config_key *key, void *base);
int config_read_server_name(struct config_build *b, const struct config_node *at,
			    const struct config_key *key, void *base);
int config_read_policy(struct config_build *b, const struct config_node *at,
		       const struct config_key *key, void *base);
int config_read_scope(struct config_build *b, const struct config_node *at,
		      const struct config_key *key, void *base);
int config_read_http(struct config_build *b, const struct config_node *at,
		     const struct config_key *key, void *base);

/* Decimal digits without sign or leading zeros, up to UINT_MAX. Returns 0 or -EINVAL. */
int config_uint(const char *text, unsigned int *ret);
/* Prints ms in its largest even unit ("90s", "1h") into buf; returns buf. */
const char *config_duration_format(unsigned int ms, char *buf);

/* The name in keys that text is a slip of, or NULL. */
const char *config_suggest(const struct config_key *keys, const char *text);

#endif
