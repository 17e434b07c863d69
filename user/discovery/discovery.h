/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Discovery: lists and watches the apiservers' addresses in the EndpointSlices of
 * default/kubernetes, and keeps them in a cache on disk. It knows no maps. It reports lists, and
 * the owner decides how to use them.
 *
 * It connects to the frontend (options.server), so that the kernel balances its connection like
 * any other: one apiserver that is alive is enough, and no name has to be looked up. The
 * certificate must have the name that the kubeconfig's other users expect: tls-server-name, or
 * else the host of `server`.
 */
#ifndef KUBELB_DISCOVERY_H
#define KUBELB_DISCOVERY_H

#include <stdbool.h>
#include <time.h>

#include <kubelb/abi.h>

#include "base/err.h"
#include "base/pace.h"
#include "base/ration.h"
#include "config/config.h"

struct event_base;
struct discovery;

#define DISCOVERY_VERSION_MAX 64

/* The result of a list, of a watch's events, or of an attempt. */
enum discovery_result {
	DISCOVERY_APPLIED, /* the list is another one; updated() was called */
	DISCOVERY_UNCHANGED, /* the same list; or a watch of it, after a failure */
	DISCOVERY_EMPTY, /* no usable address in it: the last list stays */
	DISCOVERY_EXPIRED, /* the watch has fallen too far behind: a new list follows */
	DISCOVERY_FORBIDDEN, /* 401 or 403 */
	DISCOVERY_CREDENTIALS, /* the kubeconfig, or a file that it names, cannot be used */
	DISCOVERY_ERROR, /* no connection, or an answer that cannot be understood */
	DISCOVERY_RESULTS /* how many there are */
};

/* "applied", as in kubelb_discovery_updates_total{result}. */
const char *discovery_result_name(enum discovery_result result);

/* In milliseconds. */
struct discovery_timing {
	unsigned int connect; /* to look a name up, connect and shake hands */
	unsigned int answer; /* until a list is complete, or a watch begins */
	unsigned int line; /* until an event that has begun is complete */
	unsigned int silence; /* of a watch: the apiserver sends something every minute */
	unsigned int watch; /* how long a watch is asked to last; up to twice that, at random */
	unsigned int stable; /* a connection that lasts so long counts as a success */
	unsigned int relist; /* a whole list at least this often, give or take a quarter */
	unsigned int backoff_min, backoff_max;
	unsigned int forbidden; /* before another try after a 401 or 403 */
};

extern const struct discovery_timing discovery_timing_default;

/* What an apiserver may cost that says something new all the time. */
struct discovery_pace {
	/* How often a list is taken: of those that come in between, the newest. */
	struct ration_rules lists;
	/* How many bytes of events are read. */
	struct pace_limit events;
};

extern const struct discovery_pace discovery_pace_default;

struct discovery_options {
	const char *kubeconfig; /* file; NULL: in-cluster credentials */
	const char *service_account; /* their directory; NULL: where Kubernetes puts it */
	const char *cache; /* file to keep the list in, or NULL */
	const struct klb_endpoint *server; /* to dial; NULL: the kubeconfig's server */
	/* These must not become backends: a connect to them would lead back to itself. */
	const struct klb_endpoint *frontends;
	unsigned int n_frontends;
	/* The list that the owner uses already, for example from the cache. It is not reported. */
	const struct klb_endpoint *initial;
	unsigned int n_initial;
	const struct discovery_timing *timing; /* NULL: discovery_timing_default */
	const struct discovery_pace *pace; /* NULL: no limit */
};

/* discovery_free is allowed inside all of them. Every text is one line. */
struct discovery_ops {
	/*
	 * The list has changed: 1..KLB_MAX_BACKENDS addresses, sorted, each once. None of them is a
	 * frontend, loopback, link-local, multicast or unspecified.
	 */
	void (*updated)(void *arg, const struct klb_endpoint *list, unsigned int n);
	/* For metrics and logs. detail: what happened, without secrets; never NULL. */
	void (*result)(void *arg, enum discovery_result result, const char *detail);
	/* A condition that people should know of, although no attempt has failed. */
	void (*warning)(void *arg, const char *text);
};

/*
 * Copies all of o. It starts nothing and reads no file: a kubeconfig that does not exist yet is no
 * error, because KubeLB may start before everything else. Returns 0, or a negative errno with e.
 */
int discovery_new(struct event_base *base, const struct discovery_options *o,
		  const struct discovery_ops *ops, void *arg, struct discovery **ret,
		  struct err *e);
/* Begins; to be called once. Goes on until discovery_free. Calls no op from inside. */
void discovery_start(struct discovery *d);
/* NULL is allowed. Waits a moment for the cache if it is just being written. */
void discovery_free(struct discovery *d);

/* For status. Times are of CLOCK_MONOTONIC; 0: never. */
struct discovery_state {
	bool watching;
	unsigned int n_endpoints; /* of the current list */
	__u64 changed_ns; /* since when that list is current */
	__u64 heard_ns; /* when the apiserver last sent something about it */
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
 * Reads the file of discovery_cache_save. Returns 0 with a list as updated() gives it, or a
 * negative errno with e: -ENOENT when there is none, -EACCES for a file that other users can write,
 * -EINVAL for a file that is broken, has another format, or has a list with a fault. *ret is
 * untouched then.
 */
int discovery_cache_load(const char *path, const struct klb_endpoint *frontends,
			 unsigned int n_frontends, struct discovery_cached *ret, struct err *e);

/*
 * Replaces the file in one step: after any error, the old one stays. Makes the folder (0700) when
 * only that is missing. Waits for the disk. Returns 0 or a negative errno with e.
 */
int discovery_cache_save(const char *path, const struct klb_endpoint *list, unsigned int n,
			 struct err *e);

/*
 * Reads the cache that c names into ret, which has room for KLB_MAX_BACKENDS. Returns 0; or, with
 * *ret_n as 0, -ENOENT where discovery is off or there is no cache, and another negative errno with
 * e for a cache that cannot be used. The caller can go on without a list.
 */
int discovery_cached_list(const struct config *c, struct klb_endpoint *ret, unsigned int *ret_n,
			  struct err *e);
/* The same for who must not wait for a disk. -ETIMEDOUT: it does not answer within wait_ms. */
int discovery_cached_list_within(unsigned int wait_ms, const struct config *c,
				 struct klb_endpoint *ret, unsigned int *ret_n, struct err *e);

#endif
