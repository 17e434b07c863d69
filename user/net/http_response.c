/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads HTTP/1.1 answers by RFC 9112. It is strict where a lenient reader could take the end of one
 * answer for the beginning of the next.
 *
 * libevent's evhttp is not used. As of 2.1.12 it closes a socket that it gets connected, and
 * connects one of its own (evhttp_connection_connect_). That socket is not close-on-exec, gets its
 * options only after the SYN has left, and its errno is not reported, so that "refused" and
 * "unreachable" look the same.
 */
#include "net/http_response.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <event2/buffer.h>

#include "net/http_header.h"

/* The most that is read of one answer. */
#define LINES_MAX ((size_t)16 * 1024)
#define BODY_MAX ((size_t)64 * 1024)
/* Larger sizes are cut to this: it is above every limit, and a few of them can be added up. */
#define SIZE_CAP (SIZE_MAX / 32)

static void init(struct answer *a, size_t body_max)
{
	*a = (struct answer){
		.state = ANSWER_AT_STATUS,
		.framing = ANSWER_FRAMING_CLOSE,
		.keep = true,
		.lines_left = LINES_MAX,
		.body_left = body_max,
	};
}

void answer_init(struct answer *a)
{
	init(a, BODY_MAX);
}

void answer_init_content(struct answer *a, size_t body_max, answer_content *content, void *arg)
{
	init(a, body_max);
	a->content = content;
	a->arg = arg;
}

/* Returns the next line, to be freed, or NULL with *why as MORE or BAD. */
static char *take_line(struct answer *a, struct evbuffer *in, enum answer_progress *why)
{
	size_t before = evbuffer_get_length(in);
	size_t length = 0, taken;
	char *line = evbuffer_readln(in, &length, EVBUFFER_EOL_CRLF);

	*why = ANSWER_PROGRESS_BAD;
	if (!line) {
		if (before <= a->lines_left)
			*why = ANSWER_PROGRESS_MORE;
		return NULL;
	}
	taken = before - evbuffer_get_length(in);
	if (taken > a->lines_left || strlen(line) != length) {
		free(line);
		return NULL;
	}
	a->lines_left -= taken;
	return line;
}

/* Whether the bytes so far can become a status line: after garbage there is no reason to wait. */
static bool may_be_http(struct evbuffer *in)
{
	static const char prefix[] = "HTTP/1.";
	char seen[sizeof(prefix) - 1];
	ev_ssize_t n = evbuffer_copyout(in, seen, sizeof(seen));

	return n >= 0 && memcmp(seen, prefix, (size_t)n) == 0;
}

/* "HTTP/1.1 200 OK" */
static enum answer_progress parse_status_line(struct answer *a, const char *s)
{
	unsigned int status = 0;
	int i;

	if (strncmp(s, "HTTP/1.", 7) != 0 || (s[7] != '0' && s[7] != '1') || s[8] != ' ')
		return ANSWER_PROGRESS_BAD;
	if (s[7] == '0')
		a->keep = false;
	for (i = 9; i < 12; i++) {
		if (!isdigit((unsigned char)s[i]))
			return ANSWER_PROGRESS_BAD;
		status = status * 10 + (unsigned int)(s[i] - '0');
	}
	if ((s[12] && s[12] != ' ') || status < 100)
		return ANSWER_PROGRESS_BAD;
	a->status = status;
	a->state = ANSWER_AT_HEADERS;
	return ANSWER_PROGRESS_STEP;
}

/*
 * Parses digits in the given base, and nothing else: strtoul would also accept signs, spaces and
 * prefixes. Larger values become SIZE_CAP.
 */
static bool parse_size(const char *s, size_t length, unsigned int base, size_t *ret)
{
	size_t value = 0, i;

	for (i = 0; i < length; i++) {
		unsigned char c = (unsigned char)s[i];
		unsigned int digit;

		if (isdigit(c))
			digit = c - '0';
		else if (base == 16 && isxdigit(c))
			digit = (unsigned int)tolower(c) - 'a' + 10;
		else
			return false;
		value = value * base + digit;
		if (value > SIZE_CAP)
			value = SIZE_CAP;
	}
	*ret = value;
	return length > 0;
}

static enum answer_progress parse_content_length(struct answer *a, const char *value)
{
	size_t length;

	if (!parse_size(value, strlen(value), 10, &length))
		return ANSWER_PROGRESS_BAD;
	if (a->framing == ANSWER_FRAMING_LENGTH && a->pending != length)
		return ANSWER_PROGRESS_BAD;
	/*
	 * RFC 9112, 6.3: Transfer-Encoding overrides. A sender of both may try request smuggling.
	 */
	if (a->coded) {
		a->keep = false;
		return ANSWER_PROGRESS_STEP;
	}
	a->framing = ANSWER_FRAMING_LENGTH;
	a->pending = length;
	return ANSWER_PROGRESS_STEP;
}

static void parse_transfer_encoding(struct answer *a, const char *value)
{
	if (a->coded || a->framing == ANSWER_FRAMING_LENGTH)
		a->keep = false;
	/* With another coding, or several, the body ends with the connection. */
	a->framing = !a->coded && strcasecmp(value, "chunked") == 0 ? ANSWER_FRAMING_CHUNKED
								    : ANSWER_FRAMING_CLOSE;
	a->coded = true;
}

static enum answer_progress parse_header(struct answer *a, char *line)
{
	char *value;

