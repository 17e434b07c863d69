/* SPDX-License-Identifier: BSD-2-Clause */
/* Listens on the frontends that this process serves itself. */
#include "agent/relay_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host/port_owner.h"
#include "net/endpoint.h"

/* The kernel cuts it to net.core.somaxconn. */
#define BACKLOG 4096
/* Of the frontend's own address: this host's connects come from there. */
#define ADDRESS_BITS 128

/* --- sockets ------------------------------------------------------------------------- */

/*
 * Another machine dials an address that may be on this host only at times (VRRP): bound
 * beforehand, it is served from the moment that it comes.
 */
static int set_options(int fd, const struct agent_listener *l)
{
	bool ipv4 = endpoint_is_ipv4(&l->frontend.endpoint);
	int on = 1;

	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    (!ipv4 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on))))
		return -errno;
	if (l->from != RELAY_NETWORK)
		return 0;
	return setsockopt(fd, ipv4 ? IPPROTO_IP : IPPROTO_IPV6, ipv4 ? IP_FREEBIND : IPV6_FREEBIND,
			  &on, sizeof(on))
		       ? -errno
		       : 0;
}

static int open_socket(const struct agent_listener *l)
{
	struct sockaddr_storage ss;
	socklen_t length = endpoint_to_sockaddr(&l->frontend.endpoint, &ss);
	int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int r = fd < 0 ? -errno : set_options(fd, l);

	if (!r && (bind(fd, (const struct sockaddr *)&ss, length) || listen(fd, BACKLOG)))
		r = -errno;
	if (!r)
		return fd;
	if (fd >= 0)
		close(fd);
	return r;
}

static int explain_taken(const struct klb_endpoint *at, const char *text, struct err *e)
{
	char name[PORT_OWNER_MAX];
	struct port_owner who;

	if (!port_owner_find(at, &who))
		return err_set(e, EADDRINUSE,
			       "%s is in use: end what listens there or on all addresses, or "
			       "choose another frontend",
			       text);
	return err_set(e, EADDRINUSE,
		       "%s is in use by %s, who gets the connects: end that (a proxy that KubeLB "
		       "replaces; ss -ltnp shows it), or choose another frontend",
		       text, port_owner_name(&who, name));
}

static int explain(const struct agent_listener *l, int r, struct err *e)
{
	char text[ENDPOINT_TEXT_MAX];

	endpoint_format(&l->frontend.endpoint, text);
	switch (-r) {
	case EADDRINUSE:
		return explain_taken(&l->frontend.endpoint, text, e);
	case EADDRNOTAVAIL:
		return err_set(e, -r,
			       "%s is no address of this host, so its connects cannot be relayed: "
			       "add it to lo (ip addr add), or dial 127.0.0.1 or another address "
			       "of this host",
			       text);
	case EACCES:
		return err_set(e, -r,
			       "%s: a port below 1024 takes CAP_NET_BIND_SERVICE; choose a higher "
			       "one, or restart the agent with it",
			       text);
	default:
		return err_set(e, -r, "%s: %s", text, err_reason(-r));
	}
}

/* --- listeners ----------------------------------------------------------------------- */

/* What agrees with a listener that exists can stay. */
static bool is_same(const struct agent_listener *x, const struct agent_listener *y)
{
	return endpoint_equal(&x->frontend.endpoint, &y->frontend.endpoint) && x->from == y->from &&
	       !memcmp(&x->access, &y->access, sizeof(x->access));
}

/* Which frontends this process has to listen on. */
static unsigned int list_wanted(const struct agent *a, struct agent_listener *ret)
{
	const struct config *cfg = a->config;
	unsigned int n = 0;

	for (unsigned int i = 0; i < cfg->n_frontends; i++) {
		bool network = cfg->frontends[i].scope == KLB_SCOPE_NETWORK;

		if (!network && !a->path.relaying)
			continue;
		memset(&ret[n], 0, sizeof(ret[n]));
		ret[n].frontend = cfg->frontends[i];
		if (network)
			ret[n].access = cfg->access[i];
		ret[n++].from = network ? RELAY_NETWORK : RELAY_FRONTEND;
	}
	return n;
}

static int listen_on(struct agent *a, struct agent_listener *l, struct err *e)
{
	struct cidr allow[CONFIG_ALLOW_MAX + 1];
	unsigned int n = l->access.n_allow;
	int fd = open_socket(l), r;

	if (fd < 0)
		return explain(l, fd, e);
	memcpy(allow, l->access.allow, n * sizeof(allow[0]));
	if (n) {
		memcpy(allow[n].addr, l->frontend.endpoint.addr, sizeof(allow[n].addr));
		allow[n++].bits = ADDRESS_BITS;
	}
	r = relay_listen(a->relay->relay, fd, l->from, &l->frontend.endpoint, allow, n,
			 &l->listener, e);
	if (r)
		close(fd);
	return r;
}

static void try_listening(struct agent *a, struct agent_listener *l)
{
	char text[ENDPOINT_TEXT_MAX];
	struct err e = { "" };

	if (!listen_on(a, l, &e))
		log_event(LOG_LEVEL_INFO, "connects to the frontend are relayed",
			  "frontend=%s from=%s", endpoint_format(&l->frontend.endpoint, text),
			  l->from == RELAY_NETWORK ? "other machines" : "this host");
	log_failure(l->error, LOG_LEVEL_ERROR, "a frontend cannot be listened on, trying again",
		    &e);
}

static void stop_listening(struct agent_listener *l)
{
	if (l->listener)
		relay_unlisten(l->listener);
	l->listener = NULL;
}

/* Those that are wanted and exist stay as they are; their place in the list may change. */
static void match(struct agent *a, struct agent_listener *wanted, unsigned int n)
{
	for (unsigned int k = 0; k < a->path.n_listeners; k++) {
		struct agent_listener *l = &a->path.listeners[k];
		bool stays = false;

		for (unsigned int i = 0; i < n && !stays; i++) {
			stays = is_same(&wanted[i], l);
			if (stays)
				wanted[i] = *l;
		}
		if (!stays)
			stop_listening(l);
	}
	memcpy(a->path.listeners, wanted, n * sizeof(*wanted));
	a->path.n_listeners = n;
}

void agent_review_listeners(struct agent *a)
{
	struct agent_listener wanted[KLB_MAX_FRONTENDS];
	unsigned int n = a->ending ? 0 : list_wanted(a, wanted);
	struct err e = { "" };

	match(a, wanted, n);
	/* Without a plan it has nowhere to send clients. */
	if (!n || !a->state->applied.n_frontends)
		return;
	if (agent_prepare_relay(a, &e)) {
		log_failure(a->path.relay_error, LOG_LEVEL_ERROR, "the relay does not work", &e);
		return;
	}
	log_failure(a->path.relay_error, LOG_LEVEL_ERROR, "", &e);
	for (unsigned int i = 0; i < n; i++)
		if (!a->path.listeners[i].listener)
			try_listening(a, &a->path.listeners[i]);
}

const char *agent_not_listening(const struct agent *a)
{
	if (a->path.relay_error[0])
		return a->path.relay_error;
	for (unsigned int i = 0; i < a->path.n_listeners; i++)
		if (!a->path.listeners[i].listener)
			return a->path.listeners[i].error;
	return a->path.n_listeners ? NULL : "nothing is relayed yet";
}
