/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What an apiserver says, a kubeconfig, a cache file: whatever the bytes, what is made
 * of them keeps its promises, or there is one printable line. The first byte chooses.
 */
#include <errno.h>

#include <event2/buffer.h>

#include "net/http_response.h"
#include "discovery/internal.h"
#include "net/endpoint.h"
#include "fuzz.h"

static const struct klb_endpoint frontend = { .addr = { [10] = 255, 255, 10, 96, 0, 1 },
					      .port = 443 };

static void check_error(int r, const struct err *e)
{
	require(r < 0);
	require_line(e, "");
}

static void check_list(const struct klb_endpoint *list, unsigned int n)
{
	unsigned int i;

	require(n <= KLB_MAX_BACKENDS);
	for (i = 0; i < n; i++) {
		require(discovery_usable(&list[i], &frontend, 1));
		require(!i || discovery_compare(&list[i - 1], &list[i]) < 0);
	}
}

static void check_version(const char *version)
{
	require(strlen(version) <= DISCOVERY_VERSION_MAX);
	require(!version[strspn(version, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
					 "0123456789-._")]);
}

static void check_slices(const struct slices *s)
{
	struct slices_merged m;

	require(s->n <= SLICES_MAX);
	slices_merge(s, &frontend, 1, &m);
	check_list(m.list, m.n);
	require(m.total >= m.n);
}

/* A list on the first line, events on those that follow: as over a connection. */
static void fuzz_stream(const char *text, size_t length)
{
	char version[DISCOVERY_VERSION_MAX + 1] = "";
	struct slices s = { 0 };
	struct text t = { 0 };
	enum slices_event event;
	bool listed = false;
	struct err e;
	size_t n;
	const char *line;
	int r;

	require(text_add(&t, text, length, length));
	while ((line = text_line(&t, &n))) {
		if (!listed)
			r = slices_list(&s, line, n, version, &e);
		else
			r = slices_watch(&s, line, n, version, &event, &e);
		if (r)
			check_error(r, &e);
		listed = true;
		check_slices(&s);
		check_version(version);
		text_drop(&t, n + 1);
	}
	text_free(&t);
	slices_clear(&s);
}

static void fuzz_kubeconfig(const char *text, size_t length)
{
	struct credentials *c = NULL;
	struct err e;
	int r = kubeconfig_parse(text, length, "/fuzz/config", &c, &e);

	if (r) {
		check_error(r, &e);
		require(strncmp(e.text, "/fuzz/config", 12) == 0);
		return;
	}
	require(c->port >= 1 && c->port <= 65535);
	require(*c->host && credentials_is_header_text(c->host));
	require(credentials_is_header_text(c->path));
	require(!c->server_name || credentials_is_header_text(c->server_name));
	require(!c->cert.key == !c->key.key);
	require(!c->insecure || !c->ca.key);
	credentials_free(c);
}

static void fuzz_cache(const char *text, size_t length)
{
	struct discovery_cached c;
	struct err e;
	int r = cache_parse("/fuzz/cache", text, length, &frontend, 1, &c, &e);

	if (r) {
		check_error(r, &e);
		return;
	}
	require(c.n >= 1);
	check_list(c.list, c.n);
}

static void fuzz_message(const char *text, size_t length)
{
	char message[256];

	slices_status_message(text, length, "secret", message, sizeof(message));
	require(!strstr(message, "secret"));
}

static bool count(void *arg, const void *bytes, size_t n)
{
	size_t *left = arg;

	(void)bytes;
	require(n && n <= *left);
	*left -= n;
	return true;
}

/* However it is cut into pieces, the same comes out. */
static enum answer_progress read_answer(const char *text, size_t length, size_t piece, size_t limit,
					size_t *ret_content)
{
	enum answer_progress progress = ANSWER_PROGRESS_MORE;
	struct evbuffer *in = evbuffer_new();
	size_t left = limit, at = 0;
	struct answer a;

	answer_init_content(&a, limit, count, &left);
	while (at < length && progress == ANSWER_PROGRESS_MORE) {
		size_t n = length - at < piece ? length - at : piece;

		evbuffer_add(in, text + at, n);
		at += n;
		progress = answer_read(&a, in);
		require(progress != ANSWER_PROGRESS_STEP);
	}
	evbuffer_free(in);
	*ret_content = limit - left;
	return progress;
}

static void fuzz_answer(const char *text, size_t length)
{
	size_t whole, pieces;
	enum answer_progress at_once = read_answer(text, length, length, 4096, &whole);

	require(read_answer(text, length, 3, 4096, &pieces) == at_once);
	require(whole == pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const targets[])(const char *text, size_t length) = {
		fuzz_stream, fuzz_kubeconfig, fuzz_cache, fuzz_message, fuzz_answer,
	};
	/* Its own copy, with nothing behind it, for the sanitizer to watch. */
	char *text;

	if (size < 2)
		return 0;
	text = malloc(size - 1);
	memcpy(text, data + 1, size - 1);
	targets[(uint8_t)(data[0] - '0') % (sizeof(targets) / sizeof(targets[0]))](text, size - 1);
	free(text);
	return 0;
}
