/* SPDX-License-Identifier: BSD-2-Clause */
/* One HTTP/2 session as a client, with libnghttp2. */
#include "net/h2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <nghttp2/nghttp2.h>

#include "base/array.h"
#include "base/clock.h"
#include "base/pace.h"
#include "net/http_header.h"

/* Answers to SETTINGS and PINGs that may wait to be sent. A server that sends more is hostile. */
#define ACKS_MAX 64

/* An answer takes two or three frames, and a server has little else to say. */
static const struct pace_limit frames_limit = { .burst = 1000, .per_s = 200 };

/* A GET. */
struct stream {
	int id; /* 0: free */
	unsigned int status;
	bool cancelled;
};

struct h2 {
	nghttp2_session *session;
	struct bufferevent *bev;
	struct stream streams[H2_STREAMS_MAX];
	/* Each GET ends once; only the last PING's answer counts; the rest is said once. */
	struct h2_event events[H2_STREAMS_MAX + 2];
	unsigned int n_events;
	__u64 ping; /* the number of the last PING */
	bool pinging; /* and it is not answered */
	bool going;
	struct pace frames; /* that have come in */
	bool flooded; /* too many */
};

static struct stream *find(struct h2 *h, int id)
{
	for (unsigned int i = 0; i < H2_STREAMS_MAX; i++)
		if (h->streams[i].id == id)
			return &h->streams[i];
	return NULL;
}

static void put(struct h2 *h, const struct h2_event *event)
{
	if (h->n_events < ARRAY_SIZE(h->events))
		h->events[h->n_events++] = *event;
}

/* --- what comes in ------------------------------------------------------------------- */

/* Of any type: each kind has its flood, which costs nothing to send. */
static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *arg)
{
	struct h2 *h = arg;

	(void)session;
	(void)hd;
	h->flooded = !pace_take(&h->frames, &frames_limit, 1, clock_now_ns());
	return h->flooded ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_length, const uint8_t *value, size_t value_length, uint8_t flags,
		     void *arg)
{
	struct stream *s = find(arg, frame->hd.stream_id);

	(void)session;
	(void)flags;
	/* nghttp2 has checked that a status is three digits (RFC 9110, 15). */
	if (s && name_length == 7 && !memcmp(name, ":status", 7) && value_length == 3)
		s->status = (value[0] - '0') * 100u + (value[1] - '0') * 10u + (value[2] - '0');
	return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *arg)
{
	struct h2 *h = arg;
	struct stream *s = find(h, id);
	struct h2_event event = { .kind = H2_ANSWERED, .stream = id };

	(void)session;
	if (!s || !id)
		return 0;
	event.status = s->status;
	/* After an interim answer (1xx) the final one has to come. */
	if (error != NGHTTP2_NO_ERROR || s->status < 200)
		event.kind = H2_UNANSWERED;
	if (!s->cancelled)
		put(h, &event);
	*s = (struct stream){ 0 };
	return 0;
}

static void on_pong(struct h2 *h, const uint8_t *data)
{
	struct h2_event event = { .kind = H2_PONG };

	memcpy(&event.number, data, sizeof(event.number));
	if (!h->pinging || event.number != h->ping)
		return;
	h->pinging = false;
	put(h, &event);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	const struct h2_event going = { .kind = H2_GOING };
	struct h2 *h = arg;

	(void)session;
	if (frame->hd.type == NGHTTP2_PING && frame->hd.flags & NGHTTP2_FLAG_ACK)
		on_pong(h, frame->ping.opaque_data);
	if (frame->hd.type == NGHTTP2_GOAWAY && !h->going) {
		h->going = true;
		put(h, &going);
	}
	return 0;
}

/* --- what goes out ------------------------------------------------------------------- */

/* Hands over what the session wants to send. */
static int flush(struct h2 *h)
{
	const uint8_t *bytes;
	ssize_t n;

	while ((n = nghttp2_session_mem_send(h->session, &bytes)) > 0)
		if (bufferevent_write(h->bev, bytes, (size_t)n) < 0)
			return -ENOMEM;
	return n < 0 ? -ENOMEM : 0;
}

