/* SPDX-License-Identifier: BSD-2-Clause */
/* How `kubelbctl top` looks. */
#include "ctl/top_draw.h"

#include <string.h>

#include "base/array.h"
#include "base/clock.h"
#include "base/format.h"

#define ADDRESS_WIDTH_MIN 18
#define RATE_MAX 24
/* What a screen has besides the rows of the two tables. */
#define ROWS_AROUND 8

/* --- the head ------------------------------------------------------------------------------- */

static void draw_head(const struct top_view *v, const struct top_sample *s, const char *wall,
		      struct canvas *c)
{
	static const enum color colors[] = {
		[TOP_GOOD] = COLOR_GOOD, [TOP_WARN] = COLOR_WARN, [TOP_BAD] = COLOR_BAD
	};
	long long active = 0, connecting = 0;
	double rate = 0, failed_rate = 0;

	for (unsigned int i = 0; i < s->n_backends; i++) {
		const struct top_backend *b = &s->backends[i];

		active += b->active;
		connecting += b->connecting;
		rate += b->rate > 0 ? b->rate : 0;
		failed_rate += b->failed_rate > 0 ? b->failed_rate : 0;
	}
	canvas_text(c, COLOR_NONE, "kubelbctl top - %s, every %us%s%s", wall, v->delay_ms / 1000,
		    v->paused ? ", PAUSED" : "",
		    s->relayed ? ", the agent relays every connect" : "");
	canvas_end(c);
	if (v->error[0])
		canvas_text(c, COLOR_BAD, "%s", v->error);
	else
		canvas_text(c, colors[s->verdict], "%s", s->summary);
	canvas_end(c);
	canvas_text(c, COLOR_NONE,
		    "Connections: %lld active, %lld connecting. Connects: %.1f/s, failed: %.1f/s",
		    active, connecting, rate, failed_rate);
	canvas_end(c);
	canvas_end(c);
}

/* --- backends ------------------------------------------------------------------------------- */

static int address_width(const struct top_sample *s)
{
	size_t width = ADDRESS_WIDTH_MIN;

	for (unsigned int i = 0; i < s->n_backends; i++)
		if (strlen(s->backends[i].address) > width)
			width = strlen(s->backends[i].address);
	return (int)width;
}

static const char *rate_text(double rate, char *buf)
{
	if (rate < 0)
		snprintf(buf, RATE_MAX, "-");
	else
		snprintf(buf, RATE_MAX, rate < 1000 ? "%.1f" : "%.0f", rate);
	return buf;
}

static const char *rtt_text(double seconds, char *buf)
{
	if (seconds > 0)
		return format_duration((__u64)(seconds * NS_PER_S), buf);
	snprintf(buf, FORMAT_TIME_MAX, "-");
	return buf;
}

static void draw_backend(const struct top_view *v, const struct top_backend *b, int width,
			 struct canvas *c)
{
	bool selected = c->screen && !strcmp(b->address, v->selected);
	char rate[RATE_MAX], failed[RATE_MAX], rtt[FORMAT_TIME_MAX];

	if (selected)
		canvas_reverse(c);
	canvas_text(c, COLOR_NONE, "%-*s ", width, b->address);
	canvas_text(c, color_of_state(b->state), "%-8s", b->state);
	canvas_text(c, COLOR_NONE, " %5lld%s %6lld %7s", b->weight, b->overridden ? "*" : " ",
		    b->active + b->connecting, rate_text(b->rate, rate));
	canvas_text(c, b->failed_rate > 0 ? COLOR_BAD : COLOR_NONE, " %6s",
		    rate_text(b->failed_rate, failed));
	canvas_text(c, COLOR_NONE, " %7s %s", rtt_text(b->rtt_s, rtt), b->why);
	canvas_end(c);
}

/* The first of so many rows that also has the selected backend. */
static unsigned int first_shown(const struct top_view *v, const struct top_sample *s,
				unsigned int rows)
{
	for (unsigned int i = rows; i < s->n_backends; i++)
		if (!strcmp(s->backends[i].address, v->selected))
			return i - rows + 1;
	return 0;
}

static void draw_backends(const struct top_view *v, const struct top_sample *s, unsigned int rows,
			  struct canvas *c)
{
	int width = address_width(s);
	bool all = s->n_backends <= rows;
	unsigned int shown = all ? s->n_backends : rows ? rows - 1 : 0;
	unsigned int first = first_shown(v, s, shown);

