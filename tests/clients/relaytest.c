/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The relay alone, on one port, for benchmarks:
 *
 *     relaytest [-t THREADS] [-n CONNECTIONS] LISTEN BACKEND...
 *
 * Runs until SIGTERM or SIGINT. On SIGUSR1 it prints its counts.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/log.h"
#include "net/endpoint.h"
#include "relay/relay.h"

/* What fails here ends the program: nobody is there to go on with less. */
static void check(int r, const struct err *e)
{
	if (!r)
		return;
	log_line("%s", e->text);
	exit(CLI_FAILED);
}

static struct klb_endpoint parse(const char *text)
{
	struct klb_endpoint ep;
	struct err e = { "" };

	check(endpoint_parse(text, 0, &ep, &e), &e);
	return ep;
}

static int listen_on(const struct klb_endpoint *at)
{
	struct sockaddr_storage ss;
	socklen_t length = endpoint_to_sockaddr(at, &ss);
	int on = 1, fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&ss, length) || listen(fd, SOMAXCONN)) {
		perror("relaytest: listen");
		exit(CLI_FAILED);
	}
	return fd;
}

static void print_counts(struct relay *r)
{
	static struct relay_counts counts;

	relay_read_counts(r, &counts);
	printf("connections %u buffered %llu refused %llu\n", counts.connections,
	       counts.buffered_bytes, counts.refused_limit);
	for (unsigned int i = 0; i < counts.n; i++) {
		char text[ENDPOINT_TEXT_MAX];

		printf("%s active %llu total %llu failed %llu\n",
		       endpoint_format(&counts.at[i].endpoint, text),
		       counts.at[i].active[RELAY_FRONTEND], counts.at[i].total[RELAY_FRONTEND],
		       counts.at[i].failed);
	}
	fflush(stdout);
}

static void serve(struct relay *r)
{
	sigset_t signals;
	int number;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGUSR1);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	puts("ready");
	fflush(stdout);
	while (!sigwait(&signals, &number) && number == SIGUSR1)
		print_counts(r);
}

int main(int argc, char **argv)
{
	struct relay_limits limits = { .connections = 20000,
				       .connect_timeout_ms = 1000,
				       .dead_peer_timeout_ms = 10000 };
	static struct relay_frontend f = { .policy = KLB_POLICY_LEAST_CONN };
	struct relay_listener *listener;
	struct relay *r = NULL;
	struct err e = { "" };
	int c;

	log_init("relaytest", LOG_LEVEL_INFO);
	while ((c = getopt(argc, argv, "t:n:")) != -1) {
		if (c == '?')
			return CLI_USAGE;
		*(c == 't' ? &limits.threads : &limits.connections) =
			(unsigned int)strtoul(optarg, NULL, 10);
	}
	if (argc - optind < 2 || argc - optind > KLB_MAX_BACKENDS)
		return cli_usage("relaytest [-t THREADS] [-n CONNECTIONS] LISTEN BACKEND...");
	f.endpoint = parse(argv[optind++]);
	for (; optind < argc; optind++)
		f.at[f.n++] = (struct relay_target){ .endpoint = parse(argv[optind]),
						     .state = KLB_STATE_READY,
						     .weight = KLB_WEIGHT_DEFAULT };
	check(relay_new(&limits, NULL, NULL, &r, &e), &e);
	check(relay_set_plan(r, &f, 1, &e), &e);
	check(relay_listen(r, listen_on(&f.endpoint), RELAY_FRONTEND, &f.endpoint, NULL, 0,
			   &listener, &e),
	      &e);
	serve(r);
	relay_free(r);
	return CLI_OK;
}
