/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Attaches the data path: the first time, again, or over an older version.
 *
 * Maps that fit are reused, and the programs are loaded with them. Then the links are switched to
 * the new programs one by one; the kernel runs a program at every moment. What has to be new is
 * made under another name and renamed.
 */
#include "base/array.h"
#include "base/random.h"
#include "datapath/object.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <linux/membarrier.h>

#include "net/endpoint.h"
#include "net/netns.h"
#include "net/sock_diag.h"

#define LOCK_WAIT_MS 20000
/* The pin that is made last: if it exists, all exist. */
#define LAST_LINK "connect6"

struct datapath_load {
	char pin_dir[PATH_TEXT_MAX];
	char new_dir[PATH_TEXT_MAX]; /* where a first attachment is built */
	char cgroup[PATH_TEXT_MAX];
	int cgroup_fd;
	int lock_fd;
	bool exists; /* pin_dir holds an attachment of kubelb */
	bool new_tables; /* frontends, lookup, candidates and backends are new maps */
	bool reused[MAP_COUNT];
	unsigned long long cgroup_id;
	struct object_request request; /* what is loaded and what is left out */
	struct object o;
	struct bpf_map_info old[MAP_COUNT]; /* of the pinned maps; id 0: none */
	int old_fds[MAP_COUNT];
	__u32 pinned_id[MAP_COUNT]; /* of the map behind the pin; 0: none */
	struct datapath view; /* the maps in use, old or new */
	struct datapath_state state;
	struct klb_stats carried[KLB_MAX_IDS]; /* the old stats, as they were copied */
	__u64 carried_other_netns; /* and klb_counters.other_netns */
	struct link_slot slots[LINK_COUNT_MAX];
	unsigned int n_slots;
};

static void add_slot(struct datapath_load *l, const char *name, enum prog_index prog)
{
	if (l->o.progs[prog])
		l->slots[l->n_slots++] = (struct link_slot){
			.name = name, .prog = l->o.progs[prog], .link_fd = -1, .old_prog_fd = -1
		};
}

/*
 * The order matters: a socket of a connect program must find the program that records it and sees
 * it end.
 */
static void init_slots(struct datapath_load *l)
{
	l->n_slots = 0;
	add_slot(l, "getpeername4", PROG_GETPEER4);
	add_slot(l, "getpeername6", PROG_GETPEER6);
	add_slot(l, "sockops", PROG_SOCKOPS);
	add_slot(l, "connect4", PROG_CONNECT4);
	add_slot(l, LAST_LINK, PROG_CONNECT6);
}

/* --- libbpf's words --------------------------------------------------------------- */

/* The first warning of libbpf during a failed load, for the message. */
static char last_warning[200];

static int keep_warning(enum libbpf_print_level level, const char *format, va_list args)
{
	char text[sizeof(last_warning)];

	if (level != LIBBPF_WARN)
		return 0;
	vsnprintf(text, sizeof(text), format, args);
	/* The first of several warnings names the cause. */
	if (!last_warning[0]) {
		text[strcspn(text, "\n")] = '\0';
		memcpy(last_warning, text, sizeof(text));
	}
	return 0;
}

/* --- begin ---------------------------------------------------------------------------- */

static int find_cgroup(struct datapath_load *l, const char *cgroup, struct err *e)
{
	if (cgroup && strlen(cgroup) >= sizeof(l->cgroup))
		return err_set(e, ENAMETOOLONG, "cgroup %.64s...: path too long", cgroup);
	if (cgroup) {
		snprintf(l->cgroup, sizeof(l->cgroup), "%s", cgroup);
	} else {
		int r = mounts_cgroup2_root(l->cgroup, sizeof(l->cgroup), e);

		if (r)
			return r;
	}
	l->cgroup_fd = mounts_open_cgroup(l->cgroup, &l->cgroup_id, e);
	if (l->cgroup_fd < 0)
		return l->cgroup_fd;
	/*
	 * A cgroup namespace shows the container's own cgroup as the root. Programs attached there
	 * would balance only the container.
	 */
	if (!cgroup && l->cgroup_id != 1)
		return err_set(e, EINVAL,
			       "cgroup %s: not the host's root but a container's view of its own "
			       "cgroup; mount the host's /sys/fs/cgroup into the container too (at "
			       "/host/cgroup, say: it is found anywhere)",
			       l->cgroup);
	return 0;
}

/*
 * An upgrade that was killed after switching the links and before changing the pins leaves programs
 * that run on maps without a pin. The maps that the programs use take precedence over the pinned
 * ones.
 */
