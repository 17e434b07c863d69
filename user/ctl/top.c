/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelbctl top: what happens now, on a screen with keys, or as frames for a file. */
#include "ctl/ctl.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cli.h"
#include "base/clock.h"
#include "ctl/admin.h"
#include "ctl/screen.h"
#include "ctl/top_draw.h"

#define PAGE_LINES 10

struct top {
	const struct ctl_options *options;
	struct take_memory memory;
	struct top_sample samples[2];
	unsigned int now; /* which of them is the last */
	struct top_view view;
	char wall[32]; /* when that was taken, by the time of day */
	__u64 due_ns; /* the next sample */
};

static struct top_sample *last(struct top *t)
{
	return &t->samples[t->now];
}

static void note_time(struct top *t)
{
	time_t now = (time_t)(clock_wall_ns() / NS_PER_S);
	struct tm local;

	localtime_r(&now, &local);
	strftime(t->wall, sizeof(t->wall), "%T", &local);
}

/* Returns 0, or a negative errno with e. */
static int measure(struct top *t, struct err *e)
{
	struct top_sample *before = last(t), *next = &t->samples[1 - t->now];
	int r = top_take(t->options, &t->memory, before, next, e);

	t->now = 1 - t->now;
	note_time(t);
	snprintf(t->view.error, sizeof(t->view.error), "%s", r ? e->text : "");
	if (r)
		return r;
	top_sort_backends(&t->view, next);
	return 0;
}

/* --- frames for a file ------------------------------------------------------------------------ */

/* Rates take two samples: each frame is about the time in front of it. */
static int run_batch(struct top *t)
{
	unsigned int frames = t->options->frames;
	struct err e = { "" };
	int r = measure(t, &e);

	ctl_handle_signals();
	for (unsigned int i = 0; !r && (!frames || i < frames); i++) {
		struct canvas c = { .to = stdout, .color = color_wanted(t->options) };

		if (!ctl_pause((int)t->view.delay_ms))
			break;
		r = measure(t, &e);
		if (r)
			break;
		if (i)
			putchar('\n');
		top_draw(&t->view, last(t), t->wall, &c);
		if (!ctl_flush())
			break;
	}
	return r ? cli_fail(CLI_FAILED, &e) : CLI_OK;
}

/* --- a screen with keys ------------------------------------------------------------------------
 */

static int show(struct top *t)
{
	struct canvas c = { .color = color_wanted(t->options), .screen = true };
	char *frame = NULL;
	size_t length = 0;
	int r = -1;

	screen_size(&c.columns, &c.rows);
	c.to = open_memstream(&frame, &length);
	if (c.to) {
		top_draw(&t->view, last(t), t->wall, &c);
		r = fclose(c.to) ? -1 : screen_show(frame, length);
	}
	free(frame);
	return r;
}

/* By the same code as the commands drain and undrain. What these print becomes the message. */
static void change(struct top *t, bool drain)
{
	const struct admin_change c = { .kind = drain ? ADMIN_DRAIN : ADMIN_UNDRAIN };
	struct top_view *v = &t->view;
	struct klb_endpoint endpoint;
	struct err e = { "" };
	char *said = NULL;
	size_t length = 0;
	FILE *to = open_memstream(&said, &length);

	if (!v->selected[0])
		err_format(&e, "no backend is selected");
	else if (!to)
		err_no_memory(&e);
	else if (!endpoint_parse(v->selected, KLB_PORT_DEFAULT, &endpoint, &e))
		ctl_change_backend(t->options, &endpoint, &c, to, &e);
	if (to)
		fclose(to);
	snprintf(v->message, sizeof(v->message), "%s", e.text[0] || !said ? e.text : said);
	/* It has no more than one line here. */
	for (char *p = v->message; *p; p++)
		if (*p == '\n')
			*p = p[1] ? ' ' : '\0';
	free(said);
	t->due_ns = 0;
}

static void sort_by(struct top *t, int step)
{
	t->view.sort = (enum top_sort)(((int)t->view.sort + step + TOP_SORTS) % TOP_SORTS);
}

