/* SPDX-License-Identifier: BSD-2-Clause */
/* The answers of the agent's HTTP address, from a request to bytes. */
#ifndef KUBELB_HTTP_ANSWER_H
#define KUBELB_HTTP_ANSWER_H

#include <stdbool.h>

#include <linux/types.h>

#include "net/http_request.h"
#include "net/http_server.h"

struct evbuffer;
struct http_answers;

/* ops must outlive the object. NULL without memory. */
struct http_answers *http_answers_new(const struct http_ops *ops, void *arg);
/* NULL is allowed. Answers that are still on their way keep what they need. */
void http_answers_free(struct http_answers *a);

/* The answer to a request. keep: the connection may carry another one. */
void http_answer(struct http_answers *a, const struct request *q, __u64 now_ns,
		 struct evbuffer *out);
/* The answer to what is no request, by the status that request_parse has returned. */
void http_answer_refusal(unsigned int status, struct evbuffer *out);

#endif
