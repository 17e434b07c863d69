/* SPDX-License-Identifier: BSD-2-Clause */
/* Who listens on an address. */
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host/port_owner.h"
#include "unit.h"

static void this_process(void **state)
{
	struct port_owner who;
	char want[PORT_OWNER_MAX], name[PORT_OWNER_MAX];
	struct klb_endpoint at;
	int fd = bind_loopback(false, &at);

	(void)state;
	assert_false(port_owner_find(&at, &who));
	assert_int_equal(listen(fd, 1), 0);
	/* Whoever makes a process names it. */
	assert_int_equal(prctl(PR_SET_NAME, "own\033er", 0, 0, 0), 0);
	assert_true(port_owner_find(&at, &who));
	snprintf(want, sizeof(want), "own?er (pid %d)", getpid());
	assert_string_equal(port_owner_name(&who, name), want);
	assert_int_equal(who.uid, geteuid());
	close(fd);
	assert_false(port_owner_find(&at, &who));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(this_process),
	};

	return cmocka_run_group_tests_name("port_owner", tests, NULL, NULL);
}
