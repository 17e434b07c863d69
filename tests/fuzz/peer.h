/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The other side of TLS connections, in the hands of the fuzzer: an address of the loopback that
 * accepts, and does what a script says. All in one thread: peers_turn moves everything on.
 */
#ifndef KUBELB_TESTS_FUZZ_PEER_H
#define KUBELB_TESTS_FUZZ_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kubelb/abi.h>

struct event_base;
struct peer;

/* What is left of the fuzzer's input. */
struct script {
	const uint8_t *bytes;
	size_t n;
};

/* 0 when there is none left. */
uint8_t script_byte(struct script *s);
/* At most n bytes, of which *ret_n are left. */
const uint8_t *script_bytes(struct script *s, size_t n, size_t *ret_n);

/* Peers that live at a time; the oldest one goes for the next. */
#define PEERS_MAX 4

struct peers {
	struct klb_endpoint at;
	bool h2; /* takes HTTP/2 where it is offered */
	bool tls12;
	size_t flip_at; /* of each connection, this byte that the peer sends ... */
	uint8_t flip; /* ... with these bits turned over */

	/* Private. */
	struct event_base *base;
	int listener;
	unsigned int threads; /* of this process, at first */
	struct peer *list[PEERS_MAX]; /* newest first */
};

/* In PEM: the CA that has signed what the peers show. Valid to the end. */
const char *peers_ca(void);
/* The name of a file with that text, which no disk holds. Valid to the end. */
const char *peers_file(const char *text);

void peers_open(struct peers *p, struct event_base *base);
/*
 * Ends every connection, and refuses new ones. Waits for threads that were begun since: what they
 * have not freed yet would look like a leak.
 */
void peers_close(struct peers *p);

/* One turn of the event loop and of every peer. */
void peers_turn(struct peers *p);

/* Has the newest peer do one thing. */
void peers_act(struct peers *p, struct script *s);
/* Has it send that, in TLS. */
void peers_send(struct peers *p, const void *bytes, size_t n);

#endif
