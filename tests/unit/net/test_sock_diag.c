/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ending sockets: real ones, on loopback. Takes CAP_NET_ADMIN, and CAP_SYS_ADMIN for
 * other network namespaces. What no kernel at hand would answer is put into its mouth.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "balance/names.h"
#include "net/endpoint.h"
#include "net/netns.h"
#include "net/sock_diag.h"
#include "unit.h"

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif

/* --- the kernel's voice --------------------------------------------------------------- */

ssize_t __real_recv(int fd, void *buf, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *buf, size_t size, int flags);

static int fake_error; /* 0: the kernel speaks for itself */
static int fake_after; /* so many answers are its own before */

ssize_t __wrap_recv(int fd, void *buf, size_t size, int flags)
{
	ssize_t n = __real_recv(fd, buf, size, flags);
	struct nlmsghdr *header = buf;
	struct nlmsgerr *error = NLMSG_DATA(header);

	if (!fake_error || n < (ssize_t)sizeof(*header) || fake_after-- > 0)
		return n;
	assert_true(size >= NLMSG_LENGTH(sizeof(*error)));
	header->nlmsg_type = NLMSG_ERROR;
	header->nlmsg_len = NLMSG_LENGTH(sizeof(*error));
	error->error = fake_error;
	return (ssize_t)header->nlmsg_len;
}

/* --- real connections ------------------------------------------------------------------- */

struct pair {
	int listener, client, server;
	struct klb_connection c; /* as a list would describe client */
};

static void address(int family, const char *text, struct sockaddr_storage *ret, socklen_t *length)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };

	memset(ret, 0, sizeof(*ret));
	*length = family == AF_INET ? sizeof(in) : sizeof(in6);
	if (family == AF_INET) {
		assert_int_equal(inet_pton(AF_INET, text, &in.sin_addr), 1);
		memcpy(ret, &in, sizeof(in));
	} else {
		assert_int_equal(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
		memcpy(ret, &in6, sizeof(in6));
	}
}

static void describe(struct pair *p)
{
	struct sockaddr_storage ss;
	socklen_t length = sizeof(ss);

	assert_int_equal(getsockname(p->client, (struct sockaddr *)&ss, &length), 0);
	assert_int_equal(endpoint_from_sockaddr((struct sockaddr *)&ss, &p->c.local), 0);
	length = sizeof(ss);
	assert_int_equal(getpeername(p->client, (struct sockaddr *)&ss, &length), 0);
	assert_int_equal(endpoint_from_sockaddr((struct sockaddr *)&ss, &p->c.record.backend), 0);
	length = sizeof(p->c.cookie);
	assert_int_equal(getsockopt(p->client, SOL_SOCKET, SO_COOKIE, &p->c.cookie, &length), 0);
	assert_int_equal(netns_own(&p->c.netns), 0);
}

