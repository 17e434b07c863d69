/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelb-load --check */
#ifndef KUBELB_LOAD_CHECK_H
#define KUBELB_LOAD_CHECK_H

#include <stdbool.h>

/* Lists the features of this kernel on stdout. cgroup: NULL for the root. Returns an exit status.
 */
int check_kernel(const char *pin_dir, const char *cgroup, bool json);

#endif
