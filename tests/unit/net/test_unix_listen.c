/* SPDX-License-Identifier: BSD-2-Clause */
/* A socket at a path that others could want, too. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/unix_listen.h"
#include "unit.h"

static char path[PATH_SIZE];

/* Returns 0 or -errno. */
static int dial(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), r;

	assert_true(strlen(path) < sizeof(sun.sun_path));
	memcpy(sun.sun_path, path, strlen(path));
	r = connect(fd, (struct sockaddr *)&sun, sizeof(sun)) ? -errno : 0;
	close(fd);
	return r;
}

static bool exists(const char *name)
{
	struct stat st;

	return !lstat(name, &st);
}

static int listen_here(struct unix_listen *u)
{
	struct err e = { "" };
	int fd = unix_listen(path, 8, u, &e);

	if (fd < 0)
		fail_msg("%s", e.text);
	return fd;
}

static void fails_here(int code, const char *says)
{
	struct unix_listen u;
	struct err e = { "" };

	assert_int_equal(unix_listen(path, 8, &u, &e), -code);
	assert_says(e.text, says);
	assert_says(e.text, path);
	/* What was not made is not removed. */
	unix_listen_remove(&u);
}

static void only_its_owner_may_connect(void **state)
{
	struct unix_listen u;
	struct stat st;
	int fd;

	(void)state;
	in_dir(path, "a.sock");
	umask(0);
	fd = listen_here(&u);
	umask(022);
	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(dial(), 0);
	unix_listen_remove(&u);
	assert_false(exists(path));
	close(fd);
}

static void the_directory_is_made(void **state)
{
	char directory[PATH_SIZE];
	struct unix_listen u;
	struct stat st;
	int fd;

	(void)state;
	in_dir(directory, "new");
	in_dir(path, "new/a.sock");
	fd = listen_here(&u);
	assert_int_equal(stat(directory, &st), 0);
	assert_int_equal(st.st_mode & 022, 0);
	unix_listen_remove(&u);
	close(fd);
	in_dir(path, "none/at/all.sock");
	assert_int_equal(unix_listen(path, 8, &u, NULL), -ENOENT);
}

/* An agent that was killed leaves one. */
static void what_nobody_listens_on_is_replaced(void **state)
{
	struct unix_listen old, u;
	int fd;

	(void)state;
	in_dir(path, "stale.sock");
	close(listen_here(&old));
	assert_int_equal(dial(), -ECONNREFUSED);
	fd = listen_here(&u);
	assert_int_equal(dial(), 0);
	unix_listen_remove(&u);
	close(fd);
}

/* It ends after another one has taken its place. */
static void an_old_agent_leaves_the_new_file(void **state)
{
	struct unix_listen old, u;
	int old_fd, fd;

	(void)state;
	in_dir(path, "moved.sock");
	old_fd = listen_here(&old);
	assert_int_equal(unlink(path), 0);
	fd = listen_here(&u);
	unix_listen_remove(&old);
	close(old_fd);
	assert_int_equal(dial(), 0);
	unix_listen_remove(&u);
	assert_false(exists(path));
	close(fd);
}

static void what_somebody_listens_on_stays(void **state)
{
	struct unix_listen u;
	int fd;

	(void)state;
	in_dir(path, "live.sock");
	fd = listen_here(&u);
	fails_here(EADDRINUSE, "somebody else listens there");
	assert_int_equal(dial(), 0);
	unix_listen_remove(&u);
	close(fd);
}

static void other_files_stay(void **state)
{
	char target[PATH_SIZE];

	(void)state;
	in_dir(path, "file");
	write_file(path, "precious");
	fails_here(EEXIST, "is no socket");
	assert_string_equal(read_file(path), "precious");
	in_dir(path, "link");
	assert_int_equal(symlink(in_dir(target, "file"), path), 0);
	fails_here(EEXIST, "is no socket");
	assert_true(exists(path));
}

/* Others could put their own socket there, and answer for the agent. */
static void not_where_others_can_write(void **state)
{
	char directory[PATH_SIZE], says[2 * PATH_SIZE];
	struct unix_listen u;
	struct err e = { "" };

	(void)state;
	in_dir(directory, "shared");
	in_dir(path, "shared/a.sock");
	assert_int_equal(mkdir(directory, 0755), 0);
	assert_int_equal(chmod(directory, 0777), 0);
	assert_int_equal(unix_listen(path, 8, &u, &e), -EACCES);
	snprintf(says, sizeof(says), "others can write %s", directory);
	assert_says(e.text, says);
	if (geteuid())
		return;
	assert_int_equal(chmod(directory, 0755), 0);
	assert_int_equal(chown(directory, 65534, 65534), 0);
	assert_int_equal(unix_listen(path, 8, &u, &e), -EACCES);
	snprintf(says, sizeof(says), "%s belongs to user 65534", directory);
	assert_says(e.text, says);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(only_its_owner_may_connect),
		LEAVES_NOTHING(the_directory_is_made),
		LEAVES_NOTHING(what_nobody_listens_on_is_replaced),
		LEAVES_NOTHING(an_old_agent_leaves_the_new_file),
		LEAVES_NOTHING(what_somebody_listens_on_stays),
		LEAVES_NOTHING(other_files_stay),
		LEAVES_NOTHING(not_where_others_can_write),
	};

	return cmocka_run_group_tests_name("unix_listen", tests, make_dir, remove_made_dir);
}