static void prefer_live_maps(struct datapath_load *l)
{
	for (int i = 0; i < MAP_COUNT; i++) {
		struct bpf_map_info info = { 0 };
		int fd = links_live_map(l->pin_dir, map_pins[i], &info);

		if (fd < 0)
			continue;
		if (l->old_fds[i] >= 0)
			close(l->old_fds[i]);
		l->old_fds[i] = fd;
		l->old[i] = info;
	}
}

/* Opens the maps that an earlier load of any version has pinned. */
static int open_old(struct datapath_load *l, struct err *e)
{
	struct stat st;

	if (stat(l->pin_dir, &st))
		return errno == ENOENT ? 0
				       : err_set(e, errno, "%s: %s", l->pin_dir, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return err_set(e, ENOTDIR, "%s: not a directory; use another one with --pin",
			       l->pin_dir);
	for (int i = 0; i < MAP_COUNT; i++) {
		struct err ignored;
		int fd = pin_open_map(l->pin_dir, map_pins[i], &l->old[i], &ignored);

		if (fd == -ENOENT)
			continue;
		if (fd < 0) {
			*e = ignored;
			return fd;
		}
		l->old_fds[i] = fd;
		l->pinned_id[i] = l->old[i].id;
		l->exists = true;
	}
	if (l->exists)
		prefer_live_maps(l);
	return 0;
}

static bool fits(const struct bpf_map *map, const struct bpf_map_info *old)
{
	return old->type == (__u32)bpf_map__type(map) && old->key_size == bpf_map__key_size(map) &&
	       old->value_size == bpf_map__value_size(map) &&
	       old->max_entries == bpf_map__max_entries(map) &&
	       old->map_flags == bpf_map__map_flags(map);
}

static int reuse(struct datapath_load *l, int index, struct err *e)
{
	int r = bpf_map__reuse_fd(l->o.maps[index], l->old_fds[index]);

	l->reused[index] = true;
	return r ? err_set(e, -r, "%s/%s: %s", l->pin_dir, map_pins[index], bpf_errno_hint(-r)) : 0;
}

static bool usable(const struct datapath_load *l, int index)
{
	return l->old_fds[index] >= 0 && fits(l->o.maps[index], &l->old[index]);
}

/* The maps that a plan is written to. */
static bool is_table(int index)
{
	return index == MAP_FRONTENDS || index == MAP_LOOKUP || index == MAP_CANDIDATES ||
	       index == MAP_BACKENDS;
}

/*
 * Reuses each old map that fits. The tables are reused all together or not at all: a plan that is
 * half in an old map and half in a new one would be nonsense to the programs. The same holds when
 * an upgrade was killed before its pins: the tables that programs read are found through the
 * programs, but `frontends` and `backends` are lost.
 */
static int reuse_maps(struct datapath_load *l, struct err *e)
{
	int r = 0;

	for (int i = 0; i < MAP_COUNT; i++)
		l->new_tables |= is_table(i) && (!usable(l, i) || l->old[i].id != l->pinned_id[i]);
	for (int i = 0; !r && i < MAP_COUNT; i++)
		if (usable(l, i) && !(is_table(i) && l->new_tables))
			r = reuse(l, i, e);
	return r;
}

/*
 * Says why the programs were not loaded: the first feature that the kernel lacks, or otherwise the
 * kernel's own error.
 */
static int load_error(const struct datapath_load *l, int code, struct err *e)
{
	struct datapath_feature features[DATAPATH_FEATURES_MAX];
	unsigned int n = datapath_features(l->pin_dir, l->cgroup, features, DATAPATH_FEATURES_MAX);

	for (unsigned int i = 0; i < n; i++)
		if (features[i].required && !features[i].present)
			return err_set(e, code,
				       "cannot load the programs: %s is missing: %s [%s]; "
				       "kubelb-load --check lists what is needed",
				       features[i].name, features[i].purpose, features[i].detail);
	return err_set(e, code, "cannot load the programs: %s%s%s%s", bpf_errno_hint(code),
		       last_warning[0] ? " (" : "", last_warning, last_warning[0] ? ")" : "");
}

static int open_and_load(struct datapath_load *l, struct err *e)
{
	libbpf_print_fn_t before = libbpf_set_print(keep_warning);
	int r;

	object_close(&l->o);
	last_warning[0] = '\0';
	r = object_open(&l->o, &l->request, e);
	links_close(l->slots, l->n_slots);
	init_slots(l);
	if (!r && l->exists)
		r = links_open(l->pin_dir, l->cgroup_id, l->slots, l->n_slots, e);
	if (!r)
		r = reuse_maps(l, e);
	if (!r) {
		r = bpf_object__load(l->o.object);
		if (r)
			err_set(e, -r, "%s", bpf_errno_hint(-r));
	}
	libbpf_set_print(before);
	return r;
}

static bool has_link(const struct datapath_load *l, enum prog_index prog)
{
	for (unsigned int i = 0; i < l->n_slots; i++)
		if (l->slots[i].prog == l->o.progs[prog])
			return l->slots[i].link_fd >= 0;
	return false;
}

/*
 * By feature: whether its programs are attached already. Trying to attach them again beside the
 * running ones would make two of them work on one socket.
 */
static void find_attached(const struct datapath_load *l, bool *ret)
{
	memset(ret, 0, KLB_FEATURES * sizeof(*ret));
	ret[KLB_FEATURE_GETPEERNAME] = has_link(l, PROG_GETPEER4) && has_link(l, PROG_GETPEER6);
	ret[KLB_FEATURE_SOCKOPS] = has_link(l, PROG_SOCKOPS);
}

/* Whether the optional programs that are not attached yet can be attached. */
static int try_attaching(const struct datapath_load *l, const bool *attached)
{
	int code = 0;

	for (int f = 0; !code && f < KLB_FEATURES; f++)
		if (!attached[f])
			code = object_try_attach(&l->o, (enum klb_feature)f, l->cgroup_fd);
	return code;
}

/* Loads all programs if the kernel accepts them, otherwise all but those that it refuses. */
static int load_programs(struct datapath_load *l, bool dry_run, struct err *e)
{
	bool attached[KLB_FEATURES];
	int r;

	object_request_all(&l->request);
	r = open_and_load(l, e);
	find_attached(l, attached);
	if (!r && (dry_run || !try_attaching(l, attached)))
		return 0;
	/* A temporary shortage is no refusal. What runs stays as it is. */
	if (r && object_is_transient(-r))
		return load_error(l, -r, e);
	r = object_find_refused(l->cgroup_fd, attached, &l->request, NULL);
	if (!r) {
		r = open_and_load(l, e);
		if (!r)
			return 0;
	}
	return load_error(l, -r, e);
}

/* Copies the values of an older map into the new map of the same name, as far as they fit. */
static int carry_map(struct datapath_load *l, int index, struct err *e)
{
	size_t size = bpf_map__value_size(l->o.maps[index]);
	size_t old_size = l->old[index].value_size;
	char *value = calloc(1, size > old_size ? size : old_size);
	__u32 key, *previous = NULL;
	int r = 0;

	if (!value)
		return err_no_memory(e);
	while (!r && !bpf_map_get_next_key(l->old_fds[index], previous, &key)) {
		previous = &key;
		if (bpf_map_lookup_elem(l->old_fds[index], &key, value))
			continue;
		if (bpf_map_update_elem(bpf_map__fd(l->o.maps[index]), &key, value, BPF_ANY) &&
		    errno != E2BIG)
			r = err_set(e, errno, "%s/%s: cannot carry it over: %s", l->pin_dir,
				    map_pins[index], bpf_errno_hint(errno));
		memset(value, 0, size > old_size ? size : old_size);
	}
	free(value);
	return r;
}

/* Reads the counters of an older version, of any size, into this version's. */
static void read_old_stats(const struct datapath_load *l, struct klb_stats *ret)
{
	size_t old_size = l->old[MAP_STATS].value_size;
	size_t size = old_size < sizeof(*ret) ? old_size : sizeof(*ret);
	char *value = malloc(old_size);

	for (__u32 id = 0; value && id < KLB_MAX_IDS; id++)
		if (!bpf_map_lookup_elem(l->old_fds[MAP_STATS], &id, value))
			memcpy(&ret[id], value, size);
	free(value);
}

/*
 * Versions up to 0.1 did not record whose counters they are. The counters of a removed backend are
 * cleared: its sockets match no generation.
 */
static void set_generations(const struct datapath_load *l, struct klb_stats *ret)
{
	char value[256] = { 0 };
	struct klb_backend backend;

	if (l->old[MAP_STATS].value_size > offsetof(struct klb_stats, generation) ||
	    l->old[MAP_BACKENDS].value_size > sizeof(value))
		return;
	for (__u32 id = 0; id < KLB_MAX_IDS; id++) {
		if (bpf_map_lookup_elem(l->old_fds[MAP_BACKENDS], &id, value)) {
			memset(&ret[id], 0, sizeof(ret[id]));
			continue;
		}
		memcpy(&backend, value, sizeof(backend));
		ret[id].generation = backend.generation;
	}
}

/* Writes exactly what was read, and keeps it for carry_late_stats. */
static int carry_stats(struct datapath_load *l, struct err *e)
{
	if (l->old_fds[MAP_STATS] < 0 || l->reused[MAP_STATS])
		return 0;
	read_old_stats(l, l->carried);
	set_generations(l, l->carried);
	for (__u32 id = 0; id < KLB_MAX_IDS; id++)
		if (bpf_map_update_elem(bpf_map__fd(l->o.maps[MAP_STATS]), &id, &l->carried[id],
					BPF_ANY))
			return err_set(e, errno, "%s/stats: cannot carry it over: %s", l->pin_dir,
				       bpf_errno_hint(errno));
	return 0;
}

/* Reads klb_counters.other_netns of the old map. Returns false when it has none. */
static bool read_old_other_netns(const struct datapath_load *l, __u64 *ret)
{
	char value[256] = { 0 };
	__u32 zero = 0;

	if (l->old_fds[MAP_COUNTERS] < 0 || l->reused[MAP_COUNTERS] ||
	    l->old[MAP_COUNTERS].value_size > sizeof(value) ||
	    l->old[MAP_COUNTERS].value_size < offsetof(struct klb_counters, selftest) ||
	    bpf_map_lookup_elem(l->old_fds[MAP_COUNTERS], &zero, value))
		return false;
	memcpy(ret, value + offsetof(struct klb_counters, other_netns), sizeof(*ret));
	return true;
}

/* The tables are filled from the plan. The sockets keep their records themselves. */
static int carry_maps(struct datapath_load *l, struct err *e)
{

	static const int carried[] = { MAP_BACKENDS, MAP_ADMIN, MAP_CONTROL, MAP_COUNTERS,
				       MAP_EVENTS };
	int r = 0;

	for (size_t i = 0; !r && i < ARRAY_SIZE(carried); i++) {
		int index = carried[i];

		if (l->old_fds[index] >= 0 && !l->reused[index])
			r = carry_map(l, index, e);
	}
	read_old_other_netns(l, &l->carried_other_netns);
	return r ? r : carry_stats(l, e);
}

/*
 * Between the copy of the old counters and the switch of the last link, connects and closes were
 * still counted in the old map. Adds the difference. The kernel is already counting in the new map,
 * so the kernel itself has to add it.
 */
static void carry_late_stats(struct datapath_load *l)
{
	static struct klb_stats now[KLB_MAX_IDS];

	if (l->old_fds[MAP_STATS] < 0 || l->reused[MAP_STATS] || !l->o.progs[PROG_ADJUST])
		return;
	/* Waits until no CPU runs an old program any more (synchronize_rcu). */
	syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
	memcpy(now, l->carried, sizeof(now));
	read_old_stats(l, now);
	for (__u32 id = 1; id < KLB_MAX_IDS; id++) {
		struct klb_adjustment a = {
			.id = id,
			.generation = l->carried[id].generation,
			.active = (__s64)(now[id].active - l->carried[id].active),
			.connecting = (__s64)(now[id].connecting - l->carried[id].connecting),
			.opened = now[id].opened - l->carried[id].opened,
		};
		LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &a, .ctx_size_in = sizeof(a));

		if (a.generation && (a.active || a.connecting || a.opened))
			bpf_prog_test_run_opts(bpf_program__fd(l->o.progs[PROG_ADJUST]), &opts);
	}
}