/* device: to bind the client to; NULL for none. */
static void pair_open(struct pair *p, int family, const char *text, const char *device)
{
	struct sockaddr_storage ss;
	socklen_t length;
	int off = 0;

	memset(p, 0, sizeof(*p));
	p->listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	p->client = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(p->listener >= 0 && p->client >= 0);
	if (family == AF_INET6) {
		setsockopt(p->listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
		setsockopt(p->client, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	}
	if (device) {
		assert_int_equal(setsockopt(p->client, SOL_SOCKET, SO_BINDTODEVICE, device,
					    (socklen_t)strlen(device)),
				 0);
		p->c.bound_if = if_nametoindex(device);
	}
	address(family, text, &ss, &length);
	assert_int_equal(bind(p->listener, (struct sockaddr *)&ss, length), 0);
	assert_int_equal(listen(p->listener, 1), 0);
	assert_int_equal(getsockname(p->listener, (struct sockaddr *)&ss, &length), 0);
	assert_int_equal(connect(p->client, (struct sockaddr *)&ss, length), 0);
	p->server = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(p->server >= 0);
	describe(p);
}

static void pair_close(struct pair *p)
{
	close(p->client);
	close(p->server);
	close(p->listener);
}

static void assert_works(const struct pair *p)
{
	char byte = 'x';

	assert_int_equal(send(p->client, &byte, 1, MSG_NOSIGNAL), 1);
	assert_int_equal(read(p->server, &byte, 1), 1);
	assert_int_equal(send(p->server, &byte, 1, MSG_NOSIGNAL), 1);
	assert_int_equal(read(p->client, &byte, 1), 1);
}

static void assert_ended(const struct pair *p)
{
	char byte;

	assert_int_equal(read(p->client, &byte, 1), -1);
	assert_int_equal(errno, ECONNABORTED);
	/* The peer gets a RST. */
	assert_int_equal(read(p->server, &byte, 1), -1);
	assert_int_equal(errno, ECONNRESET);
}

/* --- the tests -------------------------------------------------------------------------- */

static struct sock_diag *open_diag(void)
{
	struct sock_diag *d = NULL;
	struct err e = { "" };

	if (sock_diag_open(&d, &e) || sock_diag_can_destroy(d, &e))
		fail_msg("sock_diag: %s", e.text);
	return d;
}

static void ends_each_kind(void **state)
{
	static const struct {
		int family;
		const char *address, *device;
	} kinds[] = {
		{ AF_INET, "127.0.0.1", NULL },
		{ AF_INET6, "::1", NULL },
		{ AF_INET6, "::ffff:127.0.0.1", NULL },
		{ AF_INET, "127.0.0.1", "lo" },
		{ AF_INET6, "::1", "lo" },
		{ AF_INET6, "::ffff:127.0.0.1", "lo" },
	};
	struct sock_diag *s = open_diag();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct pair p, beside;
		struct err e = { "" };

		pair_open(&p, kinds[i].family, kinds[i].address, kinds[i].device);
		pair_open(&beside, kinds[i].family, kinds[i].address, NULL);
		assert_works(&p);
		if (sock_diag_destroy(s, &p.c, &e))
			fail_msg("%s on %s: %s", kinds[i].address,
				 kinds[i].device ? kinds[i].device : "any", e.text);
		assert_ended(&p);
		assert_works(&beside);
		assert_int_equal(sock_diag_destroy(s, &p.c, &e), -ENOENT);
		assert_string_equal(e.text, "");
		pair_close(&p);
		pair_close(&beside);
	}
	sock_diag_close(s);
}

/* Same addresses and ports, but not the socket that was meant. */
static void spares_a_new_socket_on_the_same_ports(void **state)
{
	struct sock_diag *s = open_diag();
	struct err e = { "" };
	struct pair p;

	(void)state;
	pair_open(&p, AF_INET, "127.0.0.1", NULL);
	p.c.cookie++;
	assert_int_equal(sock_diag_destroy(s, &p.c, &e), -ENOENT);
	p.c.cookie += 1ULL << 32;
	assert_int_equal(sock_diag_destroy(s, &p.c, &e), -ENOENT);
	assert_works(&p);
	p.c.cookie -= (1ULL << 32) + 1;
	/* Another socket with its cookie: the server's end is not what is named. */
	p.c.local.port++;
	assert_int_equal(sock_diag_destroy(s, &p.c, &e), -ENOENT);
	assert_works(&p);
	p.c.local.port--;
	assert_int_equal(sock_diag_destroy(s, &p.c, &e), 0);
	assert_ended(&p);
	pair_close(&p);
	sock_diag_close(s);
}

static void loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	request.ifr_flags = IFF_UP;
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &request), 0);
	close(fd);
}

static ino_t namespace(void)
{
	struct stat st;

	assert_int_equal(stat("/proc/thread-self/ns/net", &st), 0);
	return st.st_ino;
}

/* A connection in a namespace of its own, and a process that lives there; this thread
 * is back in its own. Ends with the pipe. */
static pid_t pair_elsewhere(struct pair *p, int *ret_pipe)
{
	int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), ends[2];
	pid_t child;

	assert_true(home >= 0);
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	loopback_up();
	pair_open(p, AF_INET, "127.0.0.1", NULL);
	child = fork();
	if (!child) {
		char byte;

		close(ends[1]);
		_exit(read(ends[0], &byte, 1) != 0);
	}
	assert_true(child > 0);
	close(ends[0]);
	*ret_pipe = ends[1];
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	close(home);
	return child;
}

