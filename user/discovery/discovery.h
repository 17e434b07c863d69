/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Discovery: the apiservers' addresses as the cluster itself names them, listed and
 * watched in the EndpointSlices of default/kubernetes, and a cache of them on disk.
 * Knows no maps; reports lists, and the owner decides what they are good for.
 *
 * The connection goes to the frontend (options.server), so that the kernel balances it
 * as it does everybody's: whatever apiserver is alive will do, and no name needs to be
 * looked up. The certificate must name what the kubeconfig's own users expect of it:
 * tls-server-name, or else the host of `server`.
 */
#ifndef KUBELB_DISCOVERY_H
#define KUBELB_DISCOVERY_H

#include <stdbool.h>
#include <time.h>

#include <kubelb/abi.h>

#include "base/err.h"
#include "config/config.h"

struct event_base;
struct discovery;

#define DISCOVERY_VERSION_MAX 64

/* What came of a list, of news from a watch, or of an attempt. */
enum discovery_result {
	DISCOVERY_APPLIED, /* the list is another one; updated() was called */
	DISCOVERY_UNCHANGED, /* the same list; or a watch of it, after a failure */
	DISCOVERY_EMPTY, /* no address in it that could be used: the last list stays */
	DISCOVERY_EXPIRED, /* the watch had fallen too far behind: lists anew */
	DISCOVERY_FORBIDDEN, /* 401 or 403 */
	DISCOVERY_CREDENTIALS, /* the kubeconfig, or a file that it names, is no good */
	DISCOVERY_ERROR, /* no connection, or an answer that makes no sense */
	DISCOVERY_RESULTS /* how many there are */
};

/* "applied", as in kubelb_discovery_updates_total{result}. */
const char *discovery_result_name(enum discovery_result result);

/* In milliseconds. */
struct discovery_timing {
	unsigned int connect; /* to look a name up, connect and shake hands */
	unsigned int answer; /* until a list is complete, or a watch begins */
	unsigned int line; /* until an event that has begun is complete */
	unsigned int silence; /* of a watch, which the apiserver breaks every minute */
	unsigned int watch; /* what a watch is asked to last; up to twice that, by chance */
	unsigned int stable; /* a connection that lasts that long was a success */
	unsigned int relist; /* a whole list at least this often, give or take a quarter */
	unsigned int backoff_min, backoff_max;
	unsigned int forbidden; /* before another try after a 401 or 403 */
};

extern const struct discovery_timing discovery_timing_default;

struct discovery_options {
	const char *kubeconfig; /* file; NULL: in-cluster credentials */
	const char *service_account; /* their directory; NULL: where Kubernetes puts it */
	const char *cache; /* file to keep the list in, or NULL */
	const struct klb_endpoint *server; /* to dial; NULL: the kubeconfig's server */
	/* What must not become a backend, because it would lead back to itself. */
	const struct klb_endpoint *frontends;
	unsigned int n_frontends;
	/* The list that the owner goes by already, from the cache, say: no news. */
	const struct klb_endpoint *initial;
	unsigned int n_initial;
	const struct discovery_timing *timing; /* NULL: discovery_timing_default */
};

/* discovery_free is allowed inside all of them. Every text is one line. */
struct discovery_ops {
	/*
	 * Another list is believed: 1..KLB_MAX_BACKENDS addresses, sorted, each once.
	 * None of them is a frontend, loopback, link-local, multicast or unspecified.
	 */
	void (*updated)(void *arg, const struct klb_endpoint *list, unsigned int n);
	/* For metrics and logs. detail: what happened, with no secret in it; never NULL. */
	void (*result)(void *arg, enum discovery_result result, const char *detail);
	/* Something a person should know that is no failure of an attempt. */
	void (*warning)(void *arg, const char *text);
};

/*
 * Copies all of o. Starts nothing and reads no file: a kubeconfig that is not there
 * yet is no error, as nothing needs to be up before us. Returns 0, or a negative
 * errno with e.
 */
int discovery_new(struct event_base *base, const struct discovery_options *o,
		  const struct discovery_ops *ops, void *arg, struct discovery **ret,
		  struct err *e);
/* Begins, once; goes on until discovery_free. Calls no op from inside. */
void discovery_start(struct discovery *d);
/* NULL is allowed. Waits for the cache if it is just being written. */
void discovery_free(struct discovery *d);

/* For status. Times are of CLOCK_MONOTONIC; 0: never. */
struct discovery_state {
	bool watching;
	unsigned int n_endpoints; /* of the believed list */
	__u64 changed_ns; /* when that list was believed first */
	__u64 heard_ns; /* when the apiserver last had something to say about it */
	__u64 failed_ns; /* of error */
	char version[DISCOVERY_VERSION_MAX + 1]; /* resourceVersion, "" before the first list */
	char error[ERR_TEXT_MAX]; /* the last one, "" when all is well since */
};

/* Fills *ret with copies; nothing to be freed. */
void discovery_state(const struct discovery *d, struct discovery_state *ret);

/* --- the cache ----------------------------------------------------------------------- */

struct discovery_cached {
	time_t written; /* by the wall clock of then */
	unsigned int n;
	struct klb_endpoint list[KLB_MAX_BACKENDS];
};

/*
 * Reads what discovery_cache_save wrote. Returns 0 with a list as updated() gives it, or a
 * negative errno with e: -ENOENT when there is none, -EACCES for a file that others can
 * write, -EINVAL for what is broken, of another program, or no list to believe; then
 * *ret is untouched, and nothing of the file counts.
 */
int discovery_cache_load(const char *path, const struct klb_endpoint *frontends,
			 unsigned int n_frontends, struct discovery_cached *ret, struct err *e);

/*
 * Replaces the file in one step: whatever goes wrong, the old one stays. Makes the
 * folder (0700) when only that is missing. Waits for the disk.
 */
int discovery_cache_save(const char *path, const struct klb_endpoint *list, unsigned int n,
			 struct err *e);

/*
 * Reads the cache that c names into ret (room for KLB_MAX_BACKENDS). *ret_n is 0 where
 * discovery is off or there is no list to believe; then -ENOENT, or what is wrong with the
 * cache, with e: a reason to say so and to go on without.
 */
int discovery_cached_list(const struct config *c, struct klb_endpoint *ret, unsigned int *ret_n,
			  struct err *e);

#endif