/* The same for the count of sockets outside of the host's network namespace. */
static void carry_late_other_netns(struct datapath_load *l)
{
	struct klb_adjustment a = { 0 };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &a, .ctx_size_in = sizeof(a));
	__u64 now;

	if (!l->o.progs[PROG_ADJUST] || !read_old_other_netns(l, &now))
		return;
	a.other_netns = (__s64)(now - l->carried_other_netns);
	if (a.other_netns)
		bpf_prog_test_run_opts(bpf_program__fd(l->o.progs[PROG_ADJUST]), &opts);
}

/* Whether the kernel refuses this map. The programs work without it. */
static bool is_left_out(const struct datapath_load *l, int index)
{
	return index == MAP_WAKEUP && l->request.refused[KLB_FEATURE_WAKEUP];
}

static int read_state(struct datapath_load *l, struct err *e)
{
	for (int i = 0; i < MAP_COUNT; i++)
		l->view.fds[i] = is_left_out(l, i) ? -1 : bpf_map__fd(l->o.maps[i]);
	return datapath_read(&l->view, &l->state, e);
}

static struct datapath_load *load_new(const char *pin_dir)
{
	struct datapath_load *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	snprintf(l->pin_dir, sizeof(l->pin_dir), "%s", pin_dir);
	l->cgroup_fd = l->lock_fd = -1;
	for (int i = 0; i < MAP_COUNT; i++)
		l->old_fds[i] = -1;
	datapath_init(&l->view, pin_dir);
	return l;
}

