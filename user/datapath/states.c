/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writes the states of backends where they are, without the lock: somebody who holds it may stand
 * still, and a backend may die meanwhile. Only single fields of entries that are there change.
 * What the lock's holder writes at the same time may undo that; the next plan puts it right.
 */
#include "datapath/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* The distance of the values in the map: the kernel rounds up. */
#define TABLE_STRIDE ((sizeof(struct klb_candidates) + 7) / 8 * 8)
#define TABLES_BYTES (KLB_MAX_TABLES * TABLE_STRIDE)

static void write_candidate(struct klb_candidate *c, const struct plan *p)
{
	const struct plan_backend *b = plan_find_id(p, c->id);

	if (!b || b->value.generation != c->generation)
		return;
	__atomic_store_n(&c->weight, (__u16)b->value.weight, __ATOMIC_RELAXED);
	__atomic_store_n(&c->state, b->value.state, __ATOMIC_RELAXED);
}

/* In all tables: the kernel may use any of them soon. */
static int write_candidates(int fd, const struct plan *p)
{
	char *tables = mmap(NULL, TABLES_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (tables == MAP_FAILED)
		return -errno;
	for (unsigned int i = 0; i < KLB_MAX_TABLES; i++) {
		struct klb_candidates *table = (void *)(tables + i * TABLE_STRIDE);

		for (unsigned int k = 0; k < table->n && k < KLB_MAX_BACKENDS; k++)
			write_candidate(&table->at[k], p);
	}
	munmap(tables, TABLES_BYTES);
	return 0;
}

/* For people. */
static void write_backend(int fd, const struct plan_backend *b)
{
	struct klb_backend old;

	if (!bpf_map_lookup_elem(fd, &b->id, &old) && old.generation == b->value.generation &&
	    memcmp(&old, &b->value, sizeof(old)) != 0)
		bpf_map_update_elem(fd, &b->id, &b->value, BPF_EXIST);
}

int datapath_write_states(const struct datapath *dp, const struct plan *p, struct err *e)
{
	int r = write_candidates(dp->fds[MAP_CANDIDATES], p);

	if (r)
		return err_set(e, -r, "%s/candidates: cannot be mapped: %s", dp->pin_dir,
			       err_reason(-r));
	for (unsigned int i = 0; i < p->n_backends; i++)
		write_backend(dp->fds[MAP_BACKENDS], &p->backends[i]);
	return 0;
}
