/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Discovery with an apiserver that does what it likes, in TLS and around it: lists that are told
 * are sound, every text is one printable line without the token, and nothing is called back that
 * must not be.
 *
 * Input: what the apiserver is, which of its bytes is changed, what a callback does; then steps.
 */
#include <event2/event.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include "discovery/internal.h"
#include "fuzz.h"
#include "net/endpoint.h"
#include "peer.h"

#define TOKEN "c2VjcmV0"

enum hook { HOOK_NONE, HOOK_FREE_IN_UPDATED, HOOK_FREE_IN_RESULT, HOOKS };

struct under_test {
	struct peers peers;
	struct discovery *discovery;
	enum hook hook;
	bool starting;
	unsigned int waits; /* how often it may still wait for a timer */
};

static const struct klb_endpoint frontend = { .addr = { [10] = 255, 255, 10, 96, 0, 1 },
					      .port = 443 };

static void called(struct under_test *t, enum hook hook)
{
	require(t->discovery && !t->starting);
	if (t->hook != hook)
		return;
	discovery_free(t->discovery);
	t->discovery = NULL;
}

static void check_text(const char *text)
{
	struct err line;

	require(strlen(text) < sizeof(line.text));
	snprintf(line.text, sizeof(line.text), "%s", text);
	require_line(&line, "");
	require(!strstr(text, TOKEN));
}

static void on_updated(void *arg, const struct klb_endpoint *list, unsigned int n)
{
	require(n >= 1 && n <= KLB_MAX_BACKENDS);
	for (unsigned int i = 0; i < n; i++) {
		require(discovery_usable(&list[i], &frontend, 1));
		require(!i || discovery_compare(&list[i - 1], &list[i]) < 0);
	}
	called(arg, HOOK_FREE_IN_UPDATED);
}

static void on_result(void *arg, enum discovery_result result, const char *detail)
{
	struct under_test *t = arg;

	require(result < DISCOVERY_RESULTS);
	check_text(detail);
	called(t, HOOK_FREE_IN_RESULT);
}

static void on_warning(void *arg, const char *text)
{
	check_text(text);
	called(arg, HOOK_NONE);
}

/* Made once: the address is given beside it. */
static const char *kubeconfig(void)
{
	static const char *name;
	char ca[8192], text[10000];

	if (name)
		return name;
	EVP_EncodeBlock((unsigned char *)ca, (const unsigned char *)peers_ca(),
			(int)strlen(peers_ca()));
	snprintf(text, sizeof(text),
		 "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"
		 "clusters:\n- name: c\n  cluster:\n    server: https://127.0.0.1:6443\n"
		 "    certificate-authority-data: %s\nusers:\n- name: u\n  user: {token: " TOKEN
		 "}\n",
		 ca);
	name = peers_file(text);
	return name;
}

static void open_discovery(struct under_test *t, struct event_base *base)
{
	static const struct discovery_ops ops = { .updated = on_updated,
						  .result = on_result,
						  .warning = on_warning };
	/* What is waited for comes at once or not at all. */
	static const struct discovery_timing timing = { .connect = 12,
							.answer = 12,
							.line = 5,
							.silence = 12,
							.watch = 1000,
							.relist = 1000,
							.backoff_min = 1,
							.backoff_max = 2,
							.forbidden = 1 };
	const struct discovery_options options = { .kubeconfig = kubeconfig(),
						   .server = &t->peers.at,
						   .frontends = &frontend,
						   .n_frontends = 1,
						   .timing = &timing };
	struct err e;

	require(!discovery_new(base, &options, &ops, t, &t->discovery, &e));
	t->starting = true;
	discovery_start(t->discovery);
	t->starting = false;
}

#define SLICE(address)                                                                          \
	"{\"kind\":\"EndpointSlice\",\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"2\","   \
	"\"labels\":{\"kubernetes.io/service-name\":\"kubernetes\"}},\"addressType\":\"IPv4\"," \
	"\"ports\":[{\"name\":\"https\",\"port\":6443,\"protocol\":\"TCP\"}],"                  \
	"\"endpoints\":[{\"addresses\":[\"" address "\"],\"conditions\":{\"ready\":true}}]}"

static void send_answer(struct under_test *t, uint8_t which)
{
	static const char list[] = "{\"kind\":\"EndpointSliceList\",\"metadata\":{"
				   "\"resourceVersion\":\"42\"},\"items\":[" SLICE("10.0.0.1") "]}";
	static const char event[] = "{\"type\":\"MODIFIED\",\"object\":" SLICE("10.0.0.2") "}\n";
	char text[2048];

	switch (which % 4) {
	case 0:
		snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s",
			 sizeof(list) - 1, list);
		break;
	case 1:
		snprintf(text, sizeof(text),
			 "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
		break;
	case 2:
		snprintf(text, sizeof(text), "%zx\r\n%s\r\n", sizeof(event) - 1, event);
		break;
	default:
		snprintf(text, sizeof(text), "HTTP/1.1 %u No\r\nContent-Length: 0\r\n\r\n",
			 400u + which / 4);
	}
	peers_send(&t->peers, text, strlen(text));
}

static void check_state(const struct under_test *t)
{
	struct discovery_state state;

	discovery_state(t->discovery, &state);
	require(state.n_endpoints <= KLB_MAX_BACKENDS);
	require(strlen(state.version) <= DISCOVERY_VERSION_MAX);
	if (state.error[0])
		check_text(state.error);
}

static void turns(struct under_test *t, unsigned int n)
{
	while (n--)
		peers_turn(&t->peers);
}

static void step(struct under_test *t, struct script *s)
{
	uint8_t what = script_byte(s);

	switch (what % 8) {
	case 0:
	case 1:
	case 2:
		peers_act(&t->peers, s);
		break;
	case 3:
	case 4:
		send_answer(t, script_byte(s));
		break;
	case 5:
		/* A phase or a pause ends. */
		if (t->waits) {
			t->waits--;
			event_base_loop(t->peers.base, EVLOOP_ONCE);
		}
		break;
	default:
		turns(t, 1 + what / 16);
	}
	peers_turn(&t->peers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct script s = { data, size };
	struct event_base *base = event_base_new();
	uint8_t kind = script_byte(&s);
	struct under_test t = { .waits = 6,
				.hook = kind / 4 % 4 % HOOKS,
				.peers = { .tls12 = kind & 2 } };

	t.peers.flip_at = script_byte(&s) * 16u;
	t.peers.flip_at += script_byte(&s) % 16;
	t.peers.flip = kind & 128 ? script_byte(&s) : 0;
	peers_open(&t.peers, base);
	open_discovery(&t, base);
	turns(&t, kind & 64 ? 1 : 12);
	for (unsigned int steps = 0; s.n && t.discovery && steps < 64; steps++) {
		step(&t, &s);
		if (t.discovery)
			check_state(&t);
	}
	discovery_free(t.discovery);
	t.discovery = NULL;
	peers_close(&t.peers);
	/* What libevent frees later. */
	event_base_loop(base, EVLOOP_NONBLOCK);
	event_base_free(base);
	require(ERR_peek_error() == 0);
	return 0;
}
