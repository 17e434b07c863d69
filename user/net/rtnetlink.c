/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests to NETLINK_ROUTE and their answers. */
#include "net/rtnetlink.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A part of a dump is 32 KiB at most (netlink_dump, net/netlink/af_netlink.c). */
#define PART_SIZE 32768

void rtnetlink_begin(struct rtnetlink_request *q, __u16 type, __u16 flags, const void *fixed,
		     size_t size)
{
	memset(q, 0, sizeof(*q));
	q->header.nlmsg_type = type;
	q->header.nlmsg_flags = (__u16)(NLM_F_REQUEST | flags);
	/* A dump has an end; all else has to be acknowledged. */
	if ((flags & NLM_F_DUMP) != NLM_F_DUMP)
		q->header.nlmsg_flags |= NLM_F_ACK;
	q->header.nlmsg_len = (__u32)NLMSG_LENGTH(size);
	memcpy(q->body, fixed, size);
}

void rtnetlink_add(struct rtnetlink_request *q, __u16 type, const void *data, size_t length)
{
	size_t at = NLMSG_ALIGN(q->header.nlmsg_len) - NLMSG_HDRLEN;
	struct rtattr head = { .rta_len = (__u16)RTA_LENGTH(length), .rta_type = type };

	if (at + RTA_SPACE(length) > sizeof(q->body))
		abort();
	memcpy(q->body + at, &head, sizeof(head));
	memcpy(q->body + at + RTA_LENGTH(0), data, length);
	q->header.nlmsg_len = (__u32)(NLMSG_HDRLEN + at + RTA_LENGTH(length));
}

void rtnetlink_add_u32(struct rtnetlink_request *q, __u16 type, __u32 value)
{
	rtnetlink_add(q, type, &value, sizeof(value));
}

int rtnetlink_open(void)
{
	const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	const int on = 1;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0)
		return -errno;
	/* Linux 4.20. Without it a dump holds more than was asked for, and nothing less. */
	setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof(on));
	/* A connected netlink socket receives only from its peer. */
	if (!connect(fd, (const struct sockaddr *)&kernel, sizeof(kernel)))
		return fd;
	close(fd);
	return -errno;
}

/* The result that a message carries, which ends the answer: 0 or negative. */
static int result_of(const struct nlmsghdr *header)
{
	int code = 0;

	/* struct nlmsgerr begins with it, too. */
	if (header->nlmsg_len >= NLMSG_LENGTH(sizeof(code)))
		memcpy(&code, NLMSG_DATA(header), sizeof(code));
	return code < 0 ? code : 0;
}

/* Takes one part of an answer. Returns 1 when there is more, or the result. */
static int take_part(const char *part, size_t length, __u32 seq, rtnetlink_fn take, void *arg)
{
	const struct nlmsghdr *header = (const struct nlmsghdr *)part;

	for (; NLMSG_OK(header, length); header = NLMSG_NEXT(header, length)) {
		int r;

		if (header->nlmsg_seq != seq)
			continue;
		if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR)
			return result_of(header);
		r = take ? take(header->nlmsg_type, NLMSG_DATA(header),
				header->nlmsg_len - NLMSG_HDRLEN, arg)
			 : 0;
		if (r)
			return r;
	}
	return 1;
}

int rtnetlink_ask(int fd, struct rtnetlink_request *q, rtnetlink_fn take, void *arg)
{
	static __thread __u32 sequence;
	char *part = malloc(PART_SIZE);
	ssize_t n;
	int r = 1;

	if (!part)
		return -ENOMEM;
	q->header.nlmsg_seq = ++sequence;
	if (send(fd, q, q->header.nlmsg_len, 0) < 0)
		r = -errno;
	while (r == 1) {
		n = recv(fd, part, PART_SIZE, 0);
		if (n < 0 && errno == EINTR)
			continue;
		r = n < 0 ? -errno : take_part(part, (size_t)n, q->header.nlmsg_seq, take, arg);
	}
	free(part);
	return r;
}

__u32 rtnetlink_u32(const void *fixed, size_t size, size_t length, __u16 type, __u32 missing)
{
	const struct rtattr *a = (const struct rtattr *)((const char *)fixed + NLMSG_ALIGN(size));
	__u32 value = 0;

	if (length < NLMSG_ALIGN(size))
		return missing;
	length -= NLMSG_ALIGN(size);
	for (; RTA_OK(a, length); a = RTA_NEXT(a, length)) {
		if ((a->rta_type & NLA_TYPE_MASK) != type || RTA_PAYLOAD(a) > sizeof(value))
			continue;
		memcpy(&value, RTA_DATA(a), RTA_PAYLOAD(a));
		return value;
	}
	return missing;
}