/* Whether all pins of an attachment exist, apart from those that a kernel may refuse. */
static bool is_complete(const char *dir)
{
	char path[PATH_TEXT_MAX];

	for (int i = 0; i < MAP_COUNT; i++)
		if (!map_is_optional(i) &&
		    (path_join(path, dir, map_pins[i], NULL) || access(path, F_OK)))
			return false;
	return !path_join(path, dir, "links/" LAST_LINK, NULL) && !access(path, F_OK);
}

/*
 * Cleans up new_dir after a first load that was killed. If it had pinned everything, it is
 * balancing already, and only the rename is missing. Otherwise its pins are removed.
 */
static int clean_new_dir(struct datapath_load *l, struct err *e)
{
	bool removed;

	/* A directory of that name that belongs to somebody else is ignored. */
	if (!access(l->pin_dir, F_OK))
		return is_private_dir(l->new_dir) ? links_remove_tree(l->new_dir, &removed, e) : 0;
	if (is_complete(l->new_dir) && !rename(l->new_dir, l->pin_dir))
		return 0;
	/* Before a first load the lock is on this directory, so it stays. */
	return links_empty_tree(l->new_dir, e);
}

/*
 * Removes the pins that a killed upgrade has left under temporary names, and the frontend of its
 * test connect, which would redirect a port of loopback. In a map of another version the frontend
 * stays until the links are switched, because that map's values have another size.
 */
