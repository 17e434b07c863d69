/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelb-load --detach: detaches, and says which addresses nobody answers on from now on. */
#include "load/detach.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/log.h"
#include "load/still.h"
#include "datapath/datapath.h"
#include "host/service_unit.h"
#include "net/endpoint.h"
#include "net/local_delivery.h"
#include "net/tcp_connect.h"

/* What listens on this machine answers at once. */
#define DIAL_MS 1000

#define WHAT_TO_DO                                                                       \
	"start what is to listen there (the proxy that KubeLB has replaced), point the " \
	"clients at an apiserver, or run kubelb-load again"

/* A connect as the clients make it. Returns 0 or an errno. */
static int dial(const struct klb_endpoint *to)
{
	static const struct dial_patience patience = { .user_timeout_ms = DIAL_MS };
	struct pollfd p = { .fd = dial_open(to, &patience), .events = POLLOUT };
	int code;

	if (p.fd < 0)
		return -p.fd;
	code = poll(&p, 1, DIAL_MS) > 0 ? dial_result(p.fd) : ETIMEDOUT;
	close(p.fd);
	return code;
}

/* Whether the errno is about the address, and not about this process. */
static bool is_refused(int code)
{
	return code && !err_is_shortage(code) && code != EPERM && code != EACCES;
}

/* Writes the addresses for which that is so, separated by commas. Returns their number. */
static unsigned int list_refused(const struct datapath_detached *d, bool dial_them, char *ret,
				 size_t size)
{
	char text[ENDPOINT_TEXT_MAX];
	unsigned int n = 0;
	size_t length = 0;

	for (unsigned int i = 0; i < d->n_frontends && length < size; i++) {
		if (dial_them && !is_refused(dial(&d->frontends[i])))
			continue;
		length += (size_t)snprintf(ret + length, size - length, "%s%s", n ? ", " : "",
					   endpoint_format(&d->frontends[i], text));
		n++;
	}
	return n;
}

static void warn_about_frontends(const struct datapath_detached *d)
{
	char list[KLB_MAX_FRONTENDS * (ENDPOINT_TEXT_MAX + 2)] = "";
	unsigned int n = list_refused(d, d->is_host_netns, list, sizeof(list));

	if (!n)
		return;
	if (d->is_host_netns)
		log_line("warning: nobody answers on %s: connects to %s fail from now "
			 "on; " WHAT_TO_DO,
			 list, n == 1 ? "it" : "them");
	else
		log_line("warning: connects to %s in the host's network namespace, which is not "
			 "this one, fail from now on unless something listens there; " WHAT_TO_DO,
			 list);
}

/*
 * The relay's, in this namespace. Where nothing is attached there is no agent that needs them. An
 * agent that lives resets what it relays when it notices.
 */
static void remove_delivery(const struct datapath_detached *d)
{
	struct err e;

	if (d->removed && !d->is_host_netns)
		return;
	if (local_delivery_remove(&e) < 0)
		log_line("warning: %s", e.text);
}

/*
 * A unit that has attached counts as active for good, and systemctl start would do nothing. The
 * unit has the default directory.
 */
static void stop_unit(const char *pin_dir)
{
	struct err e = { "" };
	int r = strcmp(pin_dir, DATAPATH_PIN_DEFAULT) ? 0 : service_unit_stop_load(&e);

	if (r > 0)
		printf("stopped " SERVICE_UNIT_LOAD
		       " as well: systemctl start kubelb-load attaches again\n");
	else if (r < 0)
		log_line("warning: " SERVICE_UNIT_LOAD " may count as active, so that systemctl "
			 "start does nothing: %s; systemctl restart kubelb-load attaches again",
			 e.text);
}

int detach(const char *pin_dir)
{
	struct datapath_detached detached;
	struct err e = { "" };

	if (datapath_detach(pin_dir, &detached, &e))
		return cli_fail(CLI_FAILED, &e);
	remove_delivery(&detached);
	if (detached.removed)
		printf("detached: removed every program, map and pin below %s\n", pin_dir);
	else
		printf("nothing to detach: %s does not exist\n", pin_dir);
	stop_unit(pin_dir);
	still_print();
	if (detached.kept.text[0])
		log_line("warning: open connections keep the time-outs that connectTimeout and "
			 "deadPeerTimeout have set, until they end: %s",
			 detached.kept.text);
	if (detached.removed)
		warn_about_frontends(&detached);
	return CLI_OK;
}
