/* SPDX-License-Identifier: BSD-2-Clause */
/* Opens and loads the programs, and finds out which build and which features the kernel accepts. */
#include "datapath/object.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/array.h"
#include "base/cli.h"
#include "kubelb_casts.skel.h"
#include "kubelb_old.skel.h"
#include "kubelb_plain.skel.h"
#include "host/node.h"

static const char *const prog_names[PROG_COUNT] = {
	[PROG_CONNECT4] = "klb_connect4", [PROG_CONNECT6] = "klb_connect6",
	[PROG_GETPEER4] = "klb_getpeer4", [PROG_GETPEER6] = "klb_getpeer6",
	[PROG_SOCKOPS] = "klb_sockops",	  [PROG_ADJUST] = "klb_adjust",
	[PROG_RELEASE] = "klb_release",
};

static bool is_of(enum prog_index prog, enum klb_feature feature)
{
	switch (feature) {
	case KLB_FEATURE_GETPEERNAME:
		return prog == PROG_GETPEER4 || prog == PROG_GETPEER6;
	case KLB_FEATURE_SOCKOPS:
		return prog == PROG_SOCKOPS;
	case KLB_FEATURE_ADJUST:
		return prog == PROG_ADJUST;
	default:
		return false;
	}
}

/* Whether the program is attached to a cgroup. The others are called directly. */
static bool is_cgroup_hook(enum prog_index prog)
{
	return prog != PROG_ADJUST && prog != PROG_RELEASE;
}

void object_request_all(struct object_request *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->build = node_kernel_is(6, 2) ? BUILD_CASTS : BUILD_PLAIN;
	/* It is not refused, but not used either. */
	if (ret->build != BUILD_CASTS)
		ret->refused[KLB_FEATURE_CASTS] = ENOSYS;
	for (int i = 0; i < PROG_COUNT; i++)
		ret->progs[i] = i != PROG_RELEASE;
}

static bool is_requested(const struct object_request *request, enum prog_index prog)
{
	for (int f = 0; f < KLB_FEATURES; f++)
		if (request->refused[f] && is_of(prog, (enum klb_feature)f))
			return false;
	return request->progs[prog];
}

/* --- open ------------------------------------------------------------------------------ */

static const void *elf_of(enum object_build build, size_t *ret_size)
{
	switch (build) {
	case BUILD_CASTS:
		return kubelb_casts__elf_bytes(ret_size);
	case BUILD_PLAIN:
		return kubelb_plain__elf_bytes(ret_size);
	default:
		return kubelb_old__elf_bytes(ret_size);
	}
}

static int missing(const char *what, struct err *e)
{
	return err_set(e, ENOENT, "%s is not among the programs: a broken build of kubelb", what);
}

static int find_maps(struct object *o, struct err *e)
{
	char name[32];

	for (int i = 0; i < MAP_COUNT; i++) {
		snprintf(name, sizeof(name), "klb_%s", map_pins[i]);
		o->maps[i] = bpf_object__find_map_by_name(o->object, name);
		if (!o->maps[i])
			return missing(name, e);
	}
	return 0;
}

/* Before the load: the kernel freezes the map then. */
static int set_options(struct object *o, const struct object_request *request, struct err *e)
{
	struct klb_options options = { .sockops = !request->refused[KLB_FEATURE_SOCKOPS],
				       .wakeup = !request->refused[KLB_FEATURE_WAKEUP] };
	struct bpf_map *map = bpf_object__find_map_by_name(o->object, ".rodata");

	snprintf(options.version, sizeof(options.version), "%s", KLB_VERSION);
	if (!map || bpf_map__set_initial_value(map, &options, sizeof(options)))
		return missing("klb_options", e);
	return 0;
}

static int find_progs(struct object *o, const struct object_request *request, struct err *e)
{
	for (int i = 0; i < PROG_COUNT; i++) {
		struct bpf_program *p = bpf_object__find_program_by_name(o->object, prog_names[i]);
		bool wanted = is_requested(request, (enum prog_index)i);

		if (!p)
			return missing(prog_names[i], e);
		bpf_program__set_autoload(p, wanted);
		o->progs[i] = wanted ? p : NULL;
	}
	return 0;
}

int object_open(struct object *o, const struct object_request *request, struct err *e)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = "kubelb");
	const void *elf;
	size_t size = 0;
	int r;

	memset(o, 0, sizeof(*o));
	elf = elf_of(request->build, &size);
	o->object = bpf_object__open_mem(elf, size, &opts);
	if (!o->object)
		return err_set(e, errno, "cannot open the programs: %s; see kubelb-load --check",
			       bpf_errno_hint(errno));
	r = find_maps(o, e);
	if (!r)
		r = set_options(o, request, e);
	if (!r)
		r = find_progs(o, request, e);
	if (!r && request->refused[KLB_FEATURE_WAKEUP])
		bpf_map__set_autocreate(o->maps[MAP_WAKEUP], false);
	return r;
}

void object_close(struct object *o)
{
	bpf_object__close(o->object);
	memset(o, 0, sizeof(*o));
}

/*
 * Maps the kernel's map itself. What libbpf calls the initial value is a copy, unless it has loaded
 * the object as a skeleton.
 */
struct klb_memory *object_memory(const struct object *o)
{
	struct bpf_map *map = bpf_object__find_map_by_name(o->object, ".bss");

	void *at = MAP_FAILED;

