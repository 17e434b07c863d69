/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a detach does for sockets that outlive it. klb_sockops bounds a connect by connectTimeout,
 * and replaces that by deadPeerTimeout once there is a connection; it lifts the latter while a peer
 * keeps its window shut. Without it a socket would keep whichever it has at that moment.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "datapath/object.h"
#include "net/netns.h"

/* How long a detach waits for connects; those of a longer connectTimeout go on without it. */
#define WAIT_MAX_MS 5000
/* The kernel's timers, and what it takes to send a SYN. */
#define WAIT_EXTRA_MS 200
#define WAIT_POLL_MS 20

/* --- wait ------------------------------------------------------------------------------ */

/* Values of any version: those of a later one are longer, and begin alike. */
union any_value {
	struct klb_stats stats;
	struct klb_counters counters;
	char room[1024];
};

/* Opens a pinned map whose values hold at least this version's. Returns a descriptor or -errno. */
static int open_any(const char *pin_dir, enum map_index map, size_t size, struct err *e)
{
	struct bpf_map_info info;
	int fd = pin_open_map(pin_dir, map_pins[map], &info, e);

	if (fd < 0 || (info.value_size >= size && info.value_size <= sizeof(union any_value)))
		return fd;
	close(fd);
	return err_set(e, EPROTO, "%s/%s: made by another version of kubelb", pin_dir,
		       map_pins[map]);
}

static int read_control(const char *pin_dir, struct klb_control *ret, struct err *e)
{
	struct bpf_map_info info;
	int fd = pin_open_map(pin_dir, map_pins[MAP_CONTROL], &info, e);

	if (fd < 0)
		return fd;
	control_read(fd, &info, ret);
	close(fd);
	return 0;
}

static bool is_connecting(int stats_fd)
{
	union any_value value;

	for (__u32 id = 0; id < KLB_MAX_IDS; id++)
		if (!bpf_map_lookup_elem(stats_fd, &id, &value) &&
		    (__s64)value.stats.connecting > 0)
			return true;
	return false;
}

void release_wait(const char *pin_dir)
{
	const struct timespec pause = { .tv_nsec = WAIT_POLL_MS * 1000000L };
	int fd = open_any(pin_dir, MAP_STATS, sizeof(struct klb_stats), NULL);
	__u64 end_ns = clock_now_ns() + WAIT_EXTRA_MS * NS_PER_MS;
	struct klb_control control;

	if (fd < 0)
		return;
	/* With 0 connects are left to the host's limits, which are minutes. */
	if (!read_control(pin_dir, &control, NULL) && control.connect_timeout_ms) {
		__u32 ms = control.connect_timeout_ms;

		end_ns += (ms < WAIT_MAX_MS ? ms : WAIT_MAX_MS) * NS_PER_MS;
		while (is_connecting(fd) && clock_now_ns() < end_ns)
			nanosleep(&pause, NULL);
	}
	close(fd);
}

/* --- give back ------------------------------------------------------------------------- */

struct release {
	struct object o;
	int link; /* of the iterator */
	__u64 *seen; /* namespaces */
	size_t n_seen;
	unsigned int others; /* connections of other namespaces that were reached */
	unsigned int failed;
	int code; /* the first errno that has stopped a pass over one namespace */
};

/* The iterator passes over the sockets of the namespace in which it is made. */
static int make_pass(void *arg)
{
	const struct release *rel = arg;
	int fd = bpf_iter_create(rel->link);

	return fd < 0 ? -errno : fd;
}

/* Makes the pass, and closes fd. */
static void run_pass(struct release *rel, int fd)
{
	char letters[4096];
	ssize_t n;

	while ((n = read(fd, letters, sizeof(letters))) > 0 || (n < 0 && errno == EAGAIN))
		for (ssize_t i = 0; i < n; i++) {
			rel->others += !!(letters[i] & KLB_RELEASED_OTHER_NETNS);
			rel->failed += !!(letters[i] & KLB_RELEASED_FAILED);
		}
	if (n < 0 && !rel->code)
		rel->code = errno;
	close(fd);
}

static bool wants(void *arg, __u64 netns)
{
	const struct release *rel = arg;

	for (size_t i = 0; i < rel->n_seen; i++)
		if (rel->seen[i] == netns)
			return false;
	return true;
}

static bool note(struct release *rel, __u64 netns)
{
	__u64 *seen = realloc(rel->seen, (rel->n_seen + 1) * sizeof(*seen));

	if (!seen) {
		rel->code = ENOMEM;
		return false;
	}
	rel->seen = seen;
	seen[rel->n_seen++] = netns;
	return true;
}

