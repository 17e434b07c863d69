/* SPDX-License-Identifier: BSD-2-Clause */
/* Whether a service manager can start what is suggested. */
#include "host/service_unit.h"

#include <unistd.h>

#define SYSTEMCTL "/usr/bin/systemctl"

bool service_unit_systemd_runs(void)
{
	return !access("/run/systemd/system", F_OK) && !access(SYSTEMCTL, X_OK);
}
