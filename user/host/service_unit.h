/* SPDX-License-Identifier: BSD-2-Clause */
/* What is known of the service manager by those that it does not run. */
#ifndef KUBELB_SERVICE_UNIT_H
#define KUBELB_SERVICE_UNIT_H

#include <stdbool.h>

/* Whether systemd runs here, and this process sees it: not in a container. */
bool service_unit_systemd_runs(void);

#endif
