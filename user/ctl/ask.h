/* SPDX-License-Identifier: BSD-2-Clause */
/* Asks the agent for one of its pages. */
#ifndef KUBELB_ASK_H
#define KUBELB_ASK_H

#include <stddef.h>

#include "base/err.h"
#include "config/config.h"

struct ask_answer {
	unsigned int status; /* of HTTP */
	char line[256]; /* the first one of the text */
};

/*
 * Asks for path where cfg has the agent serve it: at the Unix socket if there is one, else at the
 * address. Waits two seconds at the most. Returns 0, or a negative errno with e: -ECONNREFUSED when
 * nobody answers, -EPERM when somebody else than the agent listens on the address.
 */
int ask_agent(const struct config *cfg, const char *path, struct ask_answer *ret, struct err *e);

enum ask_how {
	ASK_PAGE, /* GET, at the Unix socket or the address */
	ASK_PRIVATE, /* GET of what only root may see: at the Unix socket */
	ASK_ORDER, /* POST, at the Unix socket, which only root can connect to */
};

struct ask_body {
	unsigned int status; /* of HTTP */
	char *text; /* with a NUL behind it, to be freed; it may hold NULs */
	size_t length;
};

/*
 * Asks for the whole of a page. Without a Unix socket in cfg it is CONFIG_HTTP_SOCKET_DEFAULT,
 * where the agent serves while it is the data path. Waits and fails as ask_agent.
 */
int ask_body(const struct config *cfg, enum ask_how how, const char *path, struct ask_body *ret,
	     struct err *e);

/*
 * Whether somebody who is not root listens on cfg's address: that is not the agent. If so, prints
 * into text (ERR_TEXT_MAX) who, and what follows.
 */
bool ask_finds_impostor(const struct config *cfg, char *text);

#endif
