/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelbctl events */
#include "ctl.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "cli.h"
#include "events.h"
#include "log.h"
#include "node.h"

#define POLL_MS 100

struct follower {
	const struct ctl_options *options;
	struct datapath *dp; /* NULL: nothing is attached */
	__u64 next; /* see datapath_events */
	__u64 printed_ns; /* time of the newest event that was printed */
	__u64 after_ns; /* older ones were printed from the maps before these */
	bool waiting; /* it has been said */
};

static __u64 wall_offset_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (__u64)now.tv_sec * 1000000000ULL + (__u64)now.tv_nsec - node_now_ns();
}

static int print_event(struct follower *f, const struct klb_event *event, __u64 offset,
		       struct err *e)
{
	if (event->time_ns <= f->after_ns)
		return 0;
	if (event->time_ns > f->printed_ns)
		f->printed_ns = event->time_ns;
	if (f->options->json && events_print_json(event, offset, stdout))
		return err_set(e, ENOMEM, "out of memory");
	if (!f->options->json)
		events_print_text(event, offset, stdout);
	return 0;
}

/* Prints what there is. */
static int print_new(struct follower *f, struct err *e)
{
	static struct klb_event events[KLB_EVENTS];
	__u64 offset = wall_offset_ns();
	int r = 0, n = datapath_events(f->dp, &f->next, events, KLB_EVENTS, e);

	if (n < 0)
		return n;
	for (int i = 0; !r && i < n; i++)
		r = print_event(f, &events[i], offset, e);
	return r;
}

/*
 * The pins lead to other maps by now, or nowhere. An upgrade may have copied the log that
 * we know: what is in it is told apart by time.
 */
static int leave(struct follower *f, struct err *e)
{
	int r = print_new(f, e);

	datapath_close(f->dp);
	f->dp = NULL;
	f->next = 0;
	f->after_ns = f->printed_ns;
	return r;
}

static int open_again(struct follower *f, struct err *e)
{
	int r = datapath_open(f->options->pin_dir, &f->dp, e);

	if (r != -ENOENT) {
		f->waiting = false;
		return r;
	}
	if (!f->waiting)
		log_line("%s: nothing is attached any more; waiting for kubelb-load",
			 f->options->pin_dir);
	f->waiting = true;
	return 0;
}

static int step(struct follower *f, struct err *e)
{
	int r = f->dp ? 0 : open_again(f, e);

	if (!r && f->dp)
		r = print_new(f, e);
	if (!r && f->dp && !datapath_is_current(f->dp))
		r = leave(f, e);
	return r;
}

static int follow(struct follower *f, struct err *e)
{
	int r;

	ctl_catch_end();
	do
		r = step(f, e);
	while (!r && ctl_flush() && ctl_pause(POLL_MS));
	return r;
}

int ctl_events(const struct ctl_options *o, int argc, char **argv)
{
	struct follower f = { .options = o };
	struct err e = { "" };
	int r;

	(void)argv;
	if (argc)
		return cli_usage("events takes no argument");
	r = datapath_open(o->pin_dir, &f.dp, &e);
	if (!r)
		r = o->follow ? follow(&f, &e) : print_new(&f, &e);
	datapath_close(f.dp);
	return r ? cli_fail(CLI_FAILED, &e) : CLI_OK;
}
