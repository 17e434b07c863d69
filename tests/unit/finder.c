/* SPDX-License-Identifier: BSD-2-Clause */
#include "finder.h"

#include <stdio.h>
#include <string.h>

#include <event2/bufferevent.h>
#include <event2/event.h>
#include <openssl/err.h>

#include "pki.h"
#include "slices.h"

void finder_free(struct finder *f)
{
	discovery_free(f->discovery);
	f->discovery = NULL;
}

static void check_line(const struct finder *f, const char *text)
{
	assert_non_null(f->discovery); /* nothing is reported after discovery_free */
	assert_false(f->inside_start);
	assert_true(*text && !strpbrk(text, "\n\r"));
	assert_null(strstr(text, TOKEN));
}

static void on_updated(void *arg, const struct klb_endpoint *list, unsigned int n)
{
	struct finder *f = arg;

	assert_true(n >= 1 && n <= KLB_MAX_BACKENDS);
	assert_false(f->inside_start);
	f->updates++;
	snprintf(f->list, sizeof(f->list), "%s", list_text(list, n));
	if (f->hook == HOOK_FREE_IN_UPDATED)
		finder_free(f);
}

static void on_result(void *arg, enum discovery_result result, const char *detail)
{
	struct finder *f = arg;

	check_line(f, detail);
	f->results[result]++;
	snprintf(f->detail, sizeof(f->detail), "%s", detail);
	if (f->hook == HOOK_FREE_IN_RESULT)
		finder_free(f);
}

static void on_warning(void *arg, const char *text)
{
	struct finder *f = arg;

	check_line(f, text);
	f->warnings++;
	snprintf(f->warning, sizeof(f->warning), "%s", text);
	if (f->hook == HOOK_FREE_IN_WARNING)
		finder_free(f);
}

static const struct discovery_ops ops = { .updated = on_updated,
					  .result = on_result,
					  .warning = on_warning };

void finder_kubeconfig(struct finder *f, const char *host, const char *cluster, const char *user)
{
	char text[4096];

	snprintf(text, sizeof(text),
		 "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"
		 "clusters:\n- name: c\n  cluster:\n    server: https://%s:%u\n%s"
		 "users:\n- name: u\n  user:\n    {%s}\n",
		 host, f->server.at.port, cluster, user);
	in_dir(f->kubeconfig, "kubeconfig");
	write_file(f->kubeconfig, text);
}

void finder_init(struct finder *f)
{
	*f = (struct finder){ .timing = discovery_timing_default };
	f->base = event_base_new();
	assert_non_null(f->base);
	apiserver_start(&f->server, f->base);
	finder_kubeconfig(f, "127.0.0.1", "    certificate-authority: ca.crt\n", "token: " TOKEN);
	f->timing.backoff_min = 10;
	f->timing.backoff_max = 40;
	f->timing.forbidden = 10;
	f->options.kubeconfig = f->kubeconfig;
	f->options.server = &f->server.at;
	f->frontends[0] = f->server.at;
	f->frontends[1] = endpoint("10.96.0.1:443");
	f->options.frontends = f->frontends;
	f->options.n_frontends = 2;
	f->options.timing = &f->timing;
}

void finder_start(struct finder *f)
{
	struct err e;

	if (discovery_new(f->base, &f->options, &ops, f, &f->discovery, &e))
		fail_msg("%s", e.text);
	f->inside_start = true;
	discovery_start(f->discovery);
	f->inside_start = false;
}

void finder_open(struct finder *f)
{
	finder_init(f);
	finder_start(f);
}

void finder_run(struct finder *f, const unsigned int *counter, unsigned int n)
{
	if (!loop_until(f->base, counter, n))
		fail_msg("a counter stays at %u, wanted %u; last: %s", *counter, n, f->detail);
}

void finder_close(struct finder *f)
{
	finder_free(f);
	while (f->server.ended < f->server.accepted && !f->server.refuse)
		finder_run(f, &f->server.ended, f->server.ended + 1);
	apiserver_stop(&f->server);
	event_base_free(f->base);
	ERR_clear_error();
}

void await_request(struct finder *f, unsigned int n, const char *path)
{
	finder_run(f, &f->server.requests, n);
	assert_int_equal(f->server.requests, n);
	if (strncmp(f->server.path, path, strlen(path)) != 0)
		fail_msg("asked for %s, wanted %s", f->server.path, path);
}

void await_result(struct finder *f, enum discovery_result result, unsigned int n)
{
	finder_run(f, &f->results[result], n);
}

void finder_turn(struct finder *f)
{
	assert_true(event_base_loop(f->base, EVLOOP_ONCE) >= 0);
}

void await_version(struct finder *f, const char *version)
{
	while (strcmp(state_of(f).version, version) != 0)
		finder_turn(f);
}

void send_text(struct finder *f, const char *text)
{
	assert_non_null(f->server.now);
	assert_int_equal(bufferevent_write(f->server.now, text, strlen(text)), 0);
}

void answer(struct finder *f, const char *status, const char *body)
{
	char head[128];

	snprintf(head, sizeof(head), "HTTP/1.1 %s\r\nContent-Length: %zu\r\n\r\n", status,
		 strlen(body));
	send_text(f, head);
	send_text(f, body);
}

void answer_list(struct finder *f, const char *body)
{
	await_request(f, 1, LIST_PATH);
	answer(f, "200 OK", body);
}

void begin_watch(struct finder *f)
{
	send_text(f, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
}

void send_chunk(struct finder *f, const char *text)
{
	char head[32];

	snprintf(head, sizeof(head), "%zx\r\n", strlen(text));
	send_text(f, head);
	send_text(f, text);
	send_text(f, "\r\n");
}

void hang_up(struct finder *f)
{
	assert_non_null(f->server.now);
	bufferevent_free(f->server.now);
	f->server.now = NULL;
	f->server.ended++;
	ERR_clear_error();
}

void finder_watch(struct finder *f)
{
	await_request(f, 1, LIST_PATH "&resourceVersion=0");
	answer(f, "200 OK", ONE);
	await_request(f, 2, LIST_PATH "&watch=true");
	begin_watch(f);
}

struct discovery_state state_of(const struct finder *f)
{
	struct discovery_state s;

	discovery_state(f->discovery, &s);
	return s;
}