	if (map && bpf_map__value_size(map) == sizeof(struct klb_memory))
		at = mmap(NULL, sizeof(struct klb_memory), PROT_READ | PROT_WRITE, MAP_SHARED,
			  bpf_map__fd(map), 0);
	return at == MAP_FAILED ? NULL : at;
}

/* Maps one page: another version's memory may have another size. */
void object_forget_listeners(int map_fd)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *at = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, map_fd, 0);

	if (at == MAP_FAILED)
		return;
	__atomic_store_n(&((struct klb_memory *)at)->listens_known, 0, __ATOMIC_RELEASE);
	munmap(at, page);
}

void object_memory_put(struct klb_memory *memory)
{
	if (memory)
		munmap(memory, sizeof(*memory));
}

/* --- trials --- */

int object_print_nothing(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

/* The attachment ends when its descriptor is closed. */
static int attach_for_an_instant(const struct bpf_program *prog, int cgroup_fd)
{
	int fd = bpf_link_create(bpf_program__fd(prog), cgroup_fd,
				 bpf_program__expected_attach_type(prog), NULL);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

int object_try_attach(const struct object *o, enum klb_feature feature, int cgroup_fd)
{
	int code = 0;

	for (int i = 0; !code && i < PROG_COUNT; i++)
		if (o->progs[i] && is_of((enum prog_index)i, feature) &&
		    is_cgroup_hook((enum prog_index)i))
			code = attach_for_an_instant(o->progs[i], cgroup_fd);
	return code;
}

/*
 * Loads what is requested, and only that, and attaches it for an instant to the cgroup (-1: does
 * not attach). Returns 0 or a positive errno.
 */
static int try_request(const struct object_request *request, int cgroup_fd)
{
	struct object o;
	int code = -object_open(&o, request, NULL);

	if (!code)
		code = -bpf_object__load(o.object);
	for (int i = 0; !code && cgroup_fd >= 0 && i < PROG_COUNT; i++)
		if (o.progs[i] && is_cgroup_hook((enum prog_index)i))
			code = attach_for_an_instant(o.progs[i], cgroup_fd);
	object_close(&o);
	return code;
}

/* Requests only the maps that every program needs. */
static void request_nothing(enum object_build build, struct object_request *ret)
{
	object_request_all(ret);
	ret->build = build;
	memset(ret->progs, 0, sizeof(ret->progs));
	ret->refused[KLB_FEATURE_WAKEUP] = ENOSYS;
}

int object_try_prog(enum object_build build, enum prog_index prog, int cgroup_fd)
{
	struct object_request request;

	request_nothing(build, &request);
	request.progs[prog] = true;
	return try_request(&request, cgroup_fd);
}

static int try_required(enum object_build build, enum prog_index *ret_prog)
{
	static const enum prog_index required[] = { PROG_CONNECT4, PROG_CONNECT6 };
	struct object_request request;
	int code = 0;

	/* Only loads them. Whether they can be attached becomes clear when they are. */
	for (size_t i = 0; !code && i < ARRAY_SIZE(required); i++) {
		request_nothing(build, &request);
		request.progs[required[i]] = true;
		code = try_request(&request, -1);
		if (code && ret_prog)
			*ret_prog = required[i];
	}
	return code;
}

static int try_feature(enum object_build build, enum klb_feature feature, int cgroup_fd)
{
	struct object_request request;

	request_nothing(build, &request);
	if (feature == KLB_FEATURE_WAKEUP)
		request.refused[KLB_FEATURE_WAKEUP] = 0;
	for (int i = 0; i < PROG_COUNT; i++)
		request.progs[i] = is_of((enum prog_index)i, feature);
	return try_request(&request, cgroup_fd);
}

void object_request_release(struct object_request *ret)
{
	request_nothing(BUILD_PLAIN, ret);
	ret->progs[PROG_RELEASE] = true;
}

bool object_is_transient(int code)
{
	return err_is_shortage(code) || code == EAGAIN || code == EINTR;
}

int object_find_refused(int cgroup_fd, const bool *attached, struct object_request *request,
			enum prog_index *ret_prog)
{
	libbpf_print_fn_t before = libbpf_set_print(object_print_nothing);
	enum object_build build = request->build;
	int first = try_required(build, ret_prog), code = first;

	/* An older kernel answers the same, so the older builds are tried. If none loads, the first
	 * error is reported. */
	while (code && build + 1 < BUILD_COUNT)
		code = try_required(++build, NULL);
	if (!code && build != request->build) {
		if (request->build == BUILD_CASTS)
			request->refused[KLB_FEATURE_CASTS] = (__u16)first;
		request->build = build;
	}
	for (int f = 0; f < KLB_FEATURE_CASTS; f++)
		request->refused[f] = (__u16)try_feature(request->build, (enum klb_feature)f,
							 attached && attached[f] ? -1 : cgroup_fd);
	/*
	 * If every build's connect programs are refused, the sockops program of the build with
	 * casts tells whether the kernel accepts casts.
	 */
	if (code && build == BUILD_COUNT - 1 && request->build == BUILD_CASTS)
		request->refused[KLB_FEATURE_CASTS] = request->refused[KLB_FEATURE_SOCKOPS];
	for (int f = 0; !code && f < KLB_FEATURES; f++)
		if (object_is_transient(request->refused[f]))
			code = first = request->refused[f];
	libbpf_set_print(before);
	return code ? -first : 0;
}