static void reaches_other_namespaces(void **state)
{
	struct sock_diag *s = open_diag();
	ino_t home = namespace();

	(void)state;
	/* The record names a process that lives there, none, or one that lives elsewhere. */
	for (int hint = 0; hint < 3; hint++) {
		struct err e = { "" };
		struct pair p;
		int end, status;
		pid_t child = pair_elsewhere(&p, &end);

		assert_works(&p);
		p.c.record.pid = hint == 0 ? (__u32)child : hint == 1 ? 0 : (__u32)getpid();
		if (sock_diag_destroy(s, &p.c, &e))
			fail_msg("hint %d: %s", hint, e.text);
		assert_ended(&p);
		assert_int_equal(sock_diag_destroy(s, &p.c, &e), -ENOENT);
		assert_int_equal(namespace(), home);
		close(end);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, 0);
		pair_close(&p);
	}
	sock_diag_close(s);
}

static void says_when_a_namespace_is_not_found(void **state)
{
	struct sock_diag *s = open_diag();
	ino_t home = namespace();
	struct pair p;

	(void)state;
	pair_open(&p, AF_INET, "127.0.0.1", NULL);
	p.c.netns = 1ULL << 60;
	for (int i = 0; i < 2; i++) {
		struct err e = { "" };

		assert_int_equal(sock_diag_destroy(s, &p.c, &e), -ESRCH);
		assert_non_null(strstr(e.text, "namespace"));
	}
	assert_int_equal(namespace(), home);
	assert_works(&p);
	pair_close(&p);
	sock_diag_close(s);
}

static void leaks_no_descriptor(void **state)
{
	int before, after, end;
	struct sock_diag *s;
	struct err e;
	struct pair p;
	pid_t child;

	(void)state;
	before = dup(0);
	close(before);
	s = open_diag();
	child = pair_elsewhere(&p, &end);
	assert_int_equal(sock_diag_destroy(s, &p.c, &e), 0);
	p.c.netns = 1ULL << 60;
	assert_int_equal(sock_diag_destroy(s, &p.c, &e), -ESRCH);
	close(end);
	assert_int_equal(waitpid(child, NULL, 0), child);
	pair_close(&p);
	sock_diag_close(s);
	after = dup(0);
	close(after);
	assert_int_equal(before, after);
	sock_diag_close(NULL);
}

static void names_what_the_kernel_lacks(void **state)
{
	static const struct {
		int error, after, want;
		const char *word;
	} cases[] = {
		{ -ENOENT, 0, -EOPNOTSUPP, "CONFIG_INET_TCP_DIAG" },
		{ -EOPNOTSUPP, 1, -EOPNOTSUPP, "CONFIG_INET_DIAG_DESTROY" },
		{ -EINVAL, 0, -EINVAL, "Invalid argument" },
		{ -EPERM, 1, -EPERM, "not permitted" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct sock_diag *s = NULL;
		struct err e = { "" };
		int r;

		assert_int_equal(sock_diag_open(&s, &e), 0);
		fake_error = cases[i].error;
		fake_after = cases[i].after;
		r = sock_diag_can_destroy(s, &e);
		fake_error = 0;
		assert_int_equal(r, cases[i].want);
		sock_diag_close(s);
		if (!strcasestr(e.text, cases[i].word))
			fail_msg("'%s' is not in: %s", cases[i].word, e.text);
	}
}

static void says_why_one_was_not_ended(void **state)
{
	struct sock_diag *s = open_diag();
	struct err e = { "" };
	struct klb_connection c;
	struct pair p;

	(void)state;
	pair_open(&p, AF_INET, "127.0.0.1", NULL);
	c = p.c;
	c.cookie++;
	fake_error = -EPERM;
	fake_after = 0;
	assert_int_equal(sock_diag_destroy(s, &c, &e), -EPERM);
	fake_error = 0;
	assert_non_null(strstr(e.text, "CAP_NET_ADMIN"));
	assert_works(&p);
	pair_close(&p);
	sock_diag_close(s);
}

/* A second socket that says what the kernel would. */
static int forge(unsigned int port)
{
	struct sockaddr_nl to = { .nl_family = AF_NETLINK, .nl_pid = port };
	struct nlmsghdr done = { .nlmsg_len = sizeof(done), .nlmsg_type = NLMSG_DONE };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	int code = 0;

	assert_true(fd >= 0);
	if (sendto(fd, &done, sizeof(done), 0, (struct sockaddr *)&to, sizeof(to)) < 0)
		code = errno;
	close(fd);
	return code;
}

static void hears_the_kernel_alone(void **state)
{
	struct sockaddr_nl name = { .nl_family = AF_NETLINK };
	socklen_t length = sizeof(name);
	struct sock_diag *s;
	int fd = dup(0);

	(void)state;
	/* The next descriptor is the socket's. */
	close(fd);
	s = open_diag();
	assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &length), 0);
	assert_int_not_equal(name.nl_pid, 0);
	assert_int_equal(forge(name.nl_pid), ECONNREFUSED);
	sock_diag_close(s);
	/* The same to one that is not connected arrives. */
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
	assert_int_equal(forge(name.nl_pid), 0);
	close(fd);
}

