/* SPDX-License-Identifier: BSD-2-Clause */
/* Opens the data path and reads it, as every command does first. */
#include "ctl/ctl.h"

#include <errno.h>
#include <stdio.h>

/*
 * Nothing is pinned: the next step is another one when KubeLB's programs run all the same and
 * nobody can see their pins. Another kubelb-load would attach beside them.
 */
static void explain_hidden(struct err *e)
{
	struct datapath_running all[DATAPATH_RUNNING_MAX];
	unsigned int n = datapath_running(all, DATAPATH_RUNNING_MAX);
	char text[ERR_TEXT_MAX];

	for (unsigned int i = 0; i < n; i++) {
		if (all[i].pin[0])
			continue;
		snprintf(text, sizeof(text), "%s", e->text);
		err_set(e, ENOENT,
			"%.200s. But %s (id %u) of KubeLB runs on %.100s, and its pin is not to be "
			"seen: a bpffs may be mounted over it (findmnt -t bpf); unmount that first",
			text, all[i].name, all[i].prog_id, all[i].cgroup);
		return;
	}
}

int ctl_open_within(const char *pin_dir, unsigned int wait_ms, struct datapath **ret,
		    struct datapath_state *ret_state, struct err *e)
{
	int r = datapath_open(pin_dir, wait_ms, ret, e);

	if (!r)
		r = datapath_read(*ret, ret_state, e);
	if (!r)
		ctl_log_state(pin_dir, ret_state);
	else if (r == -ENOENT)
		explain_hidden(e);
	return r;
}

int ctl_open(const char *pin_dir, struct datapath **ret, struct datapath_state *ret_state,
	     struct err *e)
{
	return ctl_open_within(pin_dir, DATAPATH_WAIT_MS, ret, ret_state, e);
}
