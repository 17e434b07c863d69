/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The programs and maps of one load, as libbpf's objects, in whichever build and with
 * whichever features this kernel takes.
 */
#ifndef KUBELB_DATAPATH_OBJECT_H
#define KUBELB_DATAPATH_OBJECT_H

#include "datapath/internal.h"

/* The same programs three times; see bpf/kernel.bpf.h. In the order in which they are tried. */
enum object_build { BUILD_CASTS, BUILD_PLAIN, BUILD_OLD, BUILD_COUNT };

enum prog_index {
	PROG_CONNECT4,
	PROG_CONNECT6,
	PROG_GETPEER4,
	PROG_GETPEER6,
	PROG_SOCKOPS,
	PROG_ADJUST,
	PROG_COUNT
};

/* What is to be loaded. refused: see klb_control.refused. */
struct object_request {
	enum object_build build;
	__u16 refused[KLB_FEATURES];
	bool progs[PROG_COUNT]; /* these alone; requests made by object_request_all have all */
};

struct object {
	struct bpf_object *object;
	struct bpf_map *maps[MAP_COUNT];
	struct bpf_program *progs[PROG_COUNT]; /* NULL: left out */
};

/* Everything, in the first build that this kernel may take. */
void object_request_all(struct object_request *ret);

/* Opens the build and leaves out what is refused or not wished for. Returns 0 or a negative
 * errno with e. Close with object_close, also on failure. */
int object_open(struct object *o, const struct object_request *request, struct err *e);
void object_close(struct object *o);

/* The programs' own memory, shared with them; NULL where there is none, or before the load.
 * Give it back with object_memory_put, which takes NULL. */
struct klb_memory *object_memory(const struct object *o);
void object_memory_put(struct klb_memory *memory);

/* Has programs with that memory, of whatever version, take anybody for a listener. */
void object_forget_listeners(int map_fd);

/*
 * Which build, and which features, the kernel takes: by loading them one after another, and
 * attaching them to the cgroup (-1: not at all) for an instant where that is how they are used;
 * not those that are attached already, by feature (NULL: none is).
 * Fills request->build and request->refused. Returns 0, or the errno, negative, with which the
 * kernel refused a program that the main job needs; ret_prog (NULL is allowed) is that program
 * then.
 */
int object_find_refused(int cgroup_fd, const bool *attached, struct object_request *request,
			enum prog_index *ret_prog);

/* Whether the error says that something was short, and not that the kernel refuses it. */
bool object_is_transient(int code);

/* Whether the feature's programs can be attached, by doing so; 0 or a positive errno. o is
 * loaded. Nothing stays attached. */
int object_try_attach(const struct object *o, enum klb_feature feature, int cgroup_fd);

/* One required program or feature by itself, for --check: 0 or a positive errno. */
int object_try_prog(enum object_build build, enum prog_index prog, int cgroup_fd);

/* Keeps libbpf silent: a refusal that is asked for is no failure of ours. */
int object_print_nothing(enum libbpf_print_level level, const char *format, va_list args);

#endif
