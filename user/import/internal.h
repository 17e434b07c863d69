/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of import share: the struct that the readers fill and render.c prints, and the
 * functions that the readers have in common.
 */
#ifndef KUBELB_MIGRATE_INTERNAL_H
#define KUBELB_MIGRATE_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "import/import.h"

#define MIGRATE_LABEL_MAX 64
#define MIGRATE_NOTES_MAX 64
#define MIGRATE_NOTE_LINES_MAX 8
#define MIGRATE_CANDIDATES_MAX 64

/* --- words and blocks (lexer.c) ----------------------------------------------------- */

/* A directive or a section: its words, and the items inside of it. */
struct migrate_item {
	unsigned int line;
	size_t word; /* index of the first of its words */
	size_t n_words; /* at least 1, but for `{` without a name before it */
	size_t end; /* index after its last inner item; its own index + 1 when there is none */
	bool block;
};

/* A file split into items, in the order of the file. */
struct migrate_words {
	char *text; /* what the words point into */
	char **words;
	size_t n_words, max_words;
	struct migrate_item *items;
	size_t n_items, max_items;
};

/* Append an item, and a word to the last item. Return 0 or -ENOMEM. The word is not copied. */
int migrate_words_item(struct migrate_words *w, unsigned int line);
/* To the last item. */
int migrate_words_word(struct migrate_words *w, char *word);
void migrate_words_free(struct migrate_words *w);

/* Word n of an item, counted from 0; "" when there are fewer. */
const char *migrate_word(const struct migrate_words *w, size_t item, size_t n);
bool migrate_is(const struct migrate_words *w, size_t item, const char *name);
/* Whether word is one of the words after the first. */
bool migrate_has(const struct migrate_words *w, size_t item, const char *word);

/* Whether word is in list, whose words are separated by blanks. */
bool migrate_listed(const char *word, const char *list);

/* Goes over the items directly inside of a block, or of the file. */
#define MIGRATE_EACH(w, i, first, last) for (size_t i = (first); i < (last); i = (w)->items[i].end)

/* --- what a reader finds ------------------------------------------------------ */

/* A number from the file; line 0: the file does not say. */
struct migrate_number {
	unsigned int value;
	unsigned int line;
	const char *origin; /* the word in the file, static */
};

struct migrate_text {
	char *value; /* owned; NULL: the file does not say */
	unsigned int line;
	const char *origin;
};

struct migrate_frontend {
	struct klb_endpoint endpoint;
	unsigned int line; /* 0: in no file */
};

struct migrate_backend {
	struct klb_endpoint endpoint;
	unsigned int line;
	unsigned int weight; /* as the file has it, on its own scale */
	bool off; /* the file has it switched off */
	bool backup; /* the file keeps it for when the others are dead */
	char label[MIGRATE_LABEL_MAX]; /* what the file calls it, or "" */
};

struct migrate_note {
	bool hint; /* something to do, instead of something that was not carried over */
	unsigned int lines[MIGRATE_NOTE_LINES_MAX];
	unsigned int n_lines; /* may exceed what lines holds */
	char text[256];
};

struct migrate {
	enum migrate_kind kind;
	const char *source;
	struct err *e;
	struct migrate_words words; /* empty for a kubeconfig */

	unsigned int n_frontends; /* 0: the file says nothing of it */
	struct migrate_frontend frontends[KLB_MAX_FRONTENDS];
	unsigned int n_backends;
	struct migrate_backend backends[KLB_MAX_BACKENDS];
	enum klb_policy policy;
	unsigned int policy_line; /* 0: KubeLB's default */
	const char *policy_origin;
	struct migrate_number connect_timeout_ms, dead_peer_timeout_ms;
	struct migrate_number interval_ms, timeout_ms, rise, fall; /* of the probes */
	struct migrate_text path, ca, server_name, client_cert, client_key;
	unsigned int insecure_line; /* not 0: certificates are not to be verified */
	__u32 busy; /* bit n: something in the file listens on port MIGRATE_HTTP_PORT + n */

	unsigned int n_notes;
	struct migrate_note notes[MIGRATE_NOTES_MAX];
	char own[512]; /* names of what concerns the proxy's process only */
};

