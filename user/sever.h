/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ends given sockets; never decides which. A socket is named by its addresses, its
 * ports and its cookie, in its own network namespace: somebody's direct connection to the
 * same apiserver, or a new socket that got the same ports, cannot be hit.
 *
 * What the owner sees is ECONNABORTED at its next read or write; what the peer sees is a
 * RST, and nothing when the connect was still under way. The owner keeps the descriptor.
 */
#ifndef KUBELB_SEVER_H
#define KUBELB_SEVER_H

#include <kubelb/abi.h>

#include "err.h"

struct sever;

/*
 * Open one for each batch: it remembers the namespaces that it has found and not found.
 * -EOPNOTSUPP with e: this kernel cannot end sockets at all.
 */
int sever_open(struct sever **ret, struct err *e);
void sever_close(struct sever *s);

/*
 * Ends the socket that c, from datapath_connections, describes. Returns 0 when it has
 * been ended; -ENOENT, without a word in e, when it had ended by itself; -ESRCH when its
 * network namespace cannot be found; -EPERM without CAP_NET_ADMIN in it.
 * One request and its answer, which the kernel gives at once; the first one in a foreign
 * namespace also looks for that (see netns.h).
 */
int sever_one(struct sever *s, const struct klb_connection *c, struct err *e);

#endif
