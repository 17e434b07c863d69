/* SPDX-License-Identifier: BSD-2-Clause */
/* Says what of KubeLB still runs: other attachments, each with what keeps it and how to end it. */
#include "load/still.h"

#include <stdio.h>
#include <string.h>

#include "datapath/datapath.h"

/* The directory that the pin's attachment was made with: DIR of "DIR/links/NAME". */
static void pin_dir_of(const struct datapath_running *p, char *ret, size_t size)
{
	const char *links = strstr(p->pin, "/links/");

	snprintf(ret, size, "%.*s", links ? (int)(links - p->pin) : 0, p->pin);
}

static bool is_same_attachment(const struct datapath_running *x, const struct datapath_running *y)
{
	char dir_x[sizeof(x->pin)], dir_y[sizeof(y->pin)];

	pin_dir_of(x, dir_x, sizeof(dir_x));
	pin_dir_of(y, dir_y, sizeof(dir_y));
	return !strcmp(dir_x, dir_y) && !strcmp(x->process, y->process) &&
	       !strcmp(x->cgroup, y->cgroup);
}

/* all[first] is the first program of its attachment. */
static void print_attachment(const struct datapath_running *all, unsigned int n, unsigned int first)
{
	const struct datapath_running *p = &all[first];
	char dir[sizeof(p->pin)];

	printf("still attached to cgroup %s:", p->cgroup);
	for (unsigned int i = first; i < n; i++)
		if (is_same_attachment(p, &all[i]))
			printf(" %s (id %u)", all[i].name, all[i].prog_id);
	pin_dir_of(p, dir, sizeof(dir));
	if (dir[0])
		printf(", pinned in %s: kubelb-load --detach --pin %s\n", dir, dir);
	else if (p->process[0])
		printf(", held by the process %s: end it\n", p->process);
	else
		printf(", without a pin or process to be seen from here: look for a bpffs that "
		       "hides another one (findmnt -t bpf) and unmount the upper one, or detach "
		       "with bpftool cgroup detach\n");
}

void still_print(void)
{
	struct datapath_running all[DATAPATH_RUNNING_MAX];
	unsigned int n = datapath_running(all, DATAPATH_RUNNING_MAX);

	for (unsigned int i = 0; i < n; i++) {
		bool first = true;

		for (unsigned int j = 0; j < i; j++)
			first = first && !is_same_attachment(&all[i], &all[j]);
		if (first)
			print_attachment(all, n, i);
	}
}
