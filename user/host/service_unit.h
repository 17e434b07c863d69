/* SPDX-License-Identifier: BSD-2-Clause */
/* What is known of the service manager by those that it does not run. */
#ifndef KUBELB_SERVICE_UNIT_H
#define KUBELB_SERVICE_UNIT_H

#include <stdbool.h>

#include "base/err.h"

/* The unit that attaches. It is a oneshot that remains: once it has run, it counts as active. */
#define SERVICE_UNIT_LOAD "kubelb-load.service"

/* Whether systemd runs here, and this process sees it: not in a container. */
bool service_unit_systemd_runs(void);

/* Whether the text of a /proc/PID/cgroup is that of a process of the unit. */
bool service_unit_has(const char *cgroups, const char *unit);

/*
 * Has the program, systemctl's path, stop the unit if it is active, and waits a few seconds for
 * that. Returns 1 when it has stopped it, 0 when there was nothing to stop, or a negative errno
 * with e.
 */
int service_unit_stop(const char *systemctl, const char *unit, struct err *e);

/*
 * The same for SERVICE_UNIT_LOAD on this machine, after a detach: what counts as active cannot be
 * started. Returns 0, too, where no systemd runs and in a process of that unit.
 */
int service_unit_stop_load(struct err *e);

#endif
