/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs a program, with limits. */
#include "host/command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/array.h"
#include "base/clock.h"
#include "base/err.h"

#define PATH_BYTES 256

/* Not by PATH, which may lead root to somebody else's program. */
static bool find_program(const char *name, char *ret)
{
	static const char *const places[] = { "/usr/sbin", "/usr/bin", "/sbin", "/bin" };

	if (name[0] == '/') {
		snprintf(ret, PATH_BYTES, "%s", name);
		return !access(ret, X_OK);
	}
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		snprintf(ret, PATH_BYTES, "%s/%s", places[i], name);
		if (!access(ret, X_OK))
			return true;
	}
	return false;
}

/* In a process group of its own. Returns 0 or -errno. */
static int start(const char *path, const char *const *argv, int to, pid_t *ret)
{
	static char *const environment[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C",
					     "TZ=UTC", NULL };
	posix_spawn_file_actions_t files;
	posix_spawnattr_t how;
	int r;

	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&files, to, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&files, to, STDERR_FILENO);
	posix_spawnattr_init(&how);
	posix_spawnattr_setflags(&how, POSIX_SPAWN_SETPGROUP);
	r = posix_spawn(ret, path, &files, &how, (char *const *)argv, environment);
	posix_spawnattr_destroy(&how);
	posix_spawn_file_actions_destroy(&files);
	return r ? err_negative(r) : 0;
}

/* Keeps the first max bytes. Returns 0 at the end of what is printed, or -ETIMEDOUT. */
static int take_output(int from, __u64 limit_ns, FILE *to, size_t max)
{
	struct pollfd p = { .fd = from, .events = POLLIN };
	char piece[4096];
	ssize_t n;

	for (;;) {
		__u64 now_ns = clock_now_ns();

		if (now_ns >= limit_ns ||
		    poll(&p, 1, (int)((limit_ns - now_ns) / NS_PER_MS) + 1) == 0)
			return -ETIMEDOUT;
		n = read(from, piece, sizeof(piece));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return 0;
		if ((size_t)n > max)
			n = (ssize_t)max;
		fwrite(piece, 1, (size_t)n, to);
		max -= (size_t)n;
	}
}

/* Ends what is still there of it. */
static int reap(pid_t pid, bool late)
{
	int status = 0;

	if (late)
		kill(-pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (late)
		return -ETIMEDOUT;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int run(const char *path, const char *const *argv, unsigned int seconds, size_t max,
	       FILE *to)
{
	__u64 limit_ns = clock_now_ns() + seconds * NS_PER_S;
	int pipes[2], r;
	bool late;
	pid_t pid;

	if (pipe2(pipes, O_CLOEXEC))
		return err_negative(errno);
	r = start(path, argv, pipes[1], &pid);
	close(pipes[1]);
	late = !r && take_output(pipes[0], limit_ns, to, max);
	close(pipes[0]);
	return r ? r : reap(pid, late);
}

int command_run(const char *const *argv, unsigned int seconds, size_t max, char **ret)
{
	char path[PATH_BYTES];
	size_t length;
	FILE *to = open_memstream(ret, &length);
	int r;

	if (!to) {
		*ret = NULL;
		return -ENOMEM;
	}
	r = find_program(argv[0], path) ? run(path, argv, seconds, max, to) : -ENOENT;
	if (fclose(to)) {
		free(*ret);
		*ret = NULL;
		return -ENOMEM;
	}
	return r;
}