static void set_delay(struct top *t, int seconds)
{
	int delay_s = (int)t->view.delay_ms / 1000 + seconds;

	if (delay_s >= 1 && delay_s <= CTL_DELAY_MAX_S)
		t->view.delay_ms = (unsigned int)delay_s * 1000;
}

/* Keys that only change how it looks. */
static void take_view_key(struct top *t, int key)
{
	struct top_view *v = &t->view;

	if (key == SCREEN_UP || key == 'k')
		top_select(v, last(t), -1);
	else if (key == SCREEN_DOWN || key == 'j')
		top_select(v, last(t), 1);
	else if (key == SCREEN_PAGE_UP || key == SCREEN_PAGE_DOWN)
		top_select(v, last(t), key == SCREEN_PAGE_UP ? -PAGE_LINES : PAGE_LINES);
	else if (key == 's' || key == 'S')
		sort_by(t, key == 's' ? 1 : -1);
	else if (key == 'r')
		v->reverse = !v->reverse;
	else if (key == '+' || key == '-')
		set_delay(t, key == '+' ? 1 : -1);
	else if (key == 'p')
		v->paused = !v->paused;
	top_sort_backends(v, last(t));
}

/* Returns false at the end. */
static bool take_key(struct top *t, int key)
{
	struct top_view *v = &t->view;

	if (key == SCREEN_END || ((key == 'q' || key == 'Q') && !v->help))
		return false;
	if (key == SCREEN_TIME || key == SCREEN_REDRAW)
		return true;
	v->message[0] = '\0';
	if (v->help || key == 'h' || key == '?')
		v->help = !v->help;
	else if (key == 'd' || key == 'u')
		change(t, key == 'd');
	else if (key == ' ')
		t->due_ns = 0;
	else
		take_view_key(t, key);
	return true;
}

/* Measures if it is time for that. Returns how long to wait then. */
static unsigned int measure_in_time(struct top *t)
{
	__u64 now_ns = clock_now_ns();
	struct err e = { "" };

	if (now_ns >= t->due_ns && (!t->view.paused || !t->due_ns)) {
		measure(t, &e);
		top_select(&t->view, last(t), 0);
		now_ns = clock_now_ns();
		t->due_ns = now_ns + t->view.delay_ms * NS_PER_MS;
	}
	if (t->view.paused || now_ns >= t->due_ns)
		return t->view.delay_ms;
	return (unsigned int)((t->due_ns - now_ns) / NS_PER_MS) + 1;
}

/* The first sample shows whether there is anything to show: its error is told as by every command.
 */
static int run_screen(struct top *t)
{
	struct err e = { "" };
	bool goes_on = true;
	int r = measure(t, &e);

	if (!r)
		r = screen_enter(&e);
	if (r)
		return cli_fail(CLI_FAILED, &e);
	top_select(&t->view, last(t), 0);
	/* Rates soon. */
	t->due_ns = clock_now_ns() + NS_PER_S;
	while (goes_on) {
		unsigned int ms = measure_in_time(t);

		goes_on = !show(t) && take_key(t, screen_wait(ms));
	}
	screen_leave();
	return CLI_OK;
}

static int find_sort(const char *name, enum top_sort *ret)
{
	for (enum top_sort i = 0; i < TOP_SORTS; i++) {
		*ret = i;
		if (!strcmp(name, top_sort_name(i)))
			return -1;
	}
	return cli_usage("--sort %s: want backend, state, active, rate, failed or rtt", name);
}

int ctl_top(const struct ctl_options *o, int argc, char **argv)
{
	struct top *t;
	int status;

	(void)argv;
	if (argc)
		return cli_usage("top takes no argument");
	t = calloc(1, sizeof(*t));
	if (!t)
		return cli_fail(CLI_FAILED, &(struct err){ "out of memory" });
	t->options = o;
	t->view.delay_ms = o->delay_ms;
	status = o->sort ? find_sort(o->sort, &t->view.sort) : -1;
	if (status < 0)
		status = o->batch || o->frames || !screen_is_there() ? run_batch(t) : run_screen(t);
	free(t);
	return status;
}
