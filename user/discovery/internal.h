/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of discovery share. No other folder includes this.
 *
 *   watch.c           list, watch, back off
 *   client.c          one connection to an apiserver, and the GETs on it
 *   endpoint_slice.c  the apiserver's JSON to a list: pure
 *   credential.c      the credentials as a value
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
 * The most that is kept of a list or an event. An apiserver with KLB_MAX_BACKENDS endpoints sends
 * some 30 KiB.
 */
#define DISCOVERY_TEXT_MAX ((size_t)2 * 1024 * 1024)
/* The same for the body of an error. */
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
	char *data; /* or the contents */
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

/*
 * Loads the credentials. Checks everything but the PEM, which tls_new does. kubeconfig NULL: those
 * of a pod; service_account: their directory, or NULL for the usual one. Returns 0 and an object
 * for credentials_free, or a negative errno with e.
 */
int credentials_load(const char *kubeconfig, const char *service_account, struct credentials **ret,
		     struct err *e);
void credentials_free(struct credentials *c);

/*
 * Reads a kubeconfig's bytes and opens no file. path: its name for messages, to which file names in
 * it are relative. Returns 0, or a negative errno with e as `FILE:LINE: KEY: what is wrong; what
 * next`.
 */
int kubeconfig_parse(const char *text, size_t length, const char *path, struct credentials **ret,
		     struct err *e);

/*
 * Splits "https://host:port/path". Returns 0, or -EINVAL with what is wrong in e, without the URL.
 */
int credentials_set_server(struct credentials *c, const char *url, struct err *e);
/* Whether text can go into a header as it is: printable ASCII without spaces. */
bool credentials_is_header_text(const char *text);

/* --- slices -------------------------------------------------------------------------- */

/* As many as a Service with 64 endpoints could have if each had its own. */
#define SLICES_MAX 64

struct slice {
	char *name;
	unsigned int n; /* the smallest, when there are more */
	unsigned int total; /* addresses that are ready and usable */
	unsigned int not_ready; /* and addresses that are not ready */
	unsigned int unusable; /* or are not usable: no port, not an address, loopback */
	struct klb_endpoint list[KLB_MAX_BACKENDS];
};

/* All EndpointSlices of the Service, as far as they are known. */
struct slices {
	unsigned int n;
	struct slice *at[SLICES_MAX];
};

enum slices_event {
	SLICES_EVENT_CHANGE, /* a slice came, went or changed */
	SLICES_EVENT_BOOKMARK, /* only a newer version */
	SLICES_EVENT_EXPIRED, /* the version is too old: list anew */
};

/*
 * Replaces s by a list, and version (DISCOVERY_VERSION_MAX + 1 bytes) by its version. Returns 0, or
 * -EINVAL with e; then nothing has changed.
 */
int slices_list(struct slices *s, const char *text, size_t length, char *version, struct err *e);

/* Applies one event of a watch. Returns 0, or -EINVAL with e as above. */
int slices_watch(struct slices *s, const char *line, size_t length, char *version,
		 enum slices_event *ret, struct err *e);

/* Forgets and frees all slices; s itself is the caller's, and can be filled again. */
void slices_clear(struct slices *s);

struct slices_merged {
	unsigned int n, total, not_ready, unusable;
	struct klb_endpoint list[KLB_MAX_BACKENDS]; /* sorted, each once */
};

/* Merges all slices. Frontends are left out and count as unusable. */
void slices_merge(const struct slices *s, const struct klb_endpoint *frontends,
		  unsigned int n_frontends, struct slices_merged *ret);

/*
 * Copies the message of a Status (16 KiB at most) into buf as one line; "" when text is no Status.
 * A message that contains secret (if that is not NULL) is left out.
 */
void slices_status_message(const char *text, size_t length, const char *secret, char *buf,
			   size_t size);

/* Whether an apiserver can have this address. */
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
 * Keeps a file up to date, on a thread of its own because a slow disk must not stop the event loop.
 * A file that holds the list is left alone; one that is broken, or belongs to another program, is
 * replaced.
 */
struct cache_writer;

/* failed: one line; cache_writer_free is allowed in it. Returns 0 or -ENOMEM. */
int cache_writer_new(struct event_base *base, const char *path,
		     void (*failed)(void *arg, const char *why), void *arg,
		     struct cache_writer **ret);
/* NULL is allowed. */
void cache_writer_put(struct cache_writer *w, const struct klb_endpoint *list, unsigned int n);
/* NULL is allowed. Waits until the last list is written, half a second for each at the most. */
void cache_writer_free(struct cache_writer *w);

/* --- the connection ------------------------------------------------------------------ */

struct api_connection;

/*
 * Each is the last thing that the connection does in its turn of the event loop, so
 * api_connection_free is allowed in all of them.
 */
struct api_connection_ops {
	/* Connected, with a certificate that verifies. */
	void (*opened)(void *arg);
	/*
	 * A 200's headers are in, or more of its content, which may be taken out of
	 * api_connection_text.
	 */
	void (*content)(void *arg);
	/* The answer is complete; what is left of its content is in api_connection_text. */
	void (*answered)(void *arg, unsigned int status);
	/* The connection is gone; one line. */
	void (*failed)(void *arg, const char *why);
};

/*
 * Begins to connect to `to`, or if that is NULL to the server of c. nth: which of the server's
 * addresses to try when there are several. c and tls must outlive the connection. Returns 0 with a
 * connection, or a negative errno with e.
 */
int api_connection_open(struct event_base *base, const struct klb_endpoint *to, unsigned int nth,
			const struct credentials *c, struct tls *tls,
			const struct api_connection_ops *ops, void *arg,
			struct api_connection **ret, struct err *e);
/*
 * Sends a GET for path. To be called when the connection is open and no other GET is under way.
 * content_max: SIZE_MAX for a stream. Returns 0 or -ENOMEM.
 */
int api_connection_get(struct api_connection *conn, const char *path, size_t content_max);
/* The content of the answer that has not been dropped yet; belongs to the connection. */
struct text *api_connection_text(struct api_connection *conn);
/* Whether the connection can carry another GET after an answer. */
bool api_connection_is_kept(const struct api_connection *conn);
/* The status of the answer, or 0 until its headers are in. */
unsigned int api_connection_status(const struct api_connection *conn);
/* NULL is allowed. */
void api_connection_free(struct api_connection *conn);

#endif
