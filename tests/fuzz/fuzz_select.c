/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The choice against a plain reading of its rules: whatever the candidates, the one
 * chosen is in the best tier, has weight, and under least-conn and rendezvous no other
 * of its tier has a smaller load/weight.
 */
#include "select.bpf.h"
#include "fuzz.h"

static int tier_of(const struct klb_view *v, uint32_t trust)
{
	if (trust && v->state == KLB_STATE_DEAD)
		return v->ejected    ? KLB_TIER_DEAD_EJECTED
		       : v->answered ? KLB_TIER_DEAD_ANSWERED
				     : KLB_TIER_DEAD;
	if (v->ejected)
		return KLB_TIER_EJECTED;
	if (trust && v->state == KLB_STATE_SUSPECT)
		return v->answered ? KLB_TIER_UNWANTED : KLB_TIER_SUSPECT;
	if (v->drained)
		return KLB_TIER_UNWANTED;
	if (v->preferred)
		return KLB_TIER_PREFERRED;
	return trust && v->state == KLB_STATE_DRAINING ? KLB_TIER_UNWANTED : KLB_TIER_USABLE;
}

static unsigned __int128 load_of(enum klb_policy policy, const struct klb_view *v)
{
	if (policy == KLB_POLICY_LEAST_CONN)
		return v->active >> 63 ? 0 : v->active;
	return policy == KLB_POLICY_RENDEZVOUS ? v->rank : 0;
}

static void check(enum klb_policy policy, const struct klb_view *views, uint32_t n, uint32_t trust,
		  uint32_t got)
{
	const struct klb_view *chosen = &views[got];

	if (got >= n || !chosen->weight || !chosen->eligible)
		abort();
	for (uint32_t i = 0; i < n; i++) {
		const struct klb_view *v = &views[i];

		if (!v->weight || !v->eligible)
			continue;
		if (tier_of(v, trust) < tier_of(chosen, trust))
			abort();
		if (tier_of(v, trust) == tier_of(chosen, trust) &&
		    load_of(policy, v) * chosen->weight < load_of(policy, chosen) * v->weight)
			abort();
	}
}

/* One candidate from 16 bytes. */
static void view_from(const uint8_t *p, struct klb_view *ret)
{
	memset(ret, 0, sizeof(*ret));
	memcpy(&ret->active, p, 8);
	/* Small counts, ties and extremes alike. */
	ret->active >>= p[8] & 63;
	/* Below 0, or what a count can be. */
	if (!(ret->active >> 63))
		ret->active &= KLB_LOAD_MAX;
	ret->weight = (p[9] | (uint32_t)p[10] << 8) % (KLB_WEIGHT_MAX + 1);
	ret->state = p[11] % (KLB_STATE_DEAD + 1);
	ret->drained = p[12] & 1;
	ret->ejected = 0 - (p[12] >> 3 & 1u);
	ret->preferred = p[12] >> 1 & 1;
	ret->answered = 0 - (p[12] >> 4 & 1u);
	ret->eligible = !(p[12] >> 2 & 1);
	ret->rank = (p[13] | (uint32_t)p[14] << 8) << (p[15] & 15);
	ret->srtt_us = ret->rank;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct klb_view views[KLB_MAX_BACKENDS];
	uint32_t n, eligible = 0, seed, trust;
	struct klb_choice c;
	enum klb_policy policy;
	uint64_t got;

	if (size < 6)
		return 0;
	policy = KLB_POLICY_LEAST_CONN + data[0] % 4;
	trust = data[1] & 1;
	memcpy(&seed, data + 2, 4);
	n = (uint32_t)((size - 6) / 16);
	if (n > KLB_MAX_BACKENDS)
		n = KLB_MAX_BACKENDS;
	klb_choice_init(&c, policy, seed, trust);
	for (uint32_t i = 0; i < n; i++) {
		view_from(data + 6 + 16 * i, &views[i]);
		eligible += views[i].weight && views[i].eligible;
		klb_choice_offer(&c, i, &views[i]);
	}
	got = klb_choice_result(&c);
	if (!eligible) {
		if (got != KLB_PICK_NONE)
			abort();
		return 0;
	}
	check(policy, views, n, trust, (uint32_t)got);
	return 0;
}
