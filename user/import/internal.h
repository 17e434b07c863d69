/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of import share: the struct that the readers fill and render.c prints, and the
 * functions that the readers have in common.
 */
#ifndef KUBELB_IMPORT_INTERNAL_H
#define KUBELB_IMPORT_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "import/import.h"

#define IMPORT_LABEL_MAX 64
#define IMPORT_NOTES_MAX 64
#define IMPORT_NOTE_LINES_MAX 8
#define IMPORT_CANDIDATES_MAX 64

/* --- words and blocks (lexer.c) ----------------------------------------------------- */

/* A directive or a section: its words, and the items inside of it. */
struct import_item {
	unsigned int line;
	size_t word; /* index of the first of its words */
	size_t n_words; /* at least 1, but for `{` without a name before it */
	size_t end; /* index after its last inner item; its own index + 1 when there is none */
	bool block;
};

/* A file split into items, in the order of the file. */
struct import_words {
	char *text; /* what the words point into */
	char **words;
	size_t n_words, max_words;
	struct import_item *items;
	size_t n_items, max_items;
};

/* Append an item, and a word to the last item. Return 0 or -ENOMEM. The word is not copied. */
int import_words_item(struct import_words *w, unsigned int line);
/* To the last item. */
int import_words_word(struct import_words *w, char *word);
void import_words_free(struct import_words *w);

/* Word n of an item, counted from 0; "" when there are fewer. */
const char *import_word(const struct import_words *w, size_t item, size_t n);
bool import_is(const struct import_words *w, size_t item, const char *name);
/* Whether word is one of the words after the first. */
bool import_has(const struct import_words *w, size_t item, const char *word);

/* Whether word is in list, whose words are separated by blanks. */
bool import_listed(const char *word, const char *list);

/* Goes over the items directly inside of a block, or of the file. */
#define IMPORT_EACH(w, i, first, last) for (size_t i = (first); i < (last); i = (w)->items[i].end)

/* --- what a reader finds ------------------------------------------------------ */

/* A number from the file; line 0: the file does not say. */
struct import_number {
	unsigned int value;
	unsigned int line;
	const char *origin; /* the word in the file, static */
};

struct import_text {
	char *value; /* owned; NULL: the file does not say */
	unsigned int line;
	const char *origin;
};

struct import_frontend {
	struct klb_endpoint endpoint;
	unsigned int line; /* 0: in no file */
};

struct import_backend {
	struct klb_endpoint endpoint;
	unsigned int line;
	unsigned int weight; /* as the file has it, on its own scale */
	bool off; /* the file has it switched off */
	bool backup; /* the file keeps it for when the others are dead */
	char label[IMPORT_LABEL_MAX]; /* what the file calls it, or "" */
};

struct import_note {
	bool hint; /* something to do, instead of something that was not carried over */
	unsigned int lines[IMPORT_NOTE_LINES_MAX];
	unsigned int n_lines; /* may exceed what lines holds */
	char text[256];
};

struct import {
	enum import_kind kind;
	const char *source;
	const char *directory; /* absolute; NULL: unknown */
	struct err *e;
	struct import_words words; /* empty for a kubeconfig */

	unsigned int n_frontends; /* 0: the file says nothing of it */
	struct import_frontend frontends[KLB_MAX_FRONTENDS];
	unsigned int n_backends;
	struct import_backend backends[KLB_MAX_BACKENDS];
	enum klb_policy policy;
	unsigned int policy_line; /* 0: KubeLB's default */
	const char *policy_origin;
	struct import_number connect_timeout_ms, dead_peer_timeout_ms;
	struct import_number interval_ms, timeout_ms, rise, fall; /* of the probes */
	struct import_text path, ca, server_name, client_cert, client_key;
	unsigned int insecure_line; /* not 0: certificates are not to be verified */
	__u32 busy; /* bit n: something in the file listens on port IMPORT_HTTP_PORT + n */

	unsigned int n_notes;
	struct import_note notes[IMPORT_NOTES_MAX];
	char own[512]; /* names of what concerns the proxy's process only */
};

/* Where the agent serves its metrics unless that port is in use. */
#define IMPORT_HTTP_PORT 8081

/*
 * Read a file's bytes into m, in which only kind, source and e are set; they keep no pointer to
 * text. Return 0, or a negative errno with m->e. In either case the caller frees what is in m.
 */
