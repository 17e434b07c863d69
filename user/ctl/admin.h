/* SPDX-License-Identifier: BSD-2-Clause */
/* The operator's settings of a backend: kubelbctl drain, undrain and weight. */
#ifndef KUBELB_CTL_ADMIN_H
#define KUBELB_CTL_ADMIN_H

#include <stdio.h>

#include "balance/state.h"

struct admin_change {
	enum { ADMIN_DRAIN, ADMIN_UNDRAIN, ADMIN_WEIGHT, ADMIN_WEIGHT_AUTO } kind;
	unsigned int weight; /* of ADMIN_WEIGHT */
};

/* Changes admin as change, a struct admin_change, says. For datapath_change_admin. */
void admin_edit(struct klb_admin *admin, const void *change);

/* Says what c has done to b. s: as it was before. */
void admin_report(const struct admin_change *c, const struct datapath_state *s,
		  const struct plan_backend *b, FILE *to);

#endif
