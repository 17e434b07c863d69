/* SPDX-License-Identifier: BSD-2-Clause */
/* Asks the agent for a page, by HTTP/1.0, and looks whether it is the agent who answers. */
#include "ctl/ask.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "host/port_owner.h"
#include "net/endpoint.h"

#define WAIT_S 2
/* Longer than any answer that is one line. */
#define ANSWER_MIN ((size_t)1024)
/* Longer than the list of as many connections as a relay may have. */
#define BODY_MAX ((size_t)512 << 20)

bool ask_finds_impostor(const struct config *cfg, char *text)
{
	char name[PORT_OWNER_MAX], address[ENDPOINT_TEXT_MAX];
	struct port_owner who;

	/* The agent needs to be root, and where root is another user it is that one. */
	if (!cfg->http_enabled || !port_owner_find(&cfg->http, &who) || who.uid == 0 ||
	    who.uid == geteuid())
		return false;
	snprintf(text, ERR_TEXT_MAX,
		 "%s listens on %s: /metrics and /healthz there are not the agent's",
		 port_owner_name(&who, name), endpoint_format(&cfg->http, address));
	return true;
}

/* socket: the path of a Unix socket; NULL: cfg's address. */
static socklen_t address_of(const struct config *cfg, const char *socket,
			    struct sockaddr_storage *ret)
{
	struct sockaddr_un *sun = (struct sockaddr_un *)ret;

	if (!socket)
		return endpoint_to_sockaddr(&cfg->http, ret);
	*sun = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(sun->sun_path, sizeof(sun->sun_path), "%s", socket);
	return sizeof(*sun);
}

/* Each step takes WAIT_S at the most. */
static int dial(const struct config *cfg, const char *path)
{
	const struct timeval limit = { .tv_sec = WAIT_S };
	struct sockaddr_storage ss;
	socklen_t length = address_of(cfg, path, &ss);
	int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int code;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (!connect(fd, (const struct sockaddr *)&ss, length))
		return fd;
	code = errno == EINPROGRESS ? ETIMEDOUT : errno;
	close(fd);
	return err_negative(code);
}

/* An answer in the making. */
struct answer {
	char *text;
	size_t length, size, max;
};

static int grow(struct answer *a)
{
	size_t size = a->size ? 2 * a->size : ANSWER_MIN;
	char *text;

	if (a->text && a->length + 1 < a->size)
		return 0;
	if (a->size >= a->max)
		return -EFBIG;
	text = realloc(a->text, size);
	if (!text)
		return -ENOMEM;
	a->text = text;
	a->size = size;
	return 0;
}

/* Until the other side closes. Whoever it is, it ends in time. */
static int exchange(int fd, const char *method, const char *path, struct answer *a)
{
	__u64 limit_ns = clock_now_ns() + WAIT_S * NS_PER_S;
	ssize_t n;
	int r;

	if (dprintf(fd, "%s %s HTTP/1.0\r\nHost: localhost\r\n\r\n", method, path) < 0)
		return err_negative(errno);
	do {
		r = grow(a);
		if (r)
			return r;
		n = recv(fd, a->text + a->length, a->size - 1 - a->length, 0);
		a->length += n > 0 ? (size_t)n : 0;
	} while (n > 0 && clock_now_ns() < limit_ns);
	a->text[a->length] = '\0';
	if (n < 0)
		return errno == EAGAIN ? -ETIMEDOUT : err_negative(errno);
	return n ? -ETIMEDOUT : 0;
}

/* Takes the status and the body out of what has come. */
static int parse(struct answer *a, struct ask_body *ret)
{
	const char *body = a->text ? strstr(a->text, "\r\n\r\n") : NULL;

	if (!body || strncmp(a->text, "HTTP/1.", 7) != 0 || a->length < 9)
		return -EPROTO;
	body += 4;
	ret->status = (unsigned int)strtoul(a->text + 9, NULL, 10);
	ret->length = a->length - (size_t)(body - a->text);
	memmove(a->text, body, ret->length + 1);
	ret->text = a->text;
	return 0;
}

/* socket: as for address_of. */
static int ask_at(const struct config *cfg, const char *socket, const char *method,
		  const char *path, size_t max, struct ask_body *ret, struct err *e)
{
	char at[ENDPOINT_TEXT_MAX];
	struct answer a = { .max = max };
	struct err who;
	int r, fd;

	if (!socket && !cfg->http_enabled)
		return err_set(e, ENOENT, "%s: http is off, so the agent cannot be asked",
			       cfg->source);
	if (!socket && ask_finds_impostor(cfg, who.text))
		return err_set(e, EPERM, "%s", who.text);
	fd = dial(cfg, socket);
	r = fd < 0 ? fd : exchange(fd, method, path, &a);
	if (fd >= 0)
		close(fd);
	if (!r)
		r = parse(&a, ret);
	if (!r)
		return 0;
	free(a.text);
	err_set(e, -r, "the agent does not answer at %s: %s",
		socket ? socket : endpoint_format(&cfg->http, at), strerror(-r));
	return r;
}

int ask_body(const struct config *cfg, enum ask_how how, const char *path, struct ask_body *ret,
	     struct err *e)
{
	const char *socket = cfg->http_socket ? cfg->http_socket : CONFIG_HTTP_SOCKET_DEFAULT;
	const char *method = how == ASK_ORDER ? "POST" : "GET";
	bool anywhere = how == ASK_PAGE && !cfg->http_socket;
	int r;

	if (anywhere && access(socket, W_OK))
		return ask_at(cfg, NULL, method, path, BODY_MAX, ret, e);
	r = ask_at(cfg, socket, method, path, BODY_MAX, ret, e);
	/* A relaying agent that was killed has left it, and this one does not relay. */
	if (anywhere && r == -ECONNREFUSED)
		r = ask_at(cfg, NULL, method, path, BODY_MAX, ret, e);
	return r;
}

int ask_agent(const struct config *cfg, const char *path, struct ask_answer *ret, struct err *e)
{
	struct ask_body body = { 0 };
	int r = ask_at(cfg, cfg->http_socket, "GET", path, ANSWER_MIN, &body, e);

	if (r)
		return r;
	ret->status = body.status;
	snprintf(ret->line, sizeof(ret->line), "%.*s", (int)strcspn(body.text, "\r\n"), body.text);
	err_make_printable(ret->line);
	free(body.text);
	return 0;
}
