/* SPDX-License-Identifier: BSD-2-Clause */
/* The relay's choice: the kernel's code (bpf/select.bpf.h), fed with what the relay knows. */
#include "relay/internal.h"

#include "base/clock.h"
#include "net/endpoint.h"
#include "select.bpf.h"

/* What klb_view.ejected and klb_view.answered say for yes. */
#define ALL_ONES (~0u)

struct relay_load choose_look(const struct relay *r, const struct relay_choices *from,
			      const struct relay_request *request, unsigned int i, __u64 now_ns)
{
	struct relay_backend *b = from->backend[i];
	struct relay_load load = {
		.active = atomic_load(&b->load),
		.srtt_us = atomic_load(&b->srtt_us),
		.ejected = evidence_is_ejected(b, now_ns),
	};

	if (r->ops.look)
		r->ops.look(r->arg, request, &from->frontend.at[i], &load);
	return load;
}

static void offer(struct klb_choice *choice, unsigned int i, const struct relay_target *target,
		  const struct relay_load *load)
{
	struct klb_view view = {
		.state = target->state,
		.weight = target->weight,
		.eligible = 1,
		.drained = target->drained,
		.ejected = load->ejected ? ALL_ONES : 0,
		.answered = load->answered ? ALL_ONES : 0,
		.preferred = target->preferred,
		.active = load->active,
		.srtt_us = load->srtt_us,
		.rank = target->rank,
	};

	klb_choice_offer(choice, i, &view);
}

unsigned int choose_backend(const struct relay *r, const struct relay_choices *from,
			    const struct relay_request *request, relay_tried tried, __u32 seed)
{
	const struct relay_frontend *f = &from->frontend;
	__u64 now_ns = clock_now_ns();
	struct klb_choice choice;

	/* The states are the caller's, who is alive. */
	klb_choice_init(&choice, f->policy, seed, 1);
	for (unsigned int i = 0; i < f->n; i++) {
		struct relay_load load;

		if (tried >> i & 1 || endpoint_equal(&f->at[i].endpoint, &request->failed))
			continue;
		load = choose_look(r, from, request, i, now_ns);
		offer(&choice, i, &f->at[i], &load);
	}
	return (unsigned int)klb_choice_result(&choice);
}
