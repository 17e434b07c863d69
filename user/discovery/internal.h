/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between the parts of the discovery room. Nobody else includes this.
 *
 *   watch.c           list, watch, back off
 *   client.c          one TLS connection and the GETs on it
 *   endpoint_slice.c  the apiserver's JSON to a list: pure
 *   credential.c      as whom, and with whom, to talk: the type
 *   credentials.c     the same from files
 *   kubeconfig.c      the same from a kubeconfig's text: pure
 *   cache.c           the list on disk
 */
#ifndef KUBELB_DISCOVERY_INTERNAL_H
#define KUBELB_DISCOVERY_INTERNAL_H

#include <stddef.h>

#include "discovery/discovery.h"
#include "host/worker.h"
#include "net/tls.h"

struct evbuffer;

/*
 * A list, or an event. An apiserver with KLB_MAX_BACKENDS endpoints sends some 30 KiB;
 * whatever it sends, this is the most that is kept of it.
 */
#define DISCOVERY_TEXT_MAX ((size_t)2 * 1024 * 1024)
/* Of an error's body. */
#define DISCOVERY_STATUS_MAX ((size_t)16 * 1024)

/* --- bytes --------------------------------------------------------------------------- */

/* A growing text. Begins as zero. */
struct text {
	struct evbuffer *bytes; /* NULL: empty */
	size_t searched; /* there is no line end before this offset */
};

/* False when memory is short or the text would exceed max. */
bool text_add(struct text *t, const void *bytes, size_t n, size_t max);
size_t text_length(const struct text *t);
/* All of it in one piece, valid until the next call; empty when memory is short. */
const char *text_all(struct text *t, size_t *ret_length);
/* The first line without its end, valid until the next call; NULL when none is complete. */
const char *text_line(struct text *t, size_t *ret_length);
/* Drops n bytes at the beginning. */
void text_drop(struct text *t, size_t n);
void text_free(struct text *t);

/* --- credentials --------------------------------------------------------------------- */

struct credential {
	char *key; /* for messages: "…/kubelet.conf: users[node].user.client-key" */
	char *file; /* absolute, or NULL */
	char *data; /* or the thing itself */
	size_t length; /* of data */
};

struct credentials {
	char *host; /* of the server: a name, or an address without brackets */
	unsigned int port;
	char *path; /* what goes before /apis: "", or "/k8s/clusters/x" */
	char *server_name; /* that the certificate must have, or NULL: host */
	bool insecure;
	struct credential ca, cert, key;
	struct credential token; /* after credentials_load: in data */
};

/* Reads everything but what is in PEM, which tls_new does. */
int credentials_load(const char *kubeconfig, const char *service_account, struct credentials **ret,
		     struct err *e);
void credentials_free(struct credentials *c);

/*
 * From a kubeconfig's bytes; path: its name for messages, and what relative names are
 * relative to. Opens no file. Returns 0, or a negative errno with e as
 * `FILE:LINE: KEY: what is wrong; what next`.
 */
int kubeconfig_parse(const char *text, size_t length, const char *path, struct credentials **ret,
		     struct err *e);

/*
 * Takes "https://host:port/path" apart. Returns 0 or -EINVAL with what is wrong in e,
 * without the URL.
 */
int credentials_set_server(struct credentials *c, const char *url, struct err *e);
/* Whether it can go into a header as it is: printable ASCII without spaces. */
bool credentials_is_header_text(const char *text);

/* --- slices -------------------------------------------------------------------------- */

/* As many as a Service with 64 endpoints could have if each had its own. */
#define SLICES_MAX 64

struct slice {
	char *name;
	unsigned int n; /* the smallest, when there are more */
	unsigned int total; /* addresses that count */
	unsigned int not_ready; /* and those that do not */
	unsigned int unusable; /* or cannot be used: no port, not an address, loopback */
	struct klb_endpoint list[KLB_MAX_BACKENDS];
};

/* All EndpointSlices of the Service, as far as they are known. */
struct slices {
	unsigned int n;
	struct slice *at[SLICES_MAX];
};

enum slices_event {
	SLICES_EVENT_CHANGE, /* a slice came, went or changed */
	SLICES_EVENT_BOOKMARK, /* nothing but a newer version */
	SLICES_EVENT_EXPIRED, /* the version is too old: list anew */
};

