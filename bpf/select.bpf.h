/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Chooses a backend: pure functions over numbers, without a context and without maps, so
 * that the same code is unit-tested and fuzzed on the host. The caller offers the candidates
 * one after another and asks for the result at the end.
 *
 * Tiers; the best one that is not empty counts:
 *   0  preferred, and usable or draining: the one on this node (local: prefer)
 *   1  usable: ready, not ejected, not drained
 *   2  unwanted, but alive: draining, or drained by the operator; or suspect, and clients
 *      have just had data from it
 *   3  suspect
 *   4  ejected: connects to it have just failed
 *   5  dead by the agent's state, but clients have just had data from it
 *   6  dead: the agent may be wrong, so they are used when nothing else is left
 *   7  dead, and connects to it have just failed, which confirms it
 * A backend of weight 0 takes no connections in any tier: the operator wants it so.
 *
 * Within the tier every policy takes the smallest load/weight; ties are broken by a weighted
 * draw. The load is the number of active connections for least-conn, 0 for random (all tie),
 * the candidate's rank for rendezvous. So short connections are spread by weight under
 * least-conn as well, not by order. Latency draws two at random and takes the one with the
 * smaller RTT x (active + 1).
 *
 * The arithmetic has no branches: see branchless.bpf.h.
 */
#ifndef KUBELB_SELECT_BPF_H
#define KUBELB_SELECT_BPF_H

#include <kubelb/abi.h>

#include "branchless.bpf.h"

#define KLB_TIER_PREFERRED 0
#define KLB_TIER_USABLE 1
#define KLB_TIER_UNWANTED 2
#define KLB_TIER_SUSPECT 3
#define KLB_TIER_EJECTED 4
#define KLB_TIER_DEAD_ANSWERED 5
#define KLB_TIER_DEAD 6
#define KLB_TIER_DEAD_EJECTED 7

/* No candidate took part. */
#define KLB_PICK_NONE KLB_MAX_BACKENDS

/*
 * No load is larger (a count, or a 32-bit rank). So a tier and a load make one number, the
 * burden, by which a candidate of a better tier has less for its weight whatever its load:
 * tier * weight * 2^KLB_TIER_SHIFT + load. Times another weight it stays below 2^57.
 */
#define KLB_TIER_SHIFT 33
#define KLB_LOAD_MAX ((1ULL << KLB_TIER_SHIFT) - 1)

/* What is known of one candidate at the moment of the choice. */
struct klb_view {
	enum klb_state state;
	__u32 weight; /* 0..KLB_WEIGHT_MAX, an override applied */
	__u32 eligible; /* 0/1: this socket can reach it */
	__u32 drained; /* 0/1: by the operator */
	__u32 ejected; /* all ones if it is by the kernel, at this moment, else 0 */
	__u32 answered; /* all ones if clients have had data from it lately, and no failure since */
	__u32 preferred; /* 0/1 */
	__u64 active; /* connections, those under way included */
	__u32 srtt_us;
	__u32 rank;
};

/* One draw under way. */
struct klb_pick {
	__u64 index; /* of the best so far, or KLB_PICK_NONE */
	__u64 weight; /* of the best so far */
	__u64 tied; /* sum of the weights of all that tie with it */
	__u64 burden; /* of the best so far */
	__u64 cost; /* of the best so far, for klb_choice_result */
	__u32 seed;
};

/* Tiers by state, three bits each: see KLB_TIER_OF. if_…: the bits that this changes in plain. */
struct klb_tiers {
	__u32 plain;
	__u32 if_drained;
	__u32 if_preferred;
	__u32 if_answered;
	__u32 ejected; /* instead of all the others */
};

/* A choice: one draw, or two that compete by cost (KLB_POLICY_LATENCY). */
struct klb_choice {
	__u64 active_mask; /* all ones where active connections are the load */
	__u64 rank_mask; /* all ones where the rank is */
	struct klb_tiers tiers; /* with that trust */
	__u32 two;
	struct klb_pick first;
	struct klb_pick second;
};

