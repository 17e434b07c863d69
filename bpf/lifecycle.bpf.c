/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What became of our sockets. Touches none that carries no record of ours.
 */
#include "maps.bpf.h"

#include "socket.bpf.h"

/* The last descriptor of the socket is gone: close, exit or kill -9 alike. */
SEC("cgroup/sock_release")
int klb_release(struct bpf_sock *ctx)
{
	struct klb_socket *rec = bpf_sk_storage_get(&klb_sockets, ctx, 0, 0);

	if (rec)
		klb_socket_uncount(rec);
	return 1;
}