/*
 * Replaces s by what a list says, and version (DISCOVERY_VERSION_MAX + 1) by its
 * version. Returns 0, or -EINVAL with e; nothing has changed then.
 */
int slices_list(struct slices *s, const char *text, size_t length, char *version, struct err *e);

/* Takes in one event of a watch. Returns 0, or -EINVAL with e as above. */
int slices_watch(struct slices *s, const char *line, size_t length, char *version,
		 enum slices_event *ret, struct err *e);

/* Forgets and frees all slices; s itself is the caller's, and can be filled again. */
void slices_clear(struct slices *s);

struct slices_merged {
	unsigned int n, total, not_ready, unusable;
	struct klb_endpoint list[KLB_MAX_BACKENDS]; /* sorted, each once */
};

/* Without the frontends, which count as unusable. */
void slices_merge(const struct slices *s, const struct klb_endpoint *frontends,
		  unsigned int n_frontends, struct slices_merged *ret);

/*
 * The message of a Status (16 KiB at most), as one line into buf; "" when it is none.
 * secret, if not NULL, never gets there.
 */
void slices_status_message(const char *text, size_t length, const char *secret, char *buf,
			   size_t size);

/* Whether an apiserver can have this address, of all those that can be written down. */
bool discovery_usable(const struct klb_endpoint *ep, const struct klb_endpoint *frontends,
		      unsigned int n_frontends);
/* The order of lists: by address, then port. For qsort. */
int discovery_compare(const void *a, const void *b);

/* --- the cache ----------------------------------------------------------------------- */

/* discovery_cache_load without the file. */
int cache_parse(const char *path, const char *text, size_t length,
		const struct klb_endpoint *frontends, unsigned int n_frontends,
		struct discovery_cached *ret, struct err *e);

/*
 * Keeps a file up to date on a thread of its own: a busy disk must not stop the loop. A
 * file that holds the list is left alone; one that is broken or another's is replaced.
 */
struct cache_writer;

/* failed: one line; cache_writer_free is allowed in it. Returns 0 or -ENOMEM. */
int cache_writer_new(struct event_base *base, const char *path,
		     void (*failed)(void *arg, const char *why), void *arg,
		     struct cache_writer **ret);
/* NULL is allowed. */
void cache_writer_put(struct cache_writer *w, const struct klb_endpoint *list, unsigned int n);
/* NULL is allowed. Waits until the last list is written. */
void cache_writer_free(struct cache_writer *w);

/* --- the connection ------------------------------------------------------------------ */

struct link;

/* Each is the last thing that the link does in its turn: link_free is allowed in all. */
struct link_ops {
	/* Connected, with a certificate that verifies. */
	void (*opened)(void *arg);
	/*
	 * A 200's headers are in, or more of its content, which may be taken out of
	 * link_text.
	 */
	void (*content)(void *arg);
	/* The answer is complete; what is left of its content is in link_text. */
	void (*answered)(void *arg, unsigned int status);
	/* The connection is gone; one line. */
	void (*failed)(void *arg, const char *why);
};

/*
 * Begins to connect: to `to`, or when that is NULL to c's server. nth: which of its
 * addresses to try, should it have several. c and tls must outlive the link.
 * Returns 0 with a link, or a negative errno with e.
 */
int link_open(struct event_base *base, const struct klb_endpoint *to, unsigned int nth,
	      const struct credentials *c, struct tls *tls, const struct link_ops *ops, void *arg,
	      struct link **ret, struct err *e);
/*
 * Sends a GET for path; when open, and not while another is under way. content_max:
 * SIZE_MAX for a stream. Returns 0 or -ENOMEM.
 */
int link_get(struct link *l, const char *path, size_t content_max);
/* The content of the answer that is not taken yet; belongs to the link. */
struct text *link_text(struct link *l);
/* Whether the connection can carry another GET after an answer. */
bool link_is_kept(const struct link *l);
/* The status of the answer, or 0 until its headers are in. */
unsigned int link_status(const struct link *l);
/* NULL is allowed. */
void link_free(struct link *l);

#endif
