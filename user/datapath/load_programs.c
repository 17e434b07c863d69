/* SPDX-License-Identifier: BSD-2-Clause */
/* Loads the programs: all of them, or those that the kernel accepts. */
#include "datapath/load.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"

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

/*
 * Says why the programs were not loaded: the first feature that the kernel lacks (-EOPNOTSUPP), or
 * otherwise the kernel's own error.
 */
static int load_error(const struct datapath_load *l, int code, struct err *e)
{
	struct datapath_feature features[DATAPATH_FEATURES_MAX];
	unsigned int n = 0;

	/* During a shortage every feature seems to be missing. */
	if (!object_is_transient(code))
		n = datapath_features(l->pin_dir, l->cgroup, features, DATAPATH_FEATURES_MAX);

	for (unsigned int i = 0; i < n; i++)
		if (features[i].required && !features[i].present)
			return err_set(e, EOPNOTSUPP,
				       "cannot load the programs: %s is missing: %s [%s]; "
				       "kubelb-load --check lists what is needed",
				       features[i].name, features[i].purpose, features[i].detail);
	return err_set(e, code, "cannot load the programs: %s%s%s%s", bpf_errno_hint(code),
		       last_warning[0] ? " (" : "", last_warning, last_warning[0] ? ")" : "");
}

static void reset_slots(struct datapath_load *l)
{
	links_close(l->slots, l->n_slots);
	init_slots(l);
}

/* Opens the links to replace, as they are now. */
static int open_links(struct datapath_load *l, struct err *e)
{
	reset_slots(l);
	return l->exists ? links_open(l->pin_dir, l->cgroup_id, l->slots, l->n_slots, e) : 0;
}

static int open_and_load(struct datapath_load *l, struct err *e)
{
	libbpf_print_fn_t before = libbpf_set_print(keep_warning);
	int r;

	object_close(&l->o);
	last_warning[0] = '\0';
	r = object_open(&l->o, &l->request, e);
	if (r)
		reset_slots(l);
	else
		r = open_links(l, e);
	if (!r)
		r = load_reuse_maps(l, e);
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

/* More than a load takes at once: maps and links, old and new, programs, and libbpf's trials. */
#define DESCRIPTORS 96

/*
 * libbpf takes a kernel that gives it no descriptor for an older one, and goes on until it fails
 * for another reason.
 */
static int check_descriptors(struct err *e)
{
	int r = file_spare(DESCRIPTORS);

	return r ? err_set(e, -r, "cannot load the programs, which takes %d descriptors: %s",
			   DESCRIPTORS, err_reason(-r))
		 : 0;
}

/* Whether the last load has found that this kernel refuses something; finding out takes trials. */
static bool some_refused(const struct datapath_load *l)
{
	struct klb_control control;
	bool some = false;

	control_read(l->old_fds[MAP_CONTROL], &l->old[MAP_CONTROL], &control);
	for (int f = 0; f < KLB_FEATURES; f++)
		some |= control.refused[f] != 0;
	return some;
}

void load_programs_ahead(struct datapath_load *l)
{
	struct stat st;

	/* Before the first load there is nobody who waits for the lock. */
	if (lstat(l->pin_dir, &st) || check_descriptors(NULL) || load_open_old_maps(l, NULL) ||
	    !l->exists || some_refused(l))
		return;
	object_request_all(&l->request);
	l->loaded = !open_and_load(l, NULL);
}

/* Loads all programs if the kernel accepts them, otherwise all but those that it refuses. */
int load_programs(struct datapath_load *l, bool dry_run, struct err *e)
{
	bool attached[KLB_FEATURES];
	int r = check_descriptors(e);

	if (r)
		return r;
	object_request_all(&l->request);
	r = l->loaded ? open_links(l, e) : open_and_load(l, e);
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
