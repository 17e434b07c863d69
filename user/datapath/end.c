/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ends connections as their backend's own kernel would: by a reset with the right sequence number,
 * and by SOCK_DESTROY where that does not work.
 */
#include "datapath/internal.h"

#include <errno.h>
#include <time.h>

#include "net/reset.h"

/*
 * How often a reset is sent. Data that arrives between the look and the reset makes it a segment
 * with an old number, which ends nothing (RFC 5961). The reset waits while the owner holds the
 * socket's lock.
 */
#define ROUNDS 3
#define FIRST_WAIT_MS 1

enum step { STEP_SENT, STEP_DESTROY, STEP_DONE };

struct ender {
	const struct datapath *dp;
	struct sock_diag *diag;
};

/* receive: what the client expects next. acknowledged, sent: its own, up to where. */
struct numbers {
	__u32 receive, acknowledged, sent;
};

static bool find_numbers(const struct klb_socket *rec, const struct sock_diag_progress *now,
			 struct numbers *ret)
{
	bool syn_sent = sock_diag_is_syn_sent(now->tcp_state);

	if (!(rec->flags & KLB_SOCKET_SEQUENCES) || (!syn_sent && !rec->established_ns))
		return false;
	*ret = (struct numbers){
		/* Nothing is expected yet, and the acknowledgement alone counts (RFC 9293, 3.5.2).
		 */
		.receive = syn_sent ? 0 : rec->receive_base + (__u32)now->received,
		/* The SYN is counted as a byte. */
		.acknowledged = rec->send_base + (syn_sent ? 1 : (__u32)now->acknowledged),
		.sent = rec->send_base + 1 + (__u32)now->sent +
			sock_diag_has_sent_fin(now->tcp_state),
	};
	return true;
}

/* Lets klb_sockops know that the reset is not the backend's. */
static int mark(const struct ender *en, __u64 cookie)
{
	__u32 index = cookie % KLB_ENDING_SLOTS;

	return bpf_map_update_elem(en->dp->fds[MAP_ENDING], &index, &cookie, BPF_ANY) ? -errno : 0;
}

static int send_reset(const struct ender *en, const struct klb_connection *c,
		      const struct reset *reset)
{
	int fd = sock_diag_tcp_socket(en->diag, c);

	return fd < 0 ? fd : reset_send(fd, reset);
}

/*
 * The backend runs in the client's own network namespace, where its socket has the addresses that
 * the reset needs. When that socket is destroyed, the kernel sends the reset.
 */
static int destroy_backend_side(const struct ender *en, const struct klb_connection *c)
{
	struct klb_connection other = *c;
	struct sock_diag_progress now;
	int r;

	other.local = c->record.backend;
	other.record.backend = c->local;
	other.bound_if = 0;
	other.cookie = SOCK_DIAG_ANY_COOKIE;
	r = sock_diag_look(en->diag, &other, &now);
	if (r)
		return r;
	if (!sock_diag_is_connection(now.tcp_state))
		return -ENOENT;
	other.cookie = now.cookie;
	return sock_diag_destroy(en->diag, &other, NULL);
}

static int reset_client(const struct ender *en, const struct klb_connection *c,
			const struct numbers *n)
{
	const struct reset reset = {
		.from = c->record.backend, .to = c->local, .seq = n->receive, .ack = n->acknowledged
	};
	int r = mark(en, c->cookie);

	if (!r)
		r = send_reset(en, c, &reset);
	return r == -EADDRNOTAVAIL ? destroy_backend_side(en, c) : r;
}

/* The client's socket has gone without a word to its peer. */
static void tell_backend(const struct ender *en, const struct klb_connection *c,
			 const struct numbers *n)
{
	const struct reset reset = {
		.from = c->local, .to = c->record.backend, .seq = n->sent, .ack = n->receive
	};

	send_reset(en, c, &reset);
}

/* Whether the reset has ended the connection: its socket is not to be found any more. */
static bool has_ended(const struct ender *en, struct datapath_ending *x, const struct numbers *sent)
{
	struct sock_diag_progress now;

	if (sock_diag_look(en->diag, x->connection, &now) != -ENOENT)
		return false;
	x->result = 0;
	x->reset = true;
	if (x->tell_backend && sent->receive)
		tell_backend(en, x->connection, sent);
	return true;
}

/*
 * Whether the connection is not to be ended as it is now: data comes, or its connect was under way
 * when it was listed and is not any more, so that the record has no numbers of it.
 */
static bool is_spared(const struct datapath_ending *x, const struct sock_diag_progress *now)
{
	return x->spare_ms && (now->last_data_ms < x->spare_ms ||
			       (sock_diag_is_syn_sent(x->connection->tcp_state) &&
				!sock_diag_is_syn_sent(now->tcp_state)));
}

/* Sends a reset if the connection is still there. sent: with which numbers. */
static enum step send_one(const struct ender *en, struct datapath_ending *x, struct numbers *sent)
{
	struct sock_diag_progress now;
	int r = sock_diag_look(en->diag, x->connection, &now);

	if (!r && is_spared(x, &now))
		r = -EAGAIN;
	if (r == -ENOENT || r == -EAGAIN) {
		x->result = r;
		return STEP_DONE;
	}
	if (r || !find_numbers(&x->connection->record, &now, sent) ||
	    reset_client(en, x->connection, sent))
		return STEP_DESTROY;
	return has_ended(en, x, sent) ? STEP_DONE : STEP_SENT;
}

static void wait_ms(unsigned int ms)
{
	const struct timespec t = { .tv_nsec = ms * 1000000L };

	nanosleep(&t, NULL);
}

/* Returns how many are still under way. */
static unsigned int send_again(const struct ender *en, struct datapath_ending *list,
			       enum step *steps, struct numbers *sent, unsigned int n, bool last)
{
	unsigned int under_way = 0;

	for (unsigned int i = 0; i < n; i++) {
		if (steps[i] != STEP_SENT)
			continue;
		if (has_ended(en, &list[i], &sent[i]))
			steps[i] = STEP_DONE;
		else
			steps[i] = last ? STEP_DESTROY : send_one(en, &list[i], &sent[i]);
		under_way += steps[i] == STEP_SENT;
	}
	return under_way;
}

static void reset_all(const struct ender *en, struct datapath_ending *list, enum step *steps,
		      unsigned int n)
{
	struct numbers sent[DATAPATH_END_MAX] = { 0 };
	unsigned int under_way = 0;

	for (unsigned int i = 0; i < n; i++) {
		steps[i] = send_one(en, &list[i], &sent[i]);
		under_way += steps[i] == STEP_SENT;
	}
	for (int round = 1; under_way && round <= ROUNDS; round++) {
		wait_ms(FIRST_WAIT_MS << (round - 1));
		under_way = send_again(en, list, steps, sent, n, round == ROUNDS);
	}
}

void datapath_end(const struct datapath *dp, struct sock_diag *diag, struct datapath_ending *list,
		  unsigned int n)
{
	const struct ender en = { .dp = dp, .diag = diag };
	enum step steps[DATAPATH_END_MAX];

	reset_all(&en, list, steps, n);
	for (unsigned int i = 0; i < n; i++)
		if (steps[i] == STEP_DESTROY)
			list[i].result = sock_diag_destroy(diag, list[i].connection, &list[i].why);
}
