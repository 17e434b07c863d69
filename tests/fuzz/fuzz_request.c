/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whatever the bytes: a request of the shape that the agent looks at, or a status to
 * refuse it with; and never a byte beyond the head.
 */
#include "net/http_request.h"
#include "fuzz.h"

static void check_status(unsigned int status)
{
	require(status == 400 || status == 413 || status == 505);
}

static void check_request(const struct request *q)
{
	bool read_only = q->method == REQUEST_GET || q->method == REQUEST_HEAD;

	require(read_only || q->method == REQUEST_OTHER || q->method == REQUEST_POST);
	require(memchr(q->path, '\0', sizeof(q->path)) != NULL);
	require(!strpbrk(q->path, " \r\n?"));
	require(!(q->body && (q->keep || read_only)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t used = request_length((const char *)data, size);
	struct request q;
	unsigned int status;
	char *head;

	require(used <= size);
	if (!used)
		return 0;
	/* Of just that size, so that a byte too far is noticed. */
	head = malloc(used);
	require(head != NULL);
	memcpy(head, data, used);
	status = request_parse(head, used, &q);
	if (status)
		check_status(status);
	else
		check_request(&q);
	free(head);
	return 0;
}