static int remove_leftovers(struct datapath_load *l, struct err *e)
{
	bool ours = l->old[MAP_LOOKUP].value_size == sizeof(struct klb_lookup);
	int r = links_remove_leftovers(l->pin_dir, e);

	selftest_remove_leftovers(ours ? l->old_fds[MAP_LOOKUP] : -1, l->cgroup);
	return r;
}

/* Takes the lock and cleans up, so that the pins can be changed. */
static int prepare_place(struct datapath_load *l, struct err *e)
{
	int r = mounts_ensure_bpffs(l->pin_dir, e);

	if (r)
		return r;
	l->lock_fd = datapath_lock(l->pin_dir, true, LOCK_WAIT_MS, e);
	if (l->lock_fd < 0)
		return l->lock_fd;
	r = clean_new_dir(l, e);
	if (!r)
		r = open_old(l, e);
	return r ? r : remove_leftovers(l, e);
}

/*
 * The same without changing anything: no mount, no directory, and a lock only if there is something
 * to lock.
 */
static int look_at_place(struct datapath_load *l, struct err *e)
{
	l->lock_fd = datapath_lock(l->pin_dir, false, LOCK_WAIT_MS, e);
	if (l->lock_fd == -ENOENT)
		return 0;
	return l->lock_fd < 0 ? l->lock_fd : open_old(l, e);
}

int datapath_load_begin(const char *pin_dir, const char *cgroup, bool dry_run,
			struct datapath_load **ret, struct err *e)
{
	struct datapath_load *l = load_new(pin_dir);
	int r;

