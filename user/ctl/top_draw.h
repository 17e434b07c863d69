/* SPDX-License-Identifier: BSD-2-Clause */
/* How `kubelbctl top` looks. Pure. */
#ifndef KUBELB_CTL_TOP_DRAW_H
#define KUBELB_CTL_TOP_DRAW_H

#include "ctl/canvas.h"
#include "ctl/top_sample.h"

enum top_sort {
	TOP_SORT_BACKEND,
	TOP_SORT_STATE,
	TOP_SORT_ACTIVE,
	TOP_SORT_RATE,
	TOP_SORT_FAILED,
	TOP_SORT_RTT,
	TOP_SORTS
};

/* The word for it, as --sort has it. */
const char *top_sort_name(enum top_sort sort);

struct top_view {
	enum top_sort sort;
	bool reverse; /* the other way round */
	bool help, paused;
	unsigned int delay_ms;
	char selected[ENDPOINT_TEXT_MAX]; /* a backend's address; "": none */
	char message[ERR_TEXT_MAX]; /* for one frame; "": the keys are shown instead */
	char error[ERR_TEXT_MAX]; /* why there is no sample; "": there is */
};

/* Puts the backends into the order of the view. */
void top_sort_backends(const struct top_view *v, struct top_sample *s);
/* Moves the selection by so many lines. Without one, the first backend is selected. */
void top_select(struct top_view *v, const struct top_sample *s, int lines);

/* wall: when the sample was taken, as text. */
void top_draw(const struct top_view *v, const struct top_sample *s, const char *wall,
	      struct canvas *c);

#endif
