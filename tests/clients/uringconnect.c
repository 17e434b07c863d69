/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * uringconnect ADDRESS PORT: connects by io_uring (IORING_OP_CONNECT, handed to a worker
 * of the kernel with IOSQE_ASYNC), prints "connected" or the errno's name, and keeps the
 * connection until its standard input ends. Exit status: 0 connected, 1 not, 77 no io_uring.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *map(int fd, size_t size, uint64_t offset)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd,
			(off_t)offset);

	if (at == MAP_FAILED) {
		perror("uringconnect: mmap");
		exit(1);
	}
	return at;
}

/* One request, and its result. */
static int run(struct io_uring_sqe *request)
{
	struct io_uring_params p;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqe;
	char *sq, *cq;
	int fd;

	memset(&p, 0, sizeof(p));
	fd = (int)syscall(SYS_io_uring_setup, 4, &p);
	if (fd < 0) {
		perror("uringconnect: io_uring_setup");
		exit(77);
	}
	sq = map(fd, p.sq_off.array + p.sq_entries * sizeof(uint32_t), IORING_OFF_SQ_RING);
	cq = map(fd, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe),
		 IORING_OFF_CQ_RING);
	sqes = map(fd, p.sq_entries * sizeof(*sqes), IORING_OFF_SQES);
	sqes[0] = *request;
	*(uint32_t *)(sq + p.sq_off.array) = 0;
	__atomic_store_n((uint32_t *)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0) {
		perror("uringconnect: io_uring_enter");
		exit(1);
	}
	cqe = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
	return cqe[0].res;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	struct io_uring_sqe sqe;
	char c;
	int fd, r;

	if (argc != 3 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) {
		fputs("usage: uringconnect IPV4 PORT\n", stderr);
		return 2;
	}
	to.sin_port = htons((uint16_t)atoi(argv[2]));
	fd = socket(AF_INET, SOCK_STREAM, 0);
	memset(&sqe, 0, sizeof(sqe));
	sqe.opcode = IORING_OP_CONNECT;
	sqe.flags = IOSQE_ASYNC;
	sqe.fd = fd;
	sqe.addr = (uint64_t)(uintptr_t)&to;
	sqe.off = sizeof(to);
	r = run(&sqe);
	puts(r ? strerrorname_np(-r) : "connected");
	fflush(stdout);
	while (!r && read(STDIN_FILENO, &c, 1) > 0)
		;
	return r ? 1 : 0;
}