static nghttp2_nv header(const char *name, const char *value)
{
	return (nghttp2_nv){ .name = (uint8_t *)name,
			     .value = (uint8_t *)value,
			     .namelen = strlen(name),
			     .valuelen = strlen(value) };
}

int h2_get(struct h2 *h, const char *path, const char *authority)
{
	const nghttp2_nv headers[] = {
		header(":method", "GET"),
		header(":scheme", "https"),
		header(":authority", authority),
		header(":path", path),
		header("user-agent", HTTP_USER_AGENT),
		header("accept", "*/*"),
	};
	struct stream *s = find(h, 0);
	int id;

	if (h->going)
		return -ESHUTDOWN;
	if (!s)
		return -EBUSY;
	id = nghttp2_submit_request(h->session, NULL, headers, ARRAY_SIZE(headers), NULL, NULL);
	/* The numbers of a connection's streams run out after 2^30 GETs. */
	if (id == NGHTTP2_ERR_STREAM_ID_NOT_AVAILABLE)
		return -ESHUTDOWN;
	if (id < 0)
		return -ENOMEM;
	*s = (struct stream){ .id = id };
	return flush(h) ? -ENOMEM : id;
}

int h2_cancel(struct h2 *h, int stream)
{
	struct stream *s = stream > 0 ? find(h, stream) : NULL;

	if (!s)
		return 0;
	s->cancelled = true;
	if (nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL))
		return -ENOMEM;
	return flush(h);
}

int h2_ping(struct h2 *h, __u64 number)
{
	uint8_t data[8];

	memcpy(data, &number, sizeof(data));
	if (nghttp2_submit_ping(h->session, NGHTTP2_FLAG_NONE, data))
		return -ENOMEM;
	h->ping = number;
	h->pinging = true;
	return flush(h);
}

/* --- the session ----------------------------------------------------------------------- */

int h2_read(struct h2 *h, const char **ret_why)
{
	struct evbuffer *in = bufferevent_get_input(h->bev);
	struct evbuffer_iovec piece;
	ssize_t n;

	while (evbuffer_peek(in, -1, NULL, &piece, 1) > 0 && piece.iov_len) {
		n = nghttp2_session_mem_recv(h->session, piece.iov_base, piece.iov_len);
		if (n < 0) {
			*ret_why = h->flooded ? "too many frames" : nghttp2_strerror((int)n);
			return -EPROTO;
		}
		evbuffer_drain(in, (size_t)n);
	}
	if (flush(h)) {
		*ret_why = "out of memory";
		return -EPROTO;
	}
	/* It has found a breach of the rules, and has said so to the other side. After GOAWAY the
	 * other side closes when it likes. */
	if (!nghttp2_session_want_read(h->session) && !h->going) {
		*ret_why = "a breach of its rules";
		return -EPROTO;
	}
	return 0;
}

bool h2_next(struct h2 *h, struct h2_event *ret)
{
	if (!h->n_events)
		return false;
	*ret = h->events[0];
	memmove(h->events, h->events + 1, --h->n_events * sizeof(h->events[0]));
	return true;
}

static int make_session(struct h2 *h)
{
	nghttp2_session_callbacks *callbacks = NULL;
	nghttp2_option *option = NULL;
	int r = nghttp2_session_callbacks_new(&callbacks);

	if (!r)
		r = nghttp2_option_new(&option);
	if (!r) {
		nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
		nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
		nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
		nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
		nghttp2_option_set_max_outbound_ack(option, ACKS_MAX);
		r = nghttp2_session_client_new2(&h->session, callbacks, h, option);
	}
	nghttp2_option_del(option);
	nghttp2_session_callbacks_del(callbacks);
	return r ? -ENOMEM : 0;
}

int h2_new(struct bufferevent *bev, struct h2 **ret)
{
	static const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, 16384 },
	};
	struct h2 *h = calloc(1, sizeof(*h));

	if (!h)
		return -ENOMEM;
	h->bev = bev;
	if (make_session(h) ||
	    nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, settings,
				    ARRAY_SIZE(settings)) ||
	    flush(h)) {
		h2_free(h);
		return -ENOMEM;
	}
	*ret = h;
	return 0;
}

void h2_free(struct h2 *h)
{
	if (!h)
		return;
	nghttp2_session_del(h->session);
	free(h);
}