static inline __attribute__((always_inline)) void klb_pick_init(struct klb_pick *p, __u32 seed)
{
	p->index = KLB_PICK_NONE;
	p->weight = 0;
	p->tied = 0;
	p->burden = 1; /* without a weight: more than any candidate's */
	p->cost = 0;
	p->seed = seed;
}

#define KLB_TIER_OF(state, tier) ((__u32)(tier) << 3 * (state))
#define KLB_TIERS(unknown, ready, suspect, draining, dead)                                     \
	(KLB_TIER_OF(KLB_STATE_UNKNOWN, unknown) | KLB_TIER_OF(KLB_STATE_READY, ready) |       \
	 KLB_TIER_OF(KLB_STATE_SUSPECT, suspect) | KLB_TIER_OF(KLB_STATE_DRAINING, draining) | \
	 KLB_TIER_OF(KLB_STATE_DEAD, dead))
#define KLB_TIERS_OF_ALL(tier) KLB_TIERS(tier, tier, tier, tier, tier)
/* What turns usable into another tier, for those that are. */
#define KLB_USABLE_TO(tier) (KLB_TIER_USABLE ^ (tier))

/*
 * The tier of a candidate: of its state, worse if it is usable and drained, better if it is
 * usable or draining and preferred, or suspect or dead and clients have just had data from it.
 * Ejected comes last among those not dead, and last among the dead. All states' tiers are changed
 * in one word, and the one of its state is taken from it: that needs no comparisons. No two changes
 * meet in one state: drained and preferred would, so preferred gives way, and ejected replaces all.
 */
static inline __attribute__((always_inline)) __u64 klb_tier(const struct klb_view *v,
							    const struct klb_tiers *t)
{
	__u32 preferred = v->preferred & ~v->drained;
	__u32 tiers = t->plain;

	tiers ^= t->if_drained & (0 - v->drained);
	tiers ^= t->if_preferred & (0 - preferred);
	tiers ^= t->if_answered & v->answered;
	tiers ^= (tiers ^ t->ejected) & v->ejected;
	return tiers >> 3 * (v->state & 7) & 7;
}

/*
 * The best so far against one more. diff orders by burden/weight (compared crosswise, so
 * nothing is divided): negative when the new one is better, 0 when the two tie. Among ties
 * each is kept with the probability of its weight (reservoir sampling), which a newly best
 * one passes by itself, and one without a weight never does. Returns all ones if the new one
 * was taken, else 0.
 */
static inline __attribute__((always_inline)) __u64 klb_pick_offer(struct klb_pick *p, __u64 index,
								  __u64 weight, __u64 burden)
{
	__u64 diff = burden * p->weight - p->burden * weight;
	__u64 better = klb_negative(diff);
	__u64 not_worse = klb_negative(diff - 1);
	__u64 take;

	/* Numerical Recipes' linear congruential step; its high bits are used. */
	p->seed = p->seed * 1664525u + 1013904223u;
	p->tied = (p->tied & (better - 1)) + (weight & (0 - not_worse));
	take = 0 - (klb_negative((p->seed * p->tied >> 32) - weight) & not_worse);
	p->index = klb_blend(p->index, index, take);
	p->weight = klb_blend(p->weight, weight, take);
	p->burden = klb_blend(p->burden, burden, take);
	return take;
}

/* The same for one of two draws, which then compete by cost. */
static inline __attribute__((always_inline)) void
klb_pick_offer_cost(struct klb_pick *p, __u64 index, __u64 weight, __u64 burden, __u64 cost)
{
	p->cost = klb_blend(p->cost, cost, klb_pick_offer(p, index, weight, burden));
}

