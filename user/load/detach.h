/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelb-load --detach. */
#ifndef KUBELB_LOAD_DETACH_H
#define KUBELB_LOAD_DETACH_H

/*
 * Detaches what is pinned in pin_dir, says so, and warns of each frontend that nobody answers on
 * any more. Returns an exit status (cli.h).
 */
int detach(const char *pin_dir);

#endif
