/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelbctl events: prints the events, and with -f those to come. */
#include "ctl/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "balance/state_diff.h"
#include "base/cli.h"
#include "base/clock.h"
#include "ctl/events.h"
#include "base/log.h"

#define POLL_MS 100

/* What one reading has found. It is printed in the order of time. */
struct news {
	struct klb_event events[KLB_EVENTS];
	struct state_change changes[STATE_CHANGES_MAX];
	unsigned int n_events, n_changes;
};

struct follower {
	const struct ctl_options *options;
	struct datapath *dp; /* NULL: nothing is attached */
	__u64 next; /* see datapath_events */
	__u64 printed_ns; /* the time of the newest printed event */
	__u64 after_ns; /* older ones were printed from the maps before these */
	bool waiting; /* the user has been told so */
	struct datapath_state *seen, *now; /* seen: the earlier reading */
	bool has_seen; /* seen is valid */
	struct news *news;
};

static __u64 wall_offset_ns(void)
{
	return clock_wall_ns() - clock_now_ns();
}

static int print_event(struct follower *f, const struct klb_event *event, __u64 offset,
		       struct err *e)
{
	if (event->time_ns <= f->after_ns)
		return 0;
	if (event->time_ns > f->printed_ns)
		f->printed_ns = event->time_ns;
	if (f->options->json && events_print_json(event, offset, stdout))
		return err_no_memory(e);
	if (!f->options->json)
		events_print_text(event, offset, stdout);
	return 0;
}

static int print_change(const struct follower *f, const struct state_change *change, __u64 offset,
			struct err *e)
{
	if (f->options->json && events_print_change_json(change, offset, stdout))
		return err_no_memory(e);
	if (!f->options->json)
		events_print_change_text(change, offset, stdout);
	return 0;
}

/* Reads the kernel's log, and the decisions of user space since the last reading. */
static int read_news(struct follower *f, struct err *e)
{
	struct datapath_state *swap = f->seen;
	int n, r = datapath_read(f->dp, f->now, e);

	if (r)
		return r;
	f->news->n_changes =
		state_diff(f->has_seen ? f->seen : NULL, f->now, clock_now_ns(), f->news->changes);
	f->seen = f->now;
	f->now = swap;
	if (!f->has_seen)
		ctl_log_state(f->options->pin_dir, f->seen);
	f->has_seen = true;
	n = datapath_events(f->dp, &f->next, f->news->events, KLB_EVENTS, e);
	f->news->n_events = n < 0 ? 0 : (unsigned int)n;
	return n < 0 ? n : 0;
}

/* Prints what is new. */
static int print_new(struct follower *f, struct err *e)
{
	const struct news *news = f->news;
	__u64 offset = wall_offset_ns();
	unsigned int i = 0, k = 0;
	int r = read_news(f, e);

	while (!r && (i < news->n_events || k < news->n_changes)) {
		bool event =
			k == news->n_changes ||
			(i < news->n_events && news->events[i].time_ns <= news->changes[k].time_ns);

		r = event ? print_event(f, &news->events[i++], offset, e)
			  : print_change(f, &news->changes[k++], offset, e);
	}
	return r;
}

/*
 * The pins lead to other maps now, or to none. An upgrade may have copied the log that has been
 * printed already; its events are recognised by their time.
 */
static int close_datapath(struct follower *f, struct err *e)
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
	int r = datapath_open(f->options->pin_dir, DATAPATH_WAIT_MS, &f->dp, e);

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
		r = close_datapath(f, e);
	return r;
}

static int follow(struct follower *f, struct err *e)
{
	int r;

	ctl_handle_signals();
	do
		r = step(f, e);
	while (!r && ctl_flush() && ctl_pause(POLL_MS));
	return r;
}

static int run(struct follower *f, struct err *e)
{
	int r = datapath_open(f->options->pin_dir, DATAPATH_WAIT_MS, &f->dp, e);

	if (!r)
		r = f->options->follow ? follow(f, e) : print_new(f, e);
	datapath_close(f->dp);
	return r;
}

/* Of the maps, or of the agent where there are none, whoever it is while they are followed. */
static int show(struct follower *f)
{
	bool attached;
	int status;

	do {
		struct err e = { "" };
		int r = run(f, &e);

		status = r ? ctl_relayed_events(f->options, &attached) : CLI_OK;
		if (r && status < 0 && !attached)
			return cli_fail(CLI_FAILED, &e);
	} while (status < 0);
	return status;
}

int ctl_events(const struct ctl_options *o, int argc, char **argv)
{
	struct follower f = { .options = o };
	struct err e = { "" };
	int status;

	(void)argv;
	if (argc)
		return cli_usage("events takes no argument");
	f.seen = calloc(1, sizeof(*f.seen));
	f.now = calloc(1, sizeof(*f.now));
	f.news = calloc(1, sizeof(*f.news));
	if (f.seen && f.now && f.news) {
		status = show(&f);
	} else {
		err_no_memory(&e);
		status = cli_fail(CLI_FAILED, &e);
	}
	free(f.seen);
	free(f.now);
	free(f.news);
	return status;
}