/* trusted: all ones while the agent is alive, else 0. */
static inline __attribute__((always_inline)) void klb_tiers_init(struct klb_tiers *t, __u32 trusted)
{
	t->plain = (__u32)klb_blend(KLB_TIERS_OF_ALL(KLB_TIER_USABLE),
				    KLB_TIERS(KLB_TIER_USABLE, KLB_TIER_USABLE, KLB_TIER_SUSPECT,
					      KLB_TIER_UNWANTED, KLB_TIER_DEAD),
				    trusted);
	t->if_drained = (__u32)klb_blend(KLB_TIERS_OF_ALL(KLB_USABLE_TO(KLB_TIER_UNWANTED)),
					 KLB_TIERS(KLB_USABLE_TO(KLB_TIER_UNWANTED),
						   KLB_USABLE_TO(KLB_TIER_UNWANTED), 0, 0, 0),
					 trusted);
	/* While it starts or shuts down it serves, and this node's clients are of its version. */
	t->if_preferred = (__u32)klb_blend(KLB_TIERS_OF_ALL(KLB_USABLE_TO(KLB_TIER_PREFERRED)),
					   KLB_TIERS(KLB_USABLE_TO(KLB_TIER_PREFERRED),
						     KLB_USABLE_TO(KLB_TIER_PREFERRED), 0,
						     KLB_TIER_UNWANTED ^ KLB_TIER_PREFERRED, 0),
					   trusted);
	t->if_answered = trusted & KLB_TIERS(0, 0, KLB_TIER_SUSPECT ^ KLB_TIER_UNWANTED, 0,
					     KLB_TIER_DEAD ^ KLB_TIER_DEAD_ANSWERED);
	t->ejected =
		(__u32)klb_blend(KLB_TIERS_OF_ALL(KLB_TIER_EJECTED),
				 KLB_TIERS(KLB_TIER_EJECTED, KLB_TIER_EJECTED, KLB_TIER_EJECTED,
					   KLB_TIER_EJECTED, KLB_TIER_DEAD_EJECTED),
				 trusted);
	KLB_OPAQUE(t->plain);
	KLB_OPAQUE(t->if_drained);
	KLB_OPAQUE(t->if_preferred);
	KLB_OPAQUE(t->if_answered);
	KLB_OPAQUE(t->ejected);
}

/*
 * seed: 32 random bits. trust: 1 while the agent is alive, so that its states count. Without an
 * agent these states are ignored, and a preferred backend is left when connects to it fail.
 */
static inline __attribute__((always_inline)) void
klb_choice_init(struct klb_choice *c, enum klb_policy policy, __u32 seed, __u32 trust)
{
	c->active_mask = 0 - klb_same(policy, KLB_POLICY_LEAST_CONN);
	c->rank_mask = 0 - klb_same(policy, KLB_POLICY_RENDEZVOUS);
	c->two = policy == KLB_POLICY_LATENCY;
	klb_tiers_init(&c->tiers, 0 - trust);
	KLB_OPAQUE(c->two);
	KLB_OPAQUE(c->active_mask);
	KLB_OPAQUE(c->rank_mask);
	klb_pick_init(&c->first, seed);
	klb_pick_init(&c->second, seed ^ 0x9e3779b9u);
}

static inline __attribute__((always_inline)) void
klb_choice_offer(struct klb_choice *c, __u32 index, const struct klb_view *v)
{
	/* A count below 0 is a defect elsewhere; as a huge load it would starve a backend. */
	__u64 active = v->active & (klb_negative(v->active) - 1);
	__u64 load = (active & c->active_mask) | (v->rank & c->rank_mask);
	__u64 weight = v->weight & (0 - (__u64)v->eligible);
	__u64 burden = klb_tier(v, &c->tiers) * weight << KLB_TIER_SHIFT;

	if (c->two) {
		/* An RTT that is not known yet counts as the best, so that it gets measured. */
		__u64 cost = v->srtt_us * (active + 1);

		klb_pick_offer_cost(&c->second, index, weight, burden, cost);
		klb_pick_offer_cost(&c->first, index, weight, burden, cost);
		return;
	}
	klb_pick_offer(&c->first, index, weight, burden + load);
}

/* The index that was chosen, or KLB_PICK_NONE. */
static inline __attribute__((always_inline)) __u64 klb_choice_result(const struct klb_choice *c)
{
	__u64 second = klb_negative(c->second.cost - c->first.cost) & c->two;

	return klb_blend(c->first.index, c->second.index, 0 - second);
}

#endif