	if (!l)
		return err_no_memory(e);
	r = require_root(e);
	if (!r)
		r = path_with_suffix(l->new_dir, pin_dir, e);
	if (!r)
		r = find_cgroup(l, cgroup, e);
	if (!r)
		r = dry_run ? look_at_place(l, e) : prepare_place(l, e);
	if (!r)
		r = load_programs(l, dry_run, e);
	if (!r)
		r = carry_maps(l, e);
	if (!r)
		r = read_state(l, e);
	if (r) {
		datapath_load_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

const struct datapath_state *datapath_load_state(const struct datapath_load *l)
{
	return &l->state;
}

const char *datapath_load_cgroup(const struct datapath_load *l)
{
	return l->cgroup;
}

const __u16 *datapath_load_refused(const struct datapath_load *l)
{
	return l->request.refused;
}

bool datapath_load_is_upgrade(const struct datapath_load *l)
{
	return l->exists;
}

/* --- commit ------------------------------------------------------------------------- */

static int connect4_prog(struct datapath_load *l, __u32 *ret, struct err *e)
{
	struct bpf_prog_info info = { 0 };
	__u32 length = sizeof(info);

	if (bpf_obj_get_info_by_fd(bpf_program__fd(l->o.progs[PROG_CONNECT4]), &info, &length))
		return err_set(e, errno, "cannot tell a program's id: %s", bpf_errno_hint(errno));
	*ret = info.id;
	return 0;
}

static int control_error(const struct datapath_load *l, struct err *e)
{
	return err_set(e, errno, "%s/control: %s", l->pin_dir, bpf_errno_hint(errno));
}

static int get_control(const struct datapath_load *l, struct klb_control *ret, struct err *e)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(l->view.fds[MAP_CONTROL], &zero, ret) ? control_error(l, e) : 0;
}

static int put_control(const struct datapath_load *l, const struct klb_control *control,
		       struct err *e)
{
	__u32 zero = 0;

	return bpf_map_update_elem(l->view.fds[MAP_CONTROL], &zero, control, BPF_ANY)
		       ? control_error(l, e)
		       : 0;
}

/*
 * A reused control map is shared by the old and the new programs, so it names no program until
 * everything is done. If the load were killed before the link is switched, it would name a program
 * that never ran.
 */
static int write_control(struct datapath_load *l, struct err *e)
{
	struct klb_control control;
	int r = get_control(l, &control, e);

	if (r)
		return r;
	control.connect4_prog = 0;
	if (!l->reused[MAP_CONTROL])
		r = connect4_prog(l, &control.connect4_prog, e);
	if (r)
		return r;
	if (!control.seed)
		control.seed = random_u64();
	control.abi_version = KLB_ABI_VERSION;
	memcpy(control.refused, l->request.refused, sizeof(control.refused));
	return put_control(l, &control, e);
}

/* Since Linux 5.14 user space can read it too. */
static bool own_cookie(__u64 *ret)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool told = fd >= 0 && !netns_cookie(fd, ret);

	if (fd >= 0)
		close(fd);
	return told;
}

/*
 * Writes what the test connect has found out into `control`: the cookie of our network namespace as
 * the programs see it, and the relation of their clock to CLOCK_MONOTONIC. Until then connects of
 * scope host go through untouched, which can happen only during a first load.
 */
static int record_selftest(struct datapath_load *l, struct err *e)
{
	struct klb_counters counters;
	struct klb_control control;
	struct timespec tick;
	__u32 zero = 0;
	int r = get_control(l, &control, e);

	if (r)
		return r;
	if (bpf_map_lookup_elem(l->view.fds[MAP_COUNTERS], &zero, &counters))
		return err_set(e, errno, "%s/counters: %s", l->pin_dir, bpf_errno_hint(errno));
	/* The coarse clock advances by ticks of 1/CONFIG_HZ (kernel/time/posix-timers.c). */
	if (clock_getres(CLOCK_MONOTONIC_COARSE, &tick) || netns_own(&control.host_netns))
		return err_set(e, errno, "cannot tell the clock or the network namespace: %s",
			       strerror(errno));
	/* The fallback may be wrong: somebody else may have connected to the test frontend. */
	if (!own_cookie(&control.host_netns_cookie))
		control.host_netns_cookie = counters.selftest.netns_cookie;
	control.tick_ns = (__u64)tick.tv_nsec;
	control.tick_offset_ns =
		counters.selftest.now_ns - counters.selftest.jiffies * control.tick_ns;
	return put_control(l, &control, e);
}

/*
 * Tells the programs which ports have listeners now. klb_sockops, which is attached by then,
 * reports new ones. If the list cannot be read, the programs look for a listener at each connect.
 */
static void publish_listeners(const struct datapath_load *l)
{
	struct klb_memory *memory = l->o.progs[PROG_SOCKOPS] ? object_memory(&l->o) : NULL;
	__u64 ports[SOCK_DIAG_PORT_WORDS] = { 0 };
	struct sock_diag *diag = NULL;

	if (memory && !sock_diag_open(&diag, NULL) && !sock_diag_listeners(diag, ports, NULL)) {
		for (unsigned int port = 0; port < 64 * SOCK_DIAG_PORT_WORDS; port++)
			if (ports[port / 64] >> port % 64 & 1)
				memory->listens[port % KLB_LISTEN_SLOTS] = 1;
		__atomic_store_n(&memory->listens_known, 1, __ATOMIC_RELEASE);
	}
	sock_diag_close(diag);
	object_memory_put(memory);
}