static bool takes(void *arg, __u64 netns, int fd)
{
	struct release *rel = arg;

	run_pass(rel, fd);
	return note(rel, netns);
}

/* The records are alike in every version. */
static int use_sockets(struct release *rel, const char *pin_dir, struct err *e)
{
	int r, fd = open_any(pin_dir, MAP_SOCKETS, sizeof(struct klb_socket), e);

	if (fd < 0)
		return fd;
	r = bpf_map__reuse_fd(rel->o.maps[MAP_SOCKETS], fd);
	close(fd);
	return r ? err_set(e, -r, "%s/%s: %s", pin_dir, map_pins[MAP_SOCKETS], bpf_errno_hint(-r))
		 : 0;
}

/* Loads the program with the records, and a copy of control in this version's form. */
static int load(struct release *rel, const char *pin_dir, const struct klb_control *control,
		struct err *e)
{
	libbpf_print_fn_t before = libbpf_set_print(object_print_nothing);
	struct object_request request;
	__u32 zero = 0;
	int r;

	object_request_release(&request);
	r = object_open(&rel->o, &request, e);
	for (int i = 0; !r && i < MAP_COUNT; i++)
		bpf_map__set_autocreate(rel->o.maps[i], i == MAP_SOCKETS || i == MAP_CONTROL);
	if (!r)
		r = use_sockets(rel, pin_dir, e);
	if (!r) {
		r = bpf_object__load(rel->o.object);
		if (!r && bpf_map_update_elem(bpf_map__fd(rel->o.maps[MAP_CONTROL]), &zero, control,
					      BPF_ANY))
			r = -errno;
		if (r)
			err_set(e, -r, "cannot load klb_release, which takes Linux 5.15: %s",
				bpf_errno_hint(-r));
	}
	libbpf_set_print(before);
	return r;
}

/* Connections that the kernel counts outside of the host's network namespace. */
static __s64 count_others(const char *pin_dir)
{
	int fd = open_any(pin_dir, MAP_COUNTERS, sizeof(struct klb_counters), NULL);
	union any_value value;
	__u32 zero = 0;

	if (fd < 0)
		return 0;
	if (bpf_map_lookup_elem(fd, &zero, &value))
		value.counters.other_netns = 0;
	close(fd);
	return (__s64)value.counters.other_netns;
}

/* The own namespace first; others only if there is, or may be, something to be found. */
static int pass_over_all(struct release *rel, const char *pin_dir,
			 const struct klb_control *control, struct err *e)
{
	const struct netns_visitor v = { .wants = wants, .makes = make_pass, .takes = takes, rel };
	__s64 others = count_others(pin_dir);
	int r = 0, fd = make_pass(rel);
	__u64 own = 0;

	if (fd < 0)
		return err_set(e, -fd, "cannot run klb_release: %s", bpf_errno_hint(-fd));
	run_pass(rel, fd);
	if (!netns_own(&own))
		note(rel, own);
	if (others > 0 || !datapath_is_host_netns(control))
		r = netns_visit(0, 0, &v, e);
	if (!r && rel->others < others)
		r = netns_visit_sockets(0, &v, e);
	if (!r && rel->others < others)
		r = err_set(e, ESRCH, "%lld of them are in network namespaces that cannot be found",
			    (long long)(others - rel->others));
	if (!r && (rel->failed || rel->code))
		r = err_set(e, rel->code ? rel->code : EIO, "%u of them refuse it: %s", rel->failed,
			    err_reason(rel->code ? rel->code : EIO));
	return r;
}

int release_sockets(const char *pin_dir, struct err *e)
{
	struct release rel = { .link = -1 };
	struct klb_control control;
	int r = read_control(pin_dir, &control, e);

	/* Nothing was set without klb_sockops, nor by a load that was killed before this pin. */
	if (r == -ENOENT || (!r && control.refused[KLB_FEATURE_SOCKOPS]))
		return 0;
	if (r)
		return r;
	r = load(&rel, pin_dir, &control, e);
	if (!r) {
		rel.link = bpf_link_create(bpf_program__fd(rel.o.progs[PROG_RELEASE]), 0,
					   BPF_TRACE_ITER, NULL);
		r = rel.link < 0 ? err_set(e, errno, "cannot attach klb_release: %s",
					   bpf_errno_hint(errno))
				 : pass_over_all(&rel, pin_dir, &control, e);
	}
	if (rel.link >= 0)
		close(rel.link);
	object_close(&rel.o);
	free(rel.seen);
	return r;
}
