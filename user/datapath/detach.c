/* SPDX-License-Identifier: BSD-2-Clause */
/* Detaches the data path and removes its pins. */
#include "datapath/load.h"

#include <errno.h>
#include <unistd.h>

int datapath_detach(const char *pin_dir, bool *ret_removed, struct err *e)
{
	int lock, r;

	*ret_removed = false;
	r = require_root(e);
	if (r)
		return r;
	/* Nothing is mounted or pinned, so there is nothing to do. */
	if (access(pin_dir, F_OK) && errno == ENOENT) {
		char new_dir[PATH_TEXT_MAX];

		if (path_with_suffix(new_dir, pin_dir, e) || access(new_dir, F_OK))
			return 0;
	}
	if (!mounts_is_bpffs(pin_dir) && !access(pin_dir, F_OK))
		return err_set(e, EINVAL, "%s: not on a bpffs; nothing of kubelb's can be there",
			       pin_dir);
	lock = datapath_lock(pin_dir, true, LOCK_WAIT_MS, e);
	if (lock < 0)
		return lock;
	r = links_remove_all(pin_dir, ret_removed, e);
	close(lock);
	return r;
}