/* --- whose it is ----------------------------------------------------------------------- */

static void names_the_user_of_a_client(void **state)
{
	static const struct {
		int family;
		const char *text;
	} cases[] = { { AF_INET, "127.0.0.1" },
		      { AF_INET6, "::1" },
		      { AF_INET6, "::ffff:127.0.0.1" } };
	struct sock_diag *d = NULL;
	struct err e;

	(void)state;
	assert_int_equal(sock_diag_open(&d, &e), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct pair p;
		__u32 uid = 7;

		pair_open(&p, cases[i].family, cases[i].text, NULL);
		/* A socket keeps the user who has it now. */
		assert_int_equal(fchown(p.client, 65534, (gid_t)-1), 0);
		assert_int_equal(sock_diag_owner(d, &p.c.local, &p.c.record.backend, &uid), 0);
		assert_int_equal(uid, 65534);
		/* Nobody's: its process has closed it. */
		close(p.client);
		p.client = dup(p.server);
		uid = 7;
		assert_int_equal(sock_diag_owner(d, &p.c.local, &p.c.record.backend, &uid),
				 -ENOENT);
		assert_int_equal(uid, 7);
		pair_close(&p);
	}
	sock_diag_close(d);
}

/* In TIME_WAIT the kernel says user 0 for everybody's. */
static void nobody_is_root_in_time_wait(void **state)
{
	struct sock_diag *d = NULL;
	struct pair p;
	struct err e;
	__u32 uid;

	(void)state;
	assert_int_equal(sock_diag_open(&d, &e), 0);
	pair_open(&p, AF_INET, "127.0.0.1", NULL);
	close(p.client);
	close(p.server);
	assert_int_equal(sock_diag_owner(d, &p.c.local, &p.c.record.backend, &uid), -ENOENT);
	close(p.listener);
	sock_diag_close(d);
}

static void names_the_user_of_a_listener(void **state)
{
	struct sock_diag_listener who;
	struct klb_endpoint all, at;
	struct sock_diag *d = NULL;
	struct pair p;
	struct err e;

	(void)state;
	assert_int_equal(sock_diag_open(&d, &e), 0);
	pair_open(&p, AF_INET6, "::", NULL);
	at = p.c.record.backend;
	assert_int_equal(fchown(p.listener, 65534, (gid_t)-1), 0);
	assert_int_equal(sock_diag_find_listener(d, &at, &who), 0);
	assert_int_equal(who.uid, 65534);
	assert_int_not_equal(who.inode, 0);
	all = endpoint("0.0.0.0:1");
	all.port = at.port;
	assert_int_equal(sock_diag_find_listener(d, &all, &who), 0);
	pair_close(&p);
	assert_int_equal(sock_diag_find_listener(d, &at, &who), -ENOENT);
	sock_diag_close(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ends_each_kind),
		cmocka_unit_test(spares_a_new_socket_on_the_same_ports),
		cmocka_unit_test(reaches_other_namespaces),
		cmocka_unit_test(says_when_a_namespace_is_not_found),
		cmocka_unit_test(leaks_no_descriptor),
		cmocka_unit_test(names_what_the_kernel_lacks),
		cmocka_unit_test(says_why_one_was_not_ended),
		cmocka_unit_test(hears_the_kernel_alone),
		LEAVES_NOTHING(names_the_user_of_a_client),
		LEAVES_NOTHING(nobody_is_root_in_time_wait),
		LEAVES_NOTHING(names_the_user_of_a_listener),
	};

	return cmocka_run_group_tests_name("sock_diag", tests, NULL, NULL);
}
