/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Before a first attachment: does an apiserver answer where the configuration says that there is
 * one, and would a client take its certificate? Attaching to backends that do not answer takes away
 * whatever serves the frontends now.
 */
#ifndef KUBELB_LOAD_PREFLIGHT_H
#define KUBELB_LOAD_PREFLIGHT_H

#include <stdbool.h>

#include "base/err.h"
#include "config/config.h"
#include "net/tls.h"

/* All are dialled at once, and waited for no longer than this. */
#define PREFLIGHT_MS 2000

enum preflight_mode {
	PREFLIGHT_STRICT, /* a backend has to answer */
	PREFLIGHT_BOOT, /* the same, if somebody serves a frontend now; else nothing can be lost */
	PREFLIGHT_OFF, /* nobody is dialled, and no address is looked at */
};

/* What dialling one address has shown. */
struct preflight_answer {
	struct klb_endpoint endpoint;
	bool serves; /* somebody there shakes hands in TLS */
	bool accepted; /* and its certificate verifies, names aside */
	bool unable; /* this process or machine lacks descriptors or memory: it says nothing */
	enum klb_reason reason; /* why it is not accepted */
	char detail[TLS_DETAIL_MAX]; /* the same in words */
	__u32 uncovered; /* frontends that its certificate does not name: bits, by their index */
};

struct preflight {
	bool done; /* false: nobody was dialled, and the rest is 0 */
	char ca_error[ERR_TEXT_MAX]; /* why probe.ca verifies nothing, and any certificate is
					accepted; or "" */
	unsigned int n_backends; /* of weight above 0 */
	struct preflight_answer backends[KLB_MAX_BACKENDS];
	/* Who serves them at the moment; not dialled while KubeLB has them. */
	unsigned int n_frontends;
	struct preflight_answer frontends[KLB_MAX_FRONTENDS];
};

/*
 * Returns 0; or -EINVAL with e if a backend of cfg has an address that documentation uses for
 * examples: no apiserver is there.
 */
int preflight_check_addresses(const struct config *cfg, struct err *e);

/* Whom to dial, into ret, which begins as zero: one that can be chosen; one that clients dial. */
void preflight_add_backend(struct preflight *ret, const struct klb_endpoint *endpoint);
void preflight_add_frontend(struct preflight *ret, const struct klb_endpoint *endpoint);

/*
 * Dials all that were added. brief: ends as soon as it is known that nobody serves a frontend.
 * Certificates are verified with cfg's probe.ca if that can be read; otherwise any is accepted.
 * Returns 0, or a negative errno with e: no memory, or TLS cannot be set up.
 */
int preflight_dial(const struct config *cfg, bool brief, struct preflight *ret, struct err *e);

/* Returns 0 or, if a first attachment would do harm, -EHOSTUNREACH with e. */
int preflight_judge(const struct preflight *p, enum preflight_mode mode, const char *source,
		    struct err *e);

/* How many backends are accepted. */
unsigned int preflight_count_accepted(const struct preflight *p);

#endif
