/* SPDX-License-Identifier: BSD-2-Clause */
#include "bare_agent.h"

#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "host/file_watch.h"
#include "host/worker.h"

struct agent bare;

static char config_path[PATH_SIZE], pin_dir[PATH_SIZE];
static const struct agent_options options = { .config_path = config_path, .pin_dir = pin_dir };

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
}

int bare_open(void **state)
{
	count_files(state);
	unsetenv("JOURNAL_STREAM");
	log_init("test", LOG_LEVEL_INFO);
	in_dir(config_path, "kubelb.yaml");
	in_dir(pin_dir, "pins");
	bare = (struct agent){ .options = &options, .agent_lock = -1 };
	bare.base = event_base_new();
	bare.state = calloc(1, sizeof(*bare.state));
	assert_true(bare.base && bare.state);
	bare.tick = event_new(bare.base, -1, EV_PERSIST, on_tick, &bare);
	assert_non_null(bare.tick);
	return capture_stderr(state);
}

int bare_close(void **state)
{
	release_stderr(state);
	discovery_free(bare.discovery);
	worker_cancel(bare.reading);
	filewatch_free(bare.watch);
	agent_stop_backends(&bare);
	agent_free_removed(&bare);
	agent_free_resting(&bare);
	probe_tls_free(bare.tls);
	event_free(bare.tick);
	agent_drop_datapath(&bare);
	event_base_free(bare.base);
	config_free(bare.config);
	config_free(bare.file);
	free(bare.state);
	return check_leftovers(state);
}