/*
 * As soon as the first link is replaced, the old programs are not told about new listeners. If this
 * load ends half-way or is rolled back, they go on running, so they must look at each connect.
 */
static void forget_old_listeners(const struct datapath_load *l)
{
	for (unsigned int i = 0; i < l->n_slots; i++) {
		int fd = links_old_memory(&l->slots[i]);

		if (fd < 0)
			continue;
		object_forget_listeners(fd);
		close(fd);
	}
}

static int set_connect4_prog(struct datapath_load *l, struct err *e)
{
	struct klb_control control;
	int r = get_control(l, &control, e);

	if (!r)
		r = connect4_prog(l, &control.connect4_prog, e);
	return r ? r : put_control(l, &control, e);
}

static int make_dir(const char *dir, struct err *e)
{
	if (mkdir(dir, 0700) && errno != EEXIST)
		return err_set(e, errno, "%s: %s", dir, strerror(errno));
	return 0;
}

static int pin_new(int fd, const char *dir, const char *name, struct err *e)
{
	char path[PATH_TEXT_MAX], new_path[PATH_TEXT_MAX];
	int r = path_join(path, dir, name, e);

	if (!r)
		r = path_with_suffix(new_path, path, e);
	if (r)
		return r;
	unlink(new_path);
	if (bpf_obj_pin(fd, new_path))
		return err_set(e, errno, "%s: cannot pin: %s", path, bpf_errno_hint(errno));
	return 0;
}

/* Replaces the old pin in one step: everybody finds one or the other. */
static int pin_rename(int fd, const char *dir, const char *name, struct err *e)
{
	char path[PATH_TEXT_MAX], new_path[PATH_TEXT_MAX];
	int r = path_join(path, dir, name, e);

	(void)fd;
	if (!r)
		r = path_with_suffix(new_path, path, e);
	if (!r && rename(new_path, path))
		r = err_set(e, errno, "%s: cannot pin: %s", path, strerror(errno));
	return r;
}

typedef int (*pin_fn)(int fd, const char *dir, const char *name, struct err *e);

/* Calls pin for each map and link that dir does not hold yet. */
static int pin_each(struct datapath_load *l, const char *dir, const char *links, pin_fn pin,
		    struct err *e)
{
	int r = 0;

	for (int i = 0; !r && i < MAP_COUNT; i++)
		if (!is_left_out(l, i) && (!l->reused[i] || l->pinned_id[i] != l->old[i].id))
			r = pin(bpf_map__fd(l->o.maps[i]), dir, map_pins[i], e);
	/* It belongs to the programs of this version, whichever maps it uses. */
	if (!r && l->o.progs[PROG_ADJUST])
		r = pin(bpf_program__fd(l->o.progs[PROG_ADJUST]), dir, PIN_ADJUST, e);
	for (unsigned int i = 0; !r && i < l->n_slots; i++)
		if (!l->slots[i].replaced)
			r = pin(l->slots[i].link_fd, links, l->slots[i].name, e);
	return r;
}

/*
 * Removes what an earlier load has pinned and this one has not: the kernel refuses it now, or it is
 * of an older version.
 */
static int retire_pins(struct datapath_load *l, const char *dir, struct err *e)
{
	int r = links_retire(dir, l->slots, l->n_slots, e);

	if (!r && is_left_out(l, MAP_WAKEUP))
		r = links_retire_pin(dir, map_pins[MAP_WAKEUP], e);
	if (!r && !l->o.progs[PROG_ADJUST])
		r = links_retire_pin(dir, PIN_ADJUST, e);
	return r ? r : links_retire_pin(dir, RETIRED_CONNECTIONS, e);
}

/* Everything that can fail happens under temporary names, before the first name changes. */
static int pin_all(struct datapath_load *l, const char *dir, struct err *e)
{
	char links[PATH_TEXT_MAX];
	int r = make_dir(dir, e);

	if (!r)
		r = path_join(links, dir, "links", e);
	if (!r)
		r = make_dir(links, e);
	if (!r)
		r = pin_each(l, dir, links, pin_new, e);
	if (!r)
		r = pin_each(l, dir, links, pin_rename, e);
	return r ? r : retire_pins(l, dir, e);
}

