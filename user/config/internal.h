/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shared by the files of this folder; no other folder includes it.
 *
 *   config.c     the public functions: memory, files, defaults, arguments
 *   schema.c     a document to a snapshot, by tables of keys
 *   scalar.c     one scalar to one field
 *   relay.c      the relay's settings
 *   validate.c   the lists, and rules about several keys
 *   compare.c    compares two snapshots
 *   duration.c   durations and numbers
 *   put_string.c a string as a YAML scalar
 *   print.c      a snapshot to a document
 *   suggest.c    the key that was probably meant
 *   yaml_doc.c   text to one YAML document
 */
#ifndef KUBELB_CONFIG_INTERNAL_H
#define KUBELB_CONFIG_INTERNAL_H

#include <errno.h>
#include <stdio.h>
#include <yaml.h>

#include "config/config.h"
#include "config/yaml_doc.h"

#define CONFIG_KEY_MAX 96
/* "4294967295ms" and its NUL. */
#define CONFIG_DURATION_TEXT_MAX 16

/* Where a value comes from, for messages about it. */
struct config_where {
	unsigned int line; /* 0: not from a file */
	char key[CONFIG_KEY_MAX]; /* "probe.path", "backends[2]", "-b 10.0.0.1"; "": a default */
};

/* A snapshot under construction. */
struct config_build {
	struct config *config;
	struct config_where frontends[KLB_MAX_FRONTENDS];
	struct config_where backends[KLB_MAX_BACKENDS];
	struct config_where no_backend; /* what a message names when there is no backend */
	struct config_where http;
	struct config_where local, prefer_local; /* line 0: the key is not there */
	enum klb_local preferred; /* what preferLocal, the old key, means */
	struct err *e;
};

/* A value of the document. */
struct config_node {
	yaml_document_t *document;
	yaml_node_t *node;
	struct config_where where;
};

/* A key that a mapping may have, and how to read its value into the mapping's object. */
struct config_key {
	const char *name; /* NULL ends a table */
	/* base: the object. Its field is at offset. Returns 0 or a negative errno. */
	int (*read)(struct config_build *b, const struct config_node *at,
		    const struct config_key *key, void *base);
	size_t offset;
	unsigned int min, max; /* of numbers; of durations in milliseconds */
	bool or_off; /* 0, or "", is allowed too and turns it off */
};

/*
 * Fills in the line `SOURCE:LINE: KEY: …` and returns -EINVAL. A macro, so that compilers see that
 * it returns an error and that the caller's results stay unset.
 */
#define config_fail(b, at, ...) (config_explain(b, at, __VA_ARGS__), -EINVAL)
void config_explain(const struct config_build *b, const struct config_where *at, const char *format,
		    ...) __attribute__((format(printf, 3, 4)));
/* The same when there is no memory. */
int config_fail_memory(const struct config_build *b);

/*
 * Parse text, check the address by itself and against the others, and append it. access: NULL, but
 * for KLB_SCOPE_NETWORK.
 */
int config_add_frontend(struct config_build *b, const struct config_where *at, const char *text,
			enum klb_scope scope, const struct config_access *access);
int config_add_backend(struct config_build *b, const struct config_where *at, const char *text,
		       unsigned int weight);
/* Fills in the default frontends and checks the rules about several keys. */
int config_finish(struct config_build *b, bool host_has_ipv6);

/*
 * Reads the document into b->config; config_finish comes after it. Returns 0, or a negative errno
 * with b->e. The caller frees b->config, which may be half filled on failure.
 */
int config_read_yaml(struct config_build *b, const char *text, size_t length);
/* The limits of a document that a person writes. */
extern const struct yamldoc_limits config_limits;

/* Replaces *field, an owned string or NULL, by a copy of text. */
int config_set_string(const struct config_build *b, char **field, const char *text);
/* The kind of node, as a word for a message. */
const char *config_kind(const yaml_node_t *node);
/*
 * Returns the text of a scalar, which the document owns. want: what belongs there, for the message
 * when the node is something else.
 */
int config_read_text(struct config_build *b, const struct config_node *at, const char *want,
		     const char **ret);

/* A DNS name, or an address without a port. */
bool config_is_server_name(const char *text);

/* The readers of the tables; see struct config_key. */
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
int config_read_local(struct config_build *b, const struct config_node *at,
		      const struct config_key *key, void *base);
int config_read_data_path(struct config_build *b, const struct config_node *at,
			  const struct config_key *key, void *base);
int config_read_prefer_local(struct config_build *b, const struct config_node *at,
			     const struct config_key *key, void *base);

/* A process can hold two sockets for each with Linux' fs.nr_open, 1048576. */
#define CONFIG_RELAY_CONNECTIONS_MAX 500000

void config_relay_defaults(struct config_relay *r);
/* base: a struct config_relay. */
int config_read_mark(struct config_build *b, const struct config_node *at,
		     const struct config_key *key, void *base);
int config_read_table(struct config_build *b, const struct config_node *at,
		      const struct config_key *key, void *base);

/* Adds one of the places where the agent serves HTTP: an address, or "unix:" and a path. */
int config_add_http(struct config_build *b, const struct config_where *at, const char *text);

/* Parses decimal digits without a sign or leading zeros, up to UINT_MAX. Returns 0 or -EINVAL. */
int config_uint(const char *text, unsigned int *ret);
/* Prints ms in the largest unit without a remainder ("90s", "1h") into buf. Returns buf. */
const char *config_duration_format(unsigned int ms, char *buf);

/* Prints a string, in quotes where it needs them. Returns the length of the output. */
int config_put_string(FILE *out, const char *text);

/* The name in keys that text is a misspelling of, or NULL. */
const char *config_suggest(const struct config_key *keys, const char *text);

#endif