	canvas_text(c, COLOR_DIM, "%-*s %-8s %5s  %6s %7s %6s %7s %s", width, "BACKEND", "STATE",
		    "WEIGHT", "ACTIVE", "CONN/S", "FAIL/S", "RTT", "WHY");
	canvas_end(c);
	for (unsigned int i = first; i < first + shown; i++)
		draw_backend(v, &s->backends[i], width, c);
	if (!all && rows) {
		canvas_text(c, COLOR_DIM, "%u to %u of %u", first + 1, first + shown,
			    s->n_backends);
		canvas_end(c);
	}
}

/* --- processes ------------------------------------------------------------------------------- */

static void draw_process(const struct top_process *p, struct canvas *c)
{
	char rtt[FORMAT_TIME_MAX];

	canvas_text(c, COLOR_NONE, "%-24s %6u %6u %8u %7s", p->name, p->connections, p->fresh,
		    p->backends, rtt_text(p->rtt_s, rtt));
	canvas_end(c);
}

static void draw_processes(const struct top_sample *s, struct canvas *c)
{
	unsigned int rows = canvas_left(c), n = s->n_processes;

	/* One row is for the keys. */
	rows = c->screen && rows ? rows - 1 : rows;
	if (!rows)
		return;
	canvas_text(c, COLOR_DIM, "%-24s %6s %6s %8s %7s", "PROCESS", "CONNS", "NEW", "BACKENDS",
		    "RTT");
	canvas_end(c);
	rows--;
	if (s->unlisted[0] && rows) {
		canvas_text(c, COLOR_WARN, "%s", s->unlisted);
		canvas_end(c);
		rows--;
	}
	if (n > rows)
		n = rows;
	for (unsigned int i = 0; i < n; i++)
		draw_process(&s->processes[i], c);
	if (!c->screen && s->more_processes) {
		canvas_text(c, COLOR_DIM, "%u more", s->more_processes);
		canvas_end(c);
	}
}

/* --- help and keys ---------------------------------------------------------------------------- */

static void draw_help(struct canvas *c)
{
	static const char *const lines[] = {
		"up, down, k, j   select a backend",
		"d                drain it: no new connections while another is ready",
		"u                undrain it",
		"s, S             sort by the next column, by the one before",
		"r                the other way round",
		"p                pause; the space bar measures at once",
		"+, -             a longer, a shorter time between frames",
		"q                quit",
		"",
		"ACTIVE    open connections, and those that are being made",
		"CONN/S    connections established a second; FAIL/S: connects that failed",
		"RTT       smoothed round trip time; of a process: the mean of its connections",
		"WEIGHT    * marks one that the operator has set",
		"NEW       connections begun since the frame before, and still open",
		"",
		"Any key goes back.",
	};

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		canvas_text(c, COLOR_NONE, "%s", lines[i]);
		canvas_end(c);
	}
}

static void draw_keys(const struct top_view *v, struct canvas *c)
{
	canvas_skip_to_last(c);
	if (v->message[0])
		canvas_text(c, COLOR_WARN, "%s", v->message);
	else
		canvas_text(c, COLOR_DIM,
			    "q quit  d drain  u undrain  s sort: %s%s  r reverse  p pause  h help",
			    top_sort_name(v->sort), v->reverse ? "-" : "");
	canvas_end(c);
}

/* How many rows the backends get: two thirds, or what the processes leave. */
static unsigned int rows_for_backends(const struct top_sample *s, const struct canvas *c)
{
	unsigned int room = c->rows > ROWS_AROUND ? c->rows - ROWS_AROUND : 0;
	unsigned int left = room > s->n_processes ? room - s->n_processes : 0;
	unsigned int rows = left > room * 2 / 3 ? left : room * 2 / 3;

	if (!c->rows || s->n_backends < rows)
		return s->n_backends;
	return rows;
}

void top_draw(const struct top_view *v, const struct top_sample *s, const char *wall,
	      struct canvas *c)
{
	draw_head(v, s, wall, c);
	if (v->help) {
		draw_help(c);
	} else {
		draw_backends(v, s, rows_for_backends(s, c), c);
		canvas_end(c);
		draw_processes(s, c);
	}
	if (c->screen)
		draw_keys(v, c);
}
