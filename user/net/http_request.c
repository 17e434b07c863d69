/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Parses HTTP/1 requests by RFC 9112. There are only a few fixed paths to ask for, so everything
 * unusual is refused. That is most important for bodies: servers and proxies disagree about their
 * length.
 */
#include "net/http_request.h"

#include <string.h>
#include <strings.h>

#include "base/ascii.h"
#include "net/http_header.h"

size_t request_length(const char *text, size_t n)
{
	const char *at = text, *end = text + n;

	/* A bare LF also ends a line (RFC 9112, 2.2): people type requests by hand. */
	while ((at = memchr(at, '\n', (size_t)(end - at)))) {
		at++;
		if (at < end && *at == '\n')
			return (size_t)(at + 1 - text);
		if (end - at > 1 && at[0] == '\r' && at[1] == '\n')
			return (size_t)(at + 2 - text);
	}
	return 0;
}

/* Returns the line at *next without its end, and moves *next to the line that follows. */
static char *take_line(char **next)
{
	char *line = *next, *end = line + strcspn(line, "\n");

	*next = *end ? end + 1 : end;
	if (end > line && end[-1] == '\r')
		end--;
	*end = '\0';
	return line;
}

/* Most important is a bare CR, which some programs take for the end of a line (RFC 9112, 2.2). */
static bool has_control(const char *line)
{
	for (; *line; line++)
		if (ascii_is_control((unsigned char)*line) && *line != '\t')
			return true;
	return false;
}

/* The word at *next; NULL unless exactly one space follows it. */
static char *take_word(char **next)
{
	char *word = *next, *end = strchr(word, ' ');

	if (!end || end == word)
		return NULL;
	*end = '\0';
	*next = end + 1;
	return word;
}

static enum request_method method_of(const char *word)
{
	if (strcmp(word, "GET") == 0)
		return REQUEST_GET;
	if (strcmp(word, "POST") == 0)
		return REQUEST_POST;
	return strcmp(word, "HEAD") == 0 ? REQUEST_HEAD : REQUEST_OTHER;
}

/* "GET /metrics?x HTTP/1.1" */
static unsigned int parse_request_line(char *line, struct request *ret)
{
	char *rest = line, *method, *target;
	size_t length;

	if (has_control(line))
		return 400;
	method = take_word(&rest);
	target = method ? take_word(&rest) : NULL;
	if (!target || strncmp(rest, "HTTP/", 5) != 0)
		return 400;
	if (strcmp(rest, "HTTP/1.1") != 0 && strcmp(rest, "HTTP/1.0") != 0)
		return 505;
	ret->method = method_of(method);
	ret->keep = rest[7] == '1';
	length = strcspn(target, "?");
	if (length >= sizeof(ret->path))
		length = sizeof(ret->path) - 1;
	memcpy(ret->path, target, length);
	ret->path[length] = '\0';
	return 0;
}

static unsigned int parse_header(char *line, struct request *ret)
{
	char *value;

	if (has_control(line) || !header_split(line, &value))
		return 400;
	if (strcasecmp(line, "Transfer-Encoding") == 0 ||
	    (strcasecmp(line, "Content-Length") == 0 && strcmp(value, "0") != 0))
		ret->body = true;
	if (strcasecmp(line, "Connection") == 0 && header_has_token(value, "close"))
		ret->keep = false;
	return 0;
}

/* Bodies are not read, so it is unknown where another request would begin. */
static unsigned int judge_body(struct request *ret)
{
	if (!ret->body)
		return 0;
	ret->keep = false;
	return ret->method == REQUEST_GET || ret->method == REQUEST_HEAD ? 413 : 0;
}

unsigned int request_parse(char *text, size_t n, struct request *ret)
{
	char *next = text, *line;
	unsigned int status;

	if (!n || memchr(text, '\0', n))
		return 400;
	/* This replaces the end of the empty line. */
	text[n - 1] = '\0';
	*ret = (struct request){ .method = REQUEST_OTHER };
	status = parse_request_line(take_line(&next), ret);
	while (!status && *next && strcmp(next, "\r") != 0) {
		line = take_line(&next);
		status = parse_header(line, ret);
	}
	return status ? status : judge_body(ret);
}
