/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The event log: what went wrong with a backend, or right again, for people to read. */
#ifndef KUBELB_EVENT_LOG_BPF_H
#define KUBELB_EVENT_LOG_BPF_H

#include "kernel.bpf.h"
#include "maps.bpf.h"

/* What an event says beyond the socket's record. */
struct klb_event_details {
	enum klb_event_kind kind;
	enum klb_failure failure;
	__u64 now;
	__u64 ejected_ns;
};

/*
 * Takes a number first, and marks the entry as unfinished while it is being written, so that
 * no reader uses half of it. Two writers damage an entry only when KLB_EVENTS other events
 * are written while the first one is in here.
 */
static __noinline int klb_event_write(const struct klb_socket *rec,
				      const struct klb_event_details *note)
{
	struct klb_counters *counters = klb_counters_get();
	struct klb_event *event;
	__u64 number;
	__u32 index;

	if (!counters || !rec || !note)
		return 0;
	number = klb_count_up(&counters->events);
	index = number % KLB_EVENTS;
	event = bpf_map_lookup_elem(&klb_events, &index);
	if (!event)
		return 0;
	*(volatile __u64 *)&event->number = 0;
	event->time_ns = note->now;
	event->latency_ns = rec->connect_ns ? note->now - rec->connect_ns : 0;
	event->ejected_ns = note->ejected_ns;
	event->cgroup_id = rec->cgroup_id;
	event->backend = rec->backend;
	event->id = rec->id;
	event->kind = note->kind;
	event->failure = note->failure;
	event->pid = rec->pid;
	__builtin_memcpy(event->comm, rec->comm, sizeof(event->comm));
	__sync_fetch_and_add(&event->number, number + 1);
	if (klb_options.wakeup)
		bpf_ringbuf_output(&klb_wakeup, &number, sizeof(number), 0);
	return 0;
}

static __always_inline void klb_emit_event(const struct klb_socket *rec, enum klb_event_kind kind,
					   enum klb_failure failure, __u64 now, __u64 ejected_ns)
{
	struct klb_event_details note = {
		.kind = kind, .failure = failure, .now = now, .ejected_ns = ejected_ns
	};

	klb_event_write(rec, &note);
}

#endif
