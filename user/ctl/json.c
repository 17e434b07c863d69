/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints JSON. */
#include "ctl/json.h"

#include <errno.h>

int ctl_print_json(json_t *root, size_t format, FILE *to)
{
	int r;

	if (!root)
		return -ENOMEM;
	r = json_dumpf(root, to, format | JSON_REAL_PRECISION(9));
	fputc('\n', to);
	json_decref(root);
	return r && !ferror(to) ? -ENOMEM : 0;
}
