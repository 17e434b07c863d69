/* SPDX-License-Identifier: BSD-2-Clause */
/* What the commands do where there are no maps, because the agent is the data path. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "base/log.h"
#include "config/config.h"
#include "ctl/ctl.h"
#include "host/node.h"
#include "net/endpoint.h"

/* Longer than any path of an order. */
#define PATH_MAX_BYTES 128

/* Returns 0 when the agent has answered and has such a page. */
static int ask(const struct ctl_options *o, enum ask_how how, const char *path,
	       struct ask_body *ret)
{
	struct config *cfg = NULL;
	struct err unasked;
	int r;

	/* Who is to be seen here is the kernel. */
	if (datapath_is_pinned(o->pin_dir))
		return -EEXIST;
	r = config_load(o->config_path ? o->config_path : CONFIG_PATH_DEFAULT, node_has_ipv6(),
			&cfg, &unasked);
	if (!r)
		r = ask_body(cfg, how, path, ret, &unasked);
	config_free(cfg);
	if (r || ret->status != 404)
		return r;
	free(ret->text);
	ret->text = NULL;
	return -ENOENT;
}

/* What the agent says in place of what it was asked for: one line. Frees the text. */
static int refusal(struct ask_body *body, struct err *e)
{
	body->text[strcspn(body->text, "\r\n")] = '\0';
	err_set(e, EIO, "%s", body->text);
	err_make_printable(e->text);
	free(body->text);
	body->text = NULL;
	return -EIO;
}

int ctl_relayed_ask(const struct ctl_options *o, enum ask_how how, const char *path,
		    struct ask_body *ret, struct err *e)
{
	if (ask(o, how, path, ret))
		return 1;
	if (ret->status == 200)
		return 0;
	return refusal(ret, e);
}

static int print(const struct ctl_options *o, enum ask_how how, const char *path, FILE *to,
		 struct err *e)
{
	struct ask_body body = { 0 };
	int r = ctl_relayed_ask(o, how, path, &body, e);

	if (!r)
		fwrite(body.text, 1, body.length, to);
	free(body.text);
	return r;
}

int ctl_relayed_page(const struct ctl_options *o, const char *name, FILE *to, struct err *e)
{
	char path[PATH_MAX_BYTES];

	snprintf(path, sizeof(path), "/%s%s", name, o->json ? ".json" : "");
	return print(o, ASK_PRIVATE, path, to, e);
}

int ctl_relayed_order(const struct ctl_options *o, const struct klb_endpoint *backend,
		      const char *what, FILE *to, struct err *e)
{
	char path[PATH_MAX_BYTES], text[ENDPOINT_TEXT_MAX];

	snprintf(path, sizeof(path), "/backends/%s/%s", endpoint_format(backend, text), what);
	return print(o, ASK_ORDER, path, to, e);
}

/* --- events -------------------------------------------------------------------------- */

#define FOLLOW_MS 200

/*
 * Prints those from number *next on, and sets it to what comes after them. Returns an exit status,
 * or the negative errno of ask.
 */
static int print_events(const struct ctl_options *o, unsigned long long *next)
{
	char path[PATH_MAX_BYTES], *rest;
	struct ask_body body = { 0 };
	struct err refused;
	int r;

	snprintf(path, sizeof(path), "/events/%llu%s", *next, o->json ? ".json" : "");
	r = ask(o, ASK_PRIVATE, path, &body);
	if (r)
		return r;
	if (body.status != 200) {
		refusal(&body, &refused);
		return cli_fail(CLI_FAILED, &refused);
	}
	*next = strtoull(body.text, &rest, 10);
	rest += *rest == '\n';
	fwrite(rest, 1, body.length - (size_t)(rest - body.text), stdout);
	free(body.text);
	return 0;
}

/* Until the user ends it, or something is attached: -EEXIST. */
static int follow_events(const struct ctl_options *o, unsigned long long next)
{
	bool waiting = false;
	int r = 0;

	ctl_handle_signals();
	while (r <= 0 && r != -EEXIST && ctl_flush() && ctl_pause(FOLLOW_MS)) {
		r = print_events(o, &next);
		if (r < 0 && r != -EEXIST && !waiting)
			log_line("the agent does not answer any more; waiting for it");
		waiting = r < 0;
	}
	return r == -EEXIST || r > 0 ? r : CLI_OK;
}

int ctl_relayed_events(const struct ctl_options *o, bool *ret_attached)
{
	unsigned long long next = 0;
	int r = print_events(o, &next);

	*ret_attached = false;
	if (!r && o->follow) {
		r = follow_events(o, next);
		*ret_attached = r == -EEXIST;
	}
	return r < 0 ? -1 : r;
}
