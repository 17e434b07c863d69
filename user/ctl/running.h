/* SPDX-License-Identifier: BSD-2-Clause */
/* Which configuration is in force, and the versions of what runs. */
#ifndef KUBELB_CTL_RUNNING_H
#define KUBELB_CTL_RUNNING_H

#include <stdbool.h>
#include <stdio.h>

#include <jansson.h>

#include "balance/state.h"
#include "base/err.h"
#include "base/file.h"
#include "base/format.h"
#include "datapath/datapath.h"

#define RUNNING_VERSION_MAX 64

/* All zero: nothing is known. */
struct running {
	char file[ERR_TEXT_MAX]; /* "": not known */
	char written[FORMAT_WALL_MAX]; /* the file's time; "": not known */
	char error[ERR_TEXT_MAX]; /* why the file is not taken; "": it is */
	bool newer; /* than what is in force, and no agent is there that takes it up */
	bool missing; /* there is no such file */
	/* Of this program, the agent and the programs in the kernel; "": not known. */
	char ctl[RUNNING_VERSION_MAX], agent[RUNNING_VERSION_MAX], programs[DATAPATH_VERSION_MAX];
	__u64 taken_ns; /* 0: not yet */
};

/*
 * Fills in the file, as it was seen (NULL: not known when). error: why it is refused; "": it is
 * not.
 */
void running_set_file(struct running *r, const char *file, const struct file_identity *seen,
		      const char *error);

/*
 * The same by what can be seen without an agent: whether the file is newer than what s has in
 * force.
 */
void running_look(struct running *r, const char *file, const char *error,
		  const struct datapath_state *s, __u64 now_ns);

/* Prints the lines `config` and `version` of `status`. */
void running_print(const struct running *r, const struct datapath_state *s, __u64 now_ns, FILE *to);

/* The objects `configuration` and `versions`. */
json_t *running_configuration_json(const struct running *r, const struct datapath_state *s,
				   __u64 now_ns);
json_t *running_versions_json(const struct running *r);
/* Reads what the agent says in these two of its own document. */
void running_from_json(struct running *r, const json_t *document);

#endif
