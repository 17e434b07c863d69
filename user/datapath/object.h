/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The programs and maps of one load as libbpf's objects, in the build and with the features that
 * this kernel accepts.
 */
#ifndef KUBELB_DATAPATH_OBJECT_H
#define KUBELB_DATAPATH_OBJECT_H

#include "datapath/internal.h"

/* The same programs three times; see bpf/kernel.bpf.h. They are tried in this order. */
enum object_build { BUILD_CASTS, BUILD_PLAIN, BUILD_OLD, BUILD_COUNT };

enum prog_index {
	PROG_CONNECT4,
	PROG_CONNECT6,
	PROG_GETPEER4,
	PROG_GETPEER6,
	PROG_SOCKOPS,
	PROG_ADJUST,
	PROG_RELEASE, /* loaded by a detach, and by nothing else */
	PROG_COUNT
};

/* What to load. refused: as in klb_control.refused. */
struct object_request {
	enum object_build build;
	__u16 refused[KLB_FEATURES];
	bool progs[PROG_COUNT]; /* only these; object_request_all sets all */
};

struct object {
	struct bpf_object *object;
	struct bpf_map *maps[MAP_COUNT];
	struct bpf_program *progs[PROG_COUNT]; /* NULL: left out */
};

/* Requests all that is attached and pinned, in the first build that this kernel may accept. */
void object_request_all(struct object_request *ret);

/* Requests klb_release and nothing else. */
void object_request_release(struct object_request *ret);

/*
 * Opens the build without what is refused or not requested. Returns 0 or a negative errno with e.
 * Close it with object_close, also on failure.
 */
int object_open(struct object *o, const struct object_request *request, struct err *e);
void object_close(struct object *o);

/*
 * The memory of the programs, shared with them. NULL when there is none, or before the load.
 * Release it with object_memory_put; NULL is allowed there.
 */
struct klb_memory *object_memory(const struct object *o);
void object_memory_put(struct klb_memory *memory);

/* Makes programs of any version with this memory look for a listener at each connect. */
void object_forget_listeners(int map_fd);

/*
 * Finds out which build and which features the kernel accepts: loads them one after another, and
 * attaches them to the cgroup for an instant (-1: does not attach). Does not attach features that
 * are attached already (by feature; NULL: none is). Fills request->build and request->refused.
 * Returns 0, or the negative errno with which the kernel refused a required program; ret_prog (NULL
 * is allowed) is that program then.
 */
int object_find_refused(int cgroup_fd, const bool *attached, struct object_request *request,
			enum prog_index *ret_prog);

/* Whether the error means a temporary shortage, not a refusal. */
bool object_is_transient(int code);

/*
 * Attaches the programs of a feature for an instant, to find out whether that is possible. o is
 * loaded. Returns 0 or a positive errno.
 */
int object_try_attach(const struct object *o, enum klb_feature feature, int cgroup_fd);

/*
 * The same for one required program or feature by itself, for --check. Returns 0 or a positive
 * errno.
 */
int object_try_prog(enum object_build build, enum prog_index prog, int cgroup_fd);

/*
 * A print function for libbpf that prints nothing, for trials: a refusal is an expected result
 * there.
 */
int object_print_nothing(enum libbpf_print_level level, const char *format, va_list args);

#endif
