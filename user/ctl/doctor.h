/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kubelbctl doctor: what its files share. Each group of checks is a file of its own; it reads what
 * doctor_look has collected and adds findings. A check changes nothing on this machine.
 */
#ifndef KUBELB_DOCTOR_H
#define KUBELB_DOCTOR_H

#include <stdbool.h>
#include <stdio.h>

#include <jansson.h>

#include "base/err.h"
#include "config/config.h"
#include "ctl/ctl.h"
#include "ctl/decides.h"
#include "datapath/datapath.h"

enum doctor_level {
	DOCTOR_OK,
	DOCTOR_SKIP, /* could not be checked, and why */
	DOCTOR_WARN, /* works, and deserves a look */
	DOCTOR_FAULT,
	DOCTOR_LEVELS
};

#define DOCTOR_FINDINGS_MAX 512
#define DOCTOR_LINKS_MAX 16

struct doctor_finding {
	enum doctor_level level;
	const char *check; /* its name; not copied */
	char text[ERR_TEXT_MAX];
	char next[ERR_TEXT_MAX]; /* what to do; or "" */
};

/* What there is to be seen, read once. */
struct doctor {
	const struct ctl_options *o;
	const char *config_path;

	int config_result; /* of config_load */
	struct err config_error;
	/* What the file says, or, without one that can be used, the defaults. */
	struct config *config;
	bool config_is_default;

	int open_result; /* of the data path */
	struct err open_error;
	struct datapath *dp; /* NULL: not open */
	struct datapath_state *state; /* valid when dp is */
	struct datapath_link links[DOCTOR_LINKS_MAX];
	int n_links; /* may be negative, as datapath_links returns it */
	struct decides *decides;

	json_t *relayed; /* the agent's status document where it is the data path, or NULL */
	bool agent_alive; /* its heartbeat counts, or it has sent that document */
	__u64 now_ns;

	struct doctor_finding *findings;
	unsigned int n_findings;
};

/* --- findings (doctor_list.c) --- */

/* Adds one. A fault needs a doctor_next. */
void doctor_say(struct doctor *d, enum doctor_level level, const char *check, const char *format,
		...) __attribute__((format(printf, 4, 5)));
/* What to do about the finding that was added last. */
void doctor_next(struct doctor *d, const char *format, ...) __attribute__((format(printf, 2, 3)));
unsigned int doctor_count(const struct doctor *d, enum doctor_level level);
void doctor_print(const struct doctor *d, FILE *to);
/* The same as a document; NULL without memory. */
json_t *doctor_json(const struct doctor *d);

/* --- what there is (doctor_look.c) --- */

/* Returns 0 or -ENOMEM. doctor_forget frees in any case. */
int doctor_look(struct doctor *d, const struct ctl_options *o);
void doctor_forget(struct doctor *d);
/* Whether the kernel is not meant to be the data path, or is not, because the agent is. */
bool doctor_is_relayed(const struct doctor *d);
/* Whether the data path cannot be seen without privileges that this process lacks. */
bool doctor_is_blind(const struct doctor *d);

struct doctor_endpoints {
	unsigned int n;
	struct klb_endpoint list[KLB_MAX_BACKENDS];
};

/* The backends in use, or those that would be; and the frontends likewise. */
void doctor_backends(const struct doctor *d, struct doctor_endpoints *ret);
void doctor_frontends(const struct doctor *d, struct doctor_endpoints *ret);
/* Whether one of the backends is this node's own. */
bool doctor_has_own_backend(const struct doctor *d);

/* --- the checks --- */

void doctor_check_host(struct doctor *d); /* doctor_host.c: kernel, features, cgroup, bpffs */
void doctor_check_config(struct doctor *d); /* doctor_config.c */
void doctor_check_attached(struct doctor *d); /* doctor_attached.c: programs, pins, namespace */
void doctor_check_connects(struct doctor *d); /* doctor_connects.c: who decides where they end */
void doctor_check_agent(struct doctor *d); /* doctor_agent.c: the process, reload, discovery */
void doctor_check_relay(struct doctor *d); /* doctor_relay.c */
void doctor_check_ports(struct doctor *d); /* doctor_ports.c */
void doctor_check_backends(struct doctor *d); /* doctor_backends.c: dial, certificates, clocks */
void doctor_check_firewall(struct doctor *d); /* doctor_firewall.c */

/*
 * Writes everything that a bug report needs into a new file of mode 0600, without secrets
 * (doctor_bundle.c). Returns 0 or a negative errno with e.
 */
int doctor_bundle(const struct doctor *d, const char *path, struct err *e);

#endif