	if (!header_split(line, &value))
		return ANSWER_PROGRESS_BAD;
	if (strcasecmp(line, "Content-Length") == 0)
		return parse_content_length(a, value);
	if (strcasecmp(line, "Transfer-Encoding") == 0)
		parse_transfer_encoding(a, value);
	else if (strcasecmp(line, "Date") == 0)
		a->date_s = header_date_s(value);
	else if (strcasecmp(line, "Connection") == 0 && header_has_token(value, "close"))
		a->keep = false;
	return ANSWER_PROGRESS_STEP;
}

/*
 * Gives up on a body that is too large, or whose end is not marked. That is fine when only the
 * status matters. Content that matters must be complete, so then it is an error.
 */
static enum answer_progress leave_body(struct answer *a)
{
	a->keep = false;
	return a->content ? ANSWER_PROGRESS_BAD : ANSWER_PROGRESS_DONE;
}

static enum answer_progress leave_large_body(struct answer *a)
{
	a->too_large = true;
	return leave_body(a);
}

/* An interim answer (RFC 9110, 15.2): the final one follows. */
static enum answer_progress expect_another(struct answer *a)
{
	const struct answer before = *a;

	if (a->status == 101)
		return ANSWER_PROGRESS_BAD;
	init(a, before.body_left);
	a->started = true;
	a->lines_left = before.lines_left;
	a->content = before.content;
	a->arg = before.arg;
	return ANSWER_PROGRESS_STEP;
}

/* The empty line after the headers. */
static enum answer_progress begin_body(struct answer *a)
{
	if (a->status < 200)
		return expect_another(a);
	if (a->status == 204 || a->status == 304)
		return ANSWER_PROGRESS_DONE;
	switch (a->framing) {
	case ANSWER_FRAMING_LENGTH:
		if (a->pending > a->body_left)
			return leave_large_body(a);
		a->state = ANSWER_AT_BODY;
		return ANSWER_PROGRESS_STEP;
	case ANSWER_FRAMING_CHUNKED:
		a->state = ANSWER_AT_CHUNK_SIZE;
		return ANSWER_PROGRESS_STEP;
	case ANSWER_FRAMING_CLOSE:
		break;
	}
	return leave_body(a);
}

/* "1a;extension", or "0" before the trailers. */
static enum answer_progress parse_chunk_size(struct answer *a, const char *line)
{
	size_t digits = strspn(line, "0123456789abcdefABCDEF");

	if (line[digits] && !strchr("; \t", line[digits]))
		return ANSWER_PROGRESS_BAD;
	if (!parse_size(line, digits, 16, &a->pending))
		return ANSWER_PROGRESS_BAD;
	if (a->pending > a->body_left)
		return leave_large_body(a);
	a->body_left -= a->pending;
	/* A stream may have any number of chunks, so the limit applies to each of them. */
	if (a->content && a->pending)
		a->lines_left = LINES_MAX;
	a->state = a->pending ? ANSWER_AT_CHUNK : ANSWER_AT_TRAILERS;
	return ANSWER_PROGRESS_STEP;
}

static enum answer_progress parse_line(struct answer *a, char *line)
{
	switch (a->state) {
	case ANSWER_AT_STATUS:
		return parse_status_line(a, line);
	case ANSWER_AT_HEADERS:
		return *line ? parse_header(a, line) : begin_body(a);
	case ANSWER_AT_CHUNK_SIZE:
		return parse_chunk_size(a, line);
	case ANSWER_AT_CHUNK_END:
		a->state = ANSWER_AT_CHUNK_SIZE;
		return *line ? ANSWER_PROGRESS_BAD : ANSWER_PROGRESS_STEP;
	case ANSWER_AT_TRAILERS:
		return *line ? ANSWER_PROGRESS_STEP : ANSWER_PROGRESS_DONE;
	case ANSWER_AT_BODY:
	case ANSWER_AT_CHUNK:
		break;
	}
	return ANSWER_PROGRESS_BAD;
}

/* Passes on, or drops, the first n bytes of in. */
static bool pass_content(struct answer *a, struct evbuffer *in, size_t n)
{
	while (a->content && n) {
		size_t piece = evbuffer_get_contiguous_space(in);
		const void *bytes;

		if (piece > n)
			piece = n;
		bytes = evbuffer_pullup(in, (ev_ssize_t)piece);
		if (!bytes || !a->content(a->arg, bytes, piece))
			return false;
		evbuffer_drain(in, piece);
		n -= piece;
	}
	return evbuffer_drain(in, n) == 0;
}

static enum answer_progress read_content(struct answer *a, struct evbuffer *in)
{
	size_t n = evbuffer_get_length(in);

	if (n > a->pending)
		n = a->pending;
	if (!pass_content(a, in, n))
		return ANSWER_PROGRESS_BAD;
	a->pending -= n;
	if (a->pending)
		return ANSWER_PROGRESS_MORE;
	if (a->state == ANSWER_AT_BODY)
		return ANSWER_PROGRESS_DONE;
	a->state = ANSWER_AT_CHUNK_END;
	return ANSWER_PROGRESS_STEP;
}

static enum answer_progress step(struct answer *a, struct evbuffer *in)
{
	enum answer_progress progress;
	char *line;

	if (a->state == ANSWER_AT_BODY || a->state == ANSWER_AT_CHUNK)
		return read_content(a, in);
	if (a->state == ANSWER_AT_STATUS && !may_be_http(in))
		return ANSWER_PROGRESS_BAD;
	line = take_line(a, in, &progress);
	if (!line)
		return progress;
	progress = parse_line(a, line);
	free(line);
	return progress;
}

enum answer_progress answer_read(struct answer *a, struct evbuffer *in)
{
	enum answer_progress progress;

	if (evbuffer_get_length(in))
		a->started = true;
	do
		progress = step(a, in);
	while (progress == ANSWER_PROGRESS_STEP);
	return progress;
}