int import_read_nginx(struct import *m, const char *text, size_t length);
int import_read_haproxy(struct import *m, const char *text, size_t length);
int import_read_kubeconfig(struct import *m, const char *text, size_t length);

/*
 * Refuses bytes that are no finished configuration: no text, another encoding, a template
 * (source_text.c). Returns 0 or -EINVAL with m->e.
 */
int import_check_text(const struct import *m, const char *text, size_t length);

/* --- what is worked out of it (adjust.c) ------------------------------------------------ */

/* How the file's weights are converted; kubelb.yaml's usual weight is KLB_WEIGHT_DEFAULT. */
struct import_scale {
	bool equal; /* all are the same: none is printed */
	unsigned int divisor; /* common to all */
	unsigned int largest; /* once divided */
};

struct import_scale import_scale_of(const struct import *m);
/* A backend's weight as kubelb.yaml has it. */
unsigned int import_weight_of(const struct import_backend *b, const struct import_scale *s);

/* Notes how weights are converted and what cannot work; takes a certificate without its key off. */
void import_adjust(struct import *m);

/* --- what the readers share (convert.c) --------------------------------------------- */

/* Fills the line `SOURCE:LINE: …` (line 0: no line) and yields -EINVAL. */
#define import_fail(m, line, ...) (import_explain(m, line, __VA_ARGS__), -EINVAL)
void import_explain(const struct import *m, unsigned int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
int import_fail_memory(const struct import *m);

/*
 * Note what is not carried over, and what is left to do. The same text on several lines is one
 * note. A note is always one line of ASCII.
 */
void import_note(struct import *m, unsigned int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void import_hint(struct import *m, unsigned int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Names something that concerns the proxy's process only; each name once. */
void import_own(struct import *m, const char *name);
/* Copies text as printable ASCII, shortened to size; returns buf. */
char *import_ascii(const char *text, char *buf, size_t size);

/* All of an item's words with blanks between them, as import_ascii. */
char *import_join(const struct import_words *w, size_t item, char *buf, size_t size);

/* Notes that something listens at ep, up to that port, so that http gets another one. */
void import_busy(struct import *m, const struct klb_endpoint *ep, unsigned int last_port);
/* Adds a frontend. An unspecified address becomes the loopback address, with a note. */
int import_add_frontend(struct import *m, unsigned int line, struct klb_endpoint ep);
/* Adds a backend. The same address twice is one backend, with a note. */
int import_add_backend(struct import *m, const struct import_backend *backend);

/*
 * Set a value, within the range that kubelb.yaml has for it. When the file has several values, the
 * first is used, with a note.
 */
void import_set_number(struct import *m, struct import_number *field,
		       const struct import_number *value);
int import_set_text(struct import *m, struct import_text *field, unsigned int line,
		    const char *origin, const char *value);
/* The same for a file's name, which has to be an absolute path. */
int import_set_file(struct import *m, struct import_text *field, unsigned int line,
		    const char *origin, const char *value);
/* The same for the name in the apiservers' certificates. */
int import_set_name(struct import *m, unsigned int line, const char *origin, const char *value);
void import_set_policy(struct import *m, enum klb_policy policy, unsigned int line,
		       const char *origin);

/* Digits alone; what is too large for an unsigned int becomes its maximum. */
bool import_uint(const char *text, unsigned int *ret);

struct import_unit {
	const char *name; /* NULL ends a table */
	uint64_t us;
};

/*
 * A time of a proxy's file, in milliseconds, rounded up; what is too large becomes UINT_MAX.
 * units: a number without a unit has the first one, and "ms" stands before "m". several:
 * "1m 30s" is one too. False for what is no time.
 */
bool import_parse_time(const char *text, const struct import_unit *units, bool several,
		       unsigned int *ret_ms);

/* One pair of a listening address and its upstreams. */
struct import_candidate {
	unsigned int line;
	size_t item; /* for the reader */
	bool listens_6443, leads_to_6443;
	char label[2 * IMPORT_LABEL_MAX + 8]; /* for the message that names the choices */
};

/*
 * Chooses the candidate that leads to the apiservers: the only one; or the only one that has port
 * 6443 on both sides; or, where none has, the only one that has it on either side. A hint names
 * others that lead to 6443. what: what messages call a candidate, "stream server". Returns 0, or
 * -EINVAL with a line that names the choices.
 */
int import_choose(struct import *m, const struct import_candidate *list, size_t n, const char *what,
		  size_t *ret);

#endif
