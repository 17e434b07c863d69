/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A process that attaches again when the agent asks for it. The agent itself gives up the
 * privileges that attaching takes, because it reads what comes from networks. This process keeps
 * them, and reads nothing but the agent's requests, each of them a number, and the configuration.
 * When the agent ends, however it does, this process removes the relay's rule and route.
 */
#ifndef KUBELB_ATTACHER_H
#define KUBELB_ATTACHER_H

#include <stdbool.h>

#include <linux/types.h>

#include "base/err.h"
#include "config/config.h"

struct attacher;

/* What has become of a request. code: 0, or a negative errno; text: the error, or the cgroup. */
struct attacher_result {
	int code;
	char text[ERR_TEXT_MAX];
};

/*
 * Starts the process, which ends when the caller does. Call it with all privileges and before there
 * are threads. cfg: used while the file at config_path is invalid. Free it with attacher_free.
 */
int attacher_start(const char *config_path, const char *pin_dir, const struct config *cfg,
		   struct attacher **ret, struct err *e);
/* NULL is allowed. */
void attacher_free(struct attacher *at);

/*
 * Asks it to do what kubelb-load does. cgroup_id: of the cgroup to attach to; 0, or that of one
 * that is gone: as the configuration says. Returns 0 or a negative errno.
 */
int attacher_request(struct attacher *at, __u64 cgroup_id);
/* Readable when there is a result. */
int attacher_fd(const struct attacher *at);
/* Takes it. A process that has ended gives -EPIPE. */
void attacher_result(struct attacher *at, struct attacher_result *ret);

#endif
