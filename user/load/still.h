/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelb-load --detach: what of KubeLB still runs afterwards. */
#ifndef KUBELB_STILL_H
#define KUBELB_STILL_H

/* Prints a line on stdout for each attachment of KubeLB that there is, on any cgroup. */
void still_print(void);

#endif
