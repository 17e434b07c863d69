/* SPDX-License-Identifier: BSD-2-Clause */
/* Discovery under test with an apiserver beside it, and what it has reported. */
#ifndef KUBELB_TESTS_FINDER_H
#define KUBELB_TESTS_FINDER_H

#include "apiserver.h"
#include "discovery/internal.h"
#include "unit.h"

#define LIST_PATH                                                     \
	"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices" \
	"?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes"
#define TOKEN "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0.c2lnbmF0dXJl"

/* What is called back in a callback. */
enum hook { HOOK_NONE, HOOK_FREE_IN_UPDATED, HOOK_FREE_IN_RESULT, HOOK_FREE_IN_WARNING };

struct finder {
	struct event_base *base;
	struct apiserver server;
	struct discovery_options options;
	struct discovery_timing timing;
	struct klb_endpoint frontends[2];
	char kubeconfig[PATH_SIZE];
	struct discovery *discovery;
	enum hook hook;
	bool inside_start;
	unsigned int updates, warnings, results[DISCOVERY_RESULTS], ticks;
	const char *piece; /* for a test that sends it again and again */
	char list[1024], detail[ERR_TEXT_MAX], warning[ERR_TEXT_MAX];
};

/* What a test changes after it, it changes before finder_start. */
void finder_init(struct finder *f);
void finder_start(struct finder *f);
/* Both. */
void finder_open(struct finder *f);
/* Lets the server's ends of connections see that ours are gone. */
void finder_close(struct finder *f);
/* Discovery alone, as its owner may at any time. */
void finder_free(struct finder *f);

/* host: of the server's URL; cluster and user: further keys. */
void finder_kubeconfig(struct finder *f, const char *host, const char *cluster, const char *user);

/* Runs the event loop until *counter is n or more. */
void finder_run(struct finder *f, const unsigned int *counter, unsigned int n);
/* Until the nth request has come, which must be for what begins with path. */
void await_request(struct finder *f, unsigned int n, const char *path);
void await_result(struct finder *f, enum discovery_result result, unsigned int n);
/* Until the list is of that resourceVersion. */
void await_version(struct finder *f, const char *version);
/* One turn of the event loop, which waits for something to happen. */
void finder_turn(struct finder *f);

/* What the apiserver says, on the connection of the last request. */
void send_text(struct finder *f, const char *text);
void answer(struct finder *f, const char *status, const char *body);
/* To the first request, which must be for the list. */
void answer_list(struct finder *f, const char *body);
void begin_watch(struct finder *f);
void send_chunk(struct finder *f, const char *text);
/* Abruptly, as a process dies. */
void hang_up(struct finder *f);

/* Up to a watch that has begun, having asked for two things. */
void finder_watch(struct finder *f);
struct discovery_state state_of(const struct finder *f);

#endif