/* A first attachment appears under its name completely or not at all. */
static int pin_first(struct datapath_load *l, struct err *e)
{
	int r = pin_all(l, l->new_dir, e);

	/* An empty directory of that name may exist already. */
	if (!r && rmdir(l->pin_dir) && errno != ENOENT)
		r = err_set(e, errno,
			    "%s: holds something that is not kubelb's (%s); move it away, or use "
			    "another directory with --pin",
			    l->pin_dir, strerror(errno));
	if (!r && rename(l->new_dir, l->pin_dir))
		r = err_set(e, errno, "%s: %s", l->pin_dir, strerror(errno));
	if (r)
		links_empty_tree(l->new_dir, NULL);
	return r;
}

static void restore_control(struct datapath_load *l)
{
	__u32 zero = 0;

	if (l->reused[MAP_CONTROL])
		bpf_map_update_elem(l->view.fds[MAP_CONTROL], &zero, &l->state.control, BPF_ANY);
}

/* Whether a program still runs on another cgroup until its pin is replaced. */
static bool is_moved(const struct datapath_load *l)
{
	for (unsigned int i = 0; i < l->n_slots; i++)
		if (l->exists && !l->slots[i].replaced)
			return true;
	return false;
}

/*
 * Runs two tests: the result of the first one decides which sockets the second one counts as the
 * host's.
 */
static int run_selftests(struct datapath_load *l, struct err *e)
{
	struct selftest test = { .cgroup = l->cgroup,
				 .cgroup_id = l->cgroup_id,
				 .peername = l->o.progs[PROG_GETPEER4] && !is_moved(l),
				 .scope = KLB_SCOPE_ALL };
	int r = selftest_connect(&l->view, &test, e);

	if (!r)
		r = record_selftest(l, e);
	test.scope = KLB_SCOPE_HOST;
	return r ? r : selftest_connect(&l->view, &test, e);
}

/*
 * New tables are filled before a program reads them. Tables in use change after the programs, when
 * nothing else can fail.
 */
static int commit(struct datapath_load *l, const struct plan *p, struct err *e)
{
	int r = write_control(l, e);

	if (!r && l->new_tables)
		r = apply_plan(&l->view, p, e);
	if (!r) {
		forget_old_listeners(l);
		r = links_attach(l->cgroup, l->cgroup_fd, l->slots, l->n_slots, e);
	}
	if (!r) {
		publish_listeners(l);
		r = run_selftests(l, e);
	}
	if (!r) {
		carry_late_stats(l);
		carry_late_other_netns(l);
	}
	if (!r)
		r = l->exists ? pin_all(l, l->pin_dir, e) : pin_first(l, e);
	if (!r && !l->new_tables)
		r = apply_plan(&l->view, p, e);
	/* Last, so that after a rollback no program that does not run is named. */
	if (!r)
		r = set_connect4_prog(l, e);
	return r;
}

int datapath_load_commit(struct datapath_load *l, const struct plan *p, struct err *e)
{
	int r = commit(l, p, e);

	if (r) {
		links_rollback(l->slots, l->n_slots);
		restore_control(l);
	}
	return r;
}

void datapath_load_free(struct datapath_load *l)
{
	if (!l)
		return;
	links_close(l->slots, l->n_slots);
	object_close(&l->o);
	/* Unless a first load has renamed it to pin_dir, it is not needed any more. */
	if (l->lock_fd >= 0)
		rmdir(l->new_dir);
	for (int i = 0; i < MAP_COUNT; i++)
		if (l->old_fds[i] >= 0)
			close(l->old_fds[i]);
	if (l->cgroup_fd >= 0)
		close(l->cgroup_fd);
	if (l->lock_fd >= 0)
		close(l->lock_fd);
	free(l);
}

/* --- detach ------------------------------------------------------------------------- */

int datapath_detach(const char *pin_dir, bool *ret_removed, struct err *e)
{
	int lock, r;

	*ret_removed = false;
	r = require_root(e);
	if (r)
		return r;
	/* Nothing is mounted or pinned, so there is nothing to do. */
	if (access(pin_dir, F_OK) && errno == ENOENT) {
		char new_dir[PATH_TEXT_MAX];

		if (path_with_suffix(new_dir, pin_dir, e) || access(new_dir, F_OK))
			return 0;
	}
	if (!mounts_is_bpffs(pin_dir) && !access(pin_dir, F_OK))
		return err_set(e, EINVAL, "%s: not on a bpffs; nothing of kubelb's can be there",
			       pin_dir);
	lock = datapath_lock(pin_dir, true, LOCK_WAIT_MS, e);
	if (lock < 0)
		return lock;
	r = links_remove_all(pin_dir, ret_removed, e);
	close(lock);
	return r;
}