/* Where the agent serves its metrics unless that port is in use. */
#define MIGRATE_HTTP_PORT 8081

/*
 * Read a file's bytes into m, in which only kind, source and e are set; they keep no pointer to
 * text. Return 0, or a negative errno with m->e. In either case the caller frees what is in m.
 */
int migrate_read_nginx(struct migrate *m, const char *text, size_t length);
int migrate_read_haproxy(struct migrate *m, const char *text, size_t length);
int migrate_read_kubeconfig(struct migrate *m, const char *text, size_t length);

/* --- what the readers share (convert.c) --------------------------------------------- */

/* Fills the line `SOURCE:LINE: …` (line 0: no line) and yields -EINVAL. */
#define migrate_fail(m, line, ...) (migrate_explain(m, line, __VA_ARGS__), -EINVAL)
void migrate_explain(const struct migrate *m, unsigned int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
int migrate_fail_memory(const struct migrate *m);

/*
 * Note what is not carried over, and what is left to do. The same text on several lines is one
 * note. A note is always one line of ASCII.
 */
void migrate_note(struct migrate *m, unsigned int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void migrate_hint(struct migrate *m, unsigned int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Names something that concerns the proxy's process only; each name once. */
void migrate_own(struct migrate *m, const char *name);
/* Copies text as printable ASCII, shortened to size; returns buf. */
char *migrate_ascii(const char *text, char *buf, size_t size);

/* All of an item's words with blanks between them, as migrate_ascii. */
char *migrate_join(const struct migrate_words *w, size_t item, char *buf, size_t size);

/* Notes that something listens at ep, so that the agent's http gets another port. */
void migrate_busy(struct migrate *m, const struct klb_endpoint *ep);
/* Adds a frontend. An unspecified address becomes the loopback address, with a note. */
int migrate_add_frontend(struct migrate *m, unsigned int line, struct klb_endpoint ep);
/* Adds a backend. The same address twice is one backend, with a note. */
int migrate_add_backend(struct migrate *m, const struct migrate_backend *backend);

/*
 * Set a value, within the range that kubelb.yaml has for it. When the file has several values, the
 * first is used, with a note.
 */
void migrate_set_number(struct migrate *m, struct migrate_number *field,
			const struct migrate_number *value);
int migrate_set_text(struct migrate *m, struct migrate_text *field, unsigned int line,
		     const char *origin, const char *value);
/* The same for a file's name, which has to be an absolute path. */
int migrate_set_file(struct migrate *m, struct migrate_text *field, unsigned int line,
		     const char *origin, const char *value);
/* The same for the name in the apiservers' certificates. */
int migrate_set_name(struct migrate *m, unsigned int line, const char *origin, const char *value);
void migrate_set_policy(struct migrate *m, enum klb_policy policy, unsigned int line,
			const char *origin);

/* Digits alone; what is too large for an unsigned int becomes its maximum. */
bool migrate_uint(const char *text, unsigned int *ret);

struct migrate_unit {
	const char *name; /* NULL ends a table */
	uint64_t us;
};

/*
 * A time of a proxy's file, in milliseconds, rounded up; what is too large becomes UINT_MAX.
 * units: a number without a unit has the first one, and "ms" stands before "m". several:
 * "1m 30s" is one too. False for what is no time.
 */
bool migrate_parse_time(const char *text, const struct migrate_unit *units, bool several,
			unsigned int *ret_ms);

/* One pair of a listening address and its upstreams. */
struct migrate_candidate {
	unsigned int line;
	size_t item; /* for the reader */
	bool listens_6443, leads_to_6443;
	char label[2 * MIGRATE_LABEL_MAX + 8]; /* for the message that names the choices */
};

/*
 * Chooses the candidate that leads to the apiservers: the only one, or the only one that listens on
 * 6443, or the only one whose upstreams use 6443. what: what messages call a candidate, "stream
 * server". Returns 0, or -EINVAL with a line that names the choices.
 */
int migrate_choose(struct migrate *m, const struct migrate_candidate *list, size_t n,
		   const char *what, size_t *ret);

#endif
