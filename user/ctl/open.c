/* SPDX-License-Identifier: BSD-2-Clause */
/* Opens the data path and reads it, as every command does first. */
#include "ctl/ctl.h"

int ctl_open(const char *pin_dir, struct datapath **ret, struct datapath_state *ret_state,
	     struct err *e)
{
	int r = datapath_open(pin_dir, ret, e);

	if (!r)
		r = datapath_read(*ret, ret_state, e);
	if (!r)
		ctl_log_state(pin_dir, ret_state);
	return r;
}
