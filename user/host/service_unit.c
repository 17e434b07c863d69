/* SPDX-License-Identifier: BSD-2-Clause */
/* Whether a service manager can start what is suggested, and what it takes for active. */
#include "host/service_unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "host/command.h"

#define SYSTEMCTL "/usr/bin/systemctl"
#define OWN_CGROUPS "/proc/self/cgroup"
#define CGROUPS_BYTES_MAX 65536

/* Long for a unit without ExecStop=. One that waits for others is stopped later all the same. */
#define WAIT_S 5
#define OUTPUT_BYTES_MAX 1024

/* Exit statuses of is-active. */
enum { IS_ACTIVE = 0, IS_NOT_ACTIVE = 3, IS_UNKNOWN = 4 };

bool service_unit_systemd_runs(void)
{
	return !access("/run/systemd/system", F_OK) && !access(SYSTEMCTL, X_OK);
}

bool service_unit_has(const char *cgroups, const char *unit)
{
	size_t length = strlen(unit);

	for (const char *at = cgroups; (at = strstr(at, unit)); at += length) {
		char after = at[length];

		if (at > cgroups && at[-1] == '/' && (!after || after == '/' || after == '\n'))
			return true;
	}
	return false;
}

/* Of a process that cannot tell, it is not known that it is. */
static bool is_in_unit(const char *unit)
{
	char *text = NULL;
	size_t length;
	struct err e;
	bool ret;

	if (file_read(OWN_CGROUPS, CGROUPS_BYTES_MAX, &text, &length, &e))
		return false;
	ret = service_unit_has(text, unit);
	free(text);
	return ret;
}

/* Returns its exit status, or a negative errno. e: what it has said, or why there is none. */
static int ask(const char *systemctl, const char *verb, const char *unit, struct err *e)
{
	const char *const argv[] = { systemctl, "--quiet", verb, unit, NULL };
	char *text = NULL;
	int r = command_run(argv, WAIT_S, OUTPUT_BYTES_MAX, &text);

	if (r == -ETIMEDOUT)
		err_set(e, -r, "systemctl %s %s: not done within %d s", verb, unit, WAIT_S);
	else if (r < 0)
		err_set(e, -r, "systemctl %s %s: %s", verb, unit, err_reason(-r));
	else
		err_set(e, EIO, "systemctl %s %s: exit status %d%s%.*s", verb, unit, r,
			text[0] ? ": " : "", (int)strcspn(text, "\n"), text);
	free(text);
	return r;
}

int service_unit_stop(const char *systemctl, const char *unit, struct err *e)
{
	int r = ask(systemctl, "is-active", unit, e);

	if (r == IS_NOT_ACTIVE || r == IS_UNKNOWN)
		return 0;
	if (r == IS_ACTIVE)
		r = ask(systemctl, "stop", unit, e);
	if (r < 0)
		return r;
	return r ? -EIO : 1;
}

int service_unit_stop_load(struct err *e)
{
	if (!service_unit_systemd_runs() || is_in_unit(SERVICE_UNIT_LOAD))
		return 0;
	return service_unit_stop(SYSTEMCTL, SERVICE_UNIT_LOAD, e);
}
