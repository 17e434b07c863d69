/* SPDX-License-Identifier: BSD-2-Clause */
/* Tells the programs which ports of this host have listeners. */
#include "datapath/load.h"

#include <unistd.h>

#include "net/sock_diag.h"

/*
 * Tells the programs which ports have listeners now. klb_sockops, which is attached by then,
 * reports new ones. If the list cannot be read, the programs look for a listener at each connect.
 */
void load_publish_listeners(const struct datapath_load *l)
{
	struct klb_memory *memory = l->o.progs[PROG_SOCKOPS] ? object_memory(&l->o) : NULL;
	__u64 ports[SOCK_DIAG_PORT_WORDS] = { 0 };
	struct sock_diag *diag = NULL;

	if (memory && !sock_diag_open(&diag, NULL) && !sock_diag_listeners(diag, ports, NULL)) {
		for (unsigned int port = 0; port < 64 * SOCK_DIAG_PORT_WORDS; port++)
			if (ports[port / 64] >> port % 64 & 1)
				memory->listens[port % KLB_LISTEN_SLOTS] = 1;
		__atomic_store_n(&memory->listens_known, 1, __ATOMIC_RELEASE);
	}
	sock_diag_close(diag);
	object_memory_put(memory);
}

/*
 * As soon as the first link is replaced, the old programs are not told about new listeners. If this
 * load ends half-way or is rolled back, they go on running, so they must look at each connect.
 */
void load_forget_old_listeners(const struct datapath_load *l)
{
	for (unsigned int i = 0; i < l->n_slots; i++) {
		int fd = links_old_memory(&l->slots[i]);

		if (fd < 0)
			continue;
		object_forget_listeners(fd);
		close(fd);
	}
}
