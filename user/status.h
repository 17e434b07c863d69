/* SPDX-License-Identifier: BSD-2-Clause */
/* What is attached and how it fares, for people and as JSON. Writes no maps. */
#ifndef KUBELB_STATUS_H
#define KUBELB_STATUS_H

#include "datapath.h"

/* Print to stdout. links, n_links: from datapath_links. Text: 0 or -ENOMEM. */
int status_print_text(const struct datapath_state *s, const struct datapath_link *links,
		      int n_links, __u64 now_ns);
void status_print_json(const struct datapath_state *s, const struct datapath_link *links,
		       int n_links, const char *pin_dir, __u64 now_ns, bool compact);

#endif
