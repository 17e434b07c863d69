/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Probes a backend: one TLS connection, kept open, and HTTP GETs on it. Reports outcomes, and
 * decides nothing.
 */
#ifndef KUBELB_PROBE_H
#define KUBELB_PROBE_H

#include <stdbool.h>

#include <kubelb/abi.h>

#include "config/config.h"
#include "base/err.h"

struct event_base;
struct probe_tls;
struct probe;

/*
 * Loads CA, client certificate and key once for all backends. Returns 0 and an
 * object to free with probe_tls_free, or -EINVAL with e naming the file and key.
 * Makes the process ignore SIGPIPE where nothing handles it yet: OpenSSL writes
 * to sockets that a backend may have reset.
 */
int probe_tls_new(const struct config_probe *cfg, struct probe_tls **ret, struct err *e);
/* Another owner, who calls probe_tls_free as well. Returns tls. */
struct probe_tls *probe_tls_hold(struct probe_tls *tls);
/* The last owner frees it. NULL is allowed. */
void probe_tls_free(struct probe_tls *tls);
/* Whether what was loaded is the same; see tls_is_same. */
bool probe_tls_is_same(const struct probe_tls *x, const struct probe_tls *y);
/* See tls_own_expires_s. */
__s64 probe_tls_expires_s(const struct probe_tls *tls);

/* Which path to ask for: config_probe's path or live_path. */
enum probe_path { PROBE_READY, PROBE_LIVE };

struct probe_result {
	enum probe_path path;
	enum klb_reason outcome; /* never KLB_REASON_NONE */
	unsigned int http_status; /* 0: no answer */
	__u64 duration_ns; /* from the start of the probe, connecting included */
	const char *detail; /* one line for a person ("certificate has expired"), or NULL */
	bool handshake; /* this probe made a new TLS connection */
	__s64 certificate_expires_s; /* see tls_expires_s; 0: it has seen none */
	bool unable; /* this process or machine lacks descriptors or memory: it says nothing */
};

struct probe_ops {
	/* A probe has ended. */
	void (*done)(void *arg, const struct probe_result *result);
	/*
	 * The persistent connection has ended while no probe was under way: it was closed, or
	 * (timed_out) the peer acknowledged nothing any more.
	 */
	void (*lost)(void *arg, bool timed_out);
	/* The backend's process runs: it has completed a handshake, or has answered a PING; on
	 * HTTP/1.1, any GET. */
	void (*alive)(void *arg);
	/*
	 * It takes no more GETs on the persistent connection (HTTP/2, GOAWAY) while no probe was
	 * under way. The next probe makes another.
	 */
	void (*going)(void *arg);
	/*
	 * The certificate of a new connection does not have one of the addresses given to
	 * probe_new. Called once for each address and connection.
	 */
	void (*not_covered)(void *arg, const struct klb_endpoint *address);
};

/*
 * A prober for one backend. tls must outlive it; what it needs of cfg is copied.
 * must_cover: the frontends' addresses, which clients expect in the certificate's SANs;
 * copied.
 * Starts nothing yet. Free with probe_free, which is allowed inside a callback.
 */
int probe_new(struct event_base *base, const struct config_probe *cfg, struct probe_tls *tls,
	      const struct klb_endpoint *backend, const struct klb_endpoint *must_cover,
	      unsigned int n_must_cover, const struct probe_ops *ops, void *arg, struct probe **ret,
	      struct err *e);
void probe_free(struct probe *p);

/*
 * Starts a GET, on the persistent connection when there is one. Ends in exactly one done() no later
 * than cfg->timeout_ms from now, and never inside this call. A SYN is waited for no longer than
 * cfg->connect_timeout_ms (0: no limit of its own). Ignored while a probe is under way.
 */
void probe_start(struct probe *p, enum probe_path path);

/*
 * Sends a PING on the persistent connection, beside the GET that may be under way; alive() tells of
 * the answer. On HTTP/1.1 it is a GET of config_probe's live_path, of which any answer counts, and
 * a probe that begins meanwhile comes after it. Returns 0; -EAGAIN when nothing can be asked now;
 * -EINPROGRESS while a new connection is made, whose handshake calls alive(), too; -ENOTCONN when
 * the backend speaks HTTP/2, and has no connection and no probe under way; -ENOMEM.
 */
int probe_ping(struct probe *p);
/* When the last GET was answered, of a probe or in place of a PING; 0: none yet. */
__u64 probe_answer_ns(const struct probe *p);
/* Whether the backend's kernel has acknowledged all that was sent on the persistent connection. */
bool probe_is_acknowledged(const struct probe *p);
/*
 * Gives up the persistent connection, which answers nothing, for a new one. A GET that is under
 * way goes on there; otherwise the next one begins it.
 */
void probe_renew(struct probe *p);
/* Closes the persistent connection. Not while a probe is under way. */
void probe_hang_up(struct probe *p);

#endif
