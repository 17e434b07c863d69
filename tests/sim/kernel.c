/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The maps of one node, and the kernel's side of them: the choice is bpf/select.bpf.h, fed as
 * view_of of bpf/connect.bpf.c does; counts and evidence follow bpf/outlier.bpf.h, of which there
 * is as much here as a single trusted user makes happen. The place of user/datapath.
 */
#include <errno.h>
#include <string.h>

#include "datapath/datapath.h"
#include "net/endpoint.h"
#include "net/sock_diag.h"
#include "select.bpf.h"
#include "sim.h"

/* As in bpf/outlier.bpf.h. */
#define ANSWERED_UNITS 60
#define STALLED_NS NS_PER_S
#define STREAK_MAX 6
/* connectTimeout's default and a little more: klb_decision_ns. */
#define DECISION_NS (1100 * NS_PER_MS)

bool always_first;

static struct node *node_of(const struct datapath *dp)
{
	return (struct node *)dp;
}

/* --- the choice -------------------------------------------------------------------------- */

static __u32 is_answered(const struct node *n, const struct klb_stats *s, __u32 id)
{
	__u64 last = s->last_answer_ns;

	for (unsigned int i = 0; i < n->n_watches; i++)
		if (n->watches[i].phase == CLIENT_OPEN && n->watches[i].id == id) {
			__u64 at = client_last_data(&n->watches[i]);

			last = at > last ? at : last;
		}
	if (!last || last <= s->last_failure_ns)
		return 0;
	return klb_negative_mask((clock_now_ns() >> KLB_ANSWERED_SHIFT) -
				 ((last >> KLB_ANSWERED_SHIFT) + ANSWERED_UNITS));
}

static void view_of(const struct node *n, const struct klb_candidate *c, bool eligible,
		    struct klb_view *ret)
{
	const struct klb_stats *s = &n->stats[c->id];

	ret->state = c->state;
	ret->weight = c->weight;
	ret->eligible = eligible;
	ret->drained = 0;
	ret->ejected = klb_negative_mask(clock_now_ns() - s->ejected_until_ns);
	ret->answered = c->state == KLB_STATE_SUSPECT || c->state == KLB_STATE_DEAD
				? is_answered(n, s, c->id)
				: 0;
	ret->preferred = c->preferred;
	ret->active = s->active + s->connecting;
	ret->srtt_us = s->srtt_us;
	ret->rank = c->rank;
}

int kernel_choose(struct node *n, int failed)
{
	enum klb_policy policy = n->agent.config->policy;
	struct klb_choice choice;
	__u64 result;

	if (always_first && failed)
		return n->n_table ? 0 : -1;
	klb_choice_init(&choice, policy, (__u32)sim_random(), 1);
	for (unsigned int i = 0; i < n->n_table; i++) {
		struct klb_view view;

		view_of(n, &n->table[i], (int)i != failed, &view);
		klb_choice_offer(&choice, i, &view);
	}
	result = klb_choice_result(&choice);
	return result == KLB_PICK_NONE ? -1 : (int)result;
}

/* --- counts and evidence ----------------------------------------------------------------- */

static void note_trouble(struct node *n)
{
	n->trouble = false;
	for (unsigned int i = 0; i < n->n_table; i++)
		n->trouble |= n->table[i].state != KLB_STATE_READY ||
			      n->stats[n->table[i].id].evidence != KLB_EVIDENCE_NONE;
}

static void report(struct node *n, const struct klb_candidate *c, enum klb_event_kind kind)
{
	struct klb_event *e;

	if (n->n_events == 8)
		return;
	e = &n->events[n->n_events++];
	memset(e, 0, sizeof(*e));
	e->kind = kind;
	e->id = c->id;
	e->backend = c->endpoint;
	e->time_ns = clock_now_ns();
	/* The agent is woken by a map. */
	if (!n->wakeup.place)
		sim_event_in(&n->wakeup, NS_PER_MS);
}

void kernel_opened(struct node *n, __u32 id)
{
	struct klb_stats *s = &n->stats[id];

	s->active++;
	s->opened++;
	s->srtt_us = s->srtt_us ? (s->srtt_us * 7 + 504) / 8 : 500;
	s->last_success_ns = clock_now_ns();
	if (s->evidence == KLB_EVIDENCE_NONE)
		return;
	s->evidence = KLB_EVIDENCE_NONE;
	s->streak = 0;
	s->ejected_until_ns = 0;
	note_trouble(n);
}

void kernel_closed(struct node *n, __u32 id)
{
	n->stats[id].active--;
}

void kernel_answered(struct node *n, __u32 id, __u64 at_ns)
{
	if (at_ns > n->stats[id].last_answer_ns)
		n->stats[id].last_answer_ns = at_ns;
}

/* klb_failed and klb_eject, while an agent lives that ends ejections. */
void kernel_refused(struct node *n, const struct klb_candidate *c)
{
	struct klb_stats *s = &n->stats[c->id];
	__u64 now = clock_now_ns(), period = KLB_EJECT_MIN_NS << s->streak;

	s->failed[KLB_FAILURE_REFUSED]++;
	report(n, c, KLB_EVENT_CONNECT_FAILED);
	s->last_failure_ns = now;
	if (s->evidence == KLB_EVIDENCE_EJECTED && now < s->ejected_until_ns)
		return;
	s->streak += s->streak < STREAK_MAX;
	s->held_ms = (__u32)((period < KLB_EJECT_MAX_NS ? period : KLB_EJECT_MAX_NS) / NS_PER_MS);
	s->ejected_ns = now;
	s->ejected_until_ns = now + KLB_EJECT_MAX_NS;
	s->evidence = KLB_EVIDENCE_EJECTED;
	s->ejections++;
	n->trouble = true;
	report(n, c, KLB_EVENT_EJECTED);
}

void kernel_unanswered(struct node *n, const struct klb_candidate *c, enum klb_event_kind kind)
{
	struct klb_stats *s = &n->stats[c->id];
	__u64 now = clock_now_ns();

	if (kind == KLB_EVENT_STALLED && now - n->stalled_ns[c->id] < STALLED_NS)
		return;
	if (kind == KLB_EVENT_STALLED) {
		n->stalled_ns[c->id] = now;
	} else if (s->evidence == KLB_EVIDENCE_NONE) {
		s->evidence = KLB_EVIDENCE_SUSPECT;
		s->ejected_until_ns = now + DECISION_NS;
		n->trouble = true;
	}
	report(n, c, kind);
}

/* --- what the agent reads and writes ----------------------------------------------------- */

int datapath_read_stat(const struct datapath *dp, __u32 id, struct klb_stats *ret, struct err *e)
{
	const struct node *n = node_of(dp);

	(void)e;
	memset(ret, 0, sizeof(*ret));
	if (id >= SIM_IDS)
		return 0;
	*ret = n->stats[id];
	for (unsigned int i = 0; i < n->n_watches; i++)
		if (n->watches[i].phase == CLIENT_OPEN && n->watches[i].id == id) {
			__u64 at = client_last_data(&n->watches[i]);

			ret->last_answer_ns = at > ret->last_answer_ns ? at : ret->last_answer_ns;
		}
	return 0;
}

int datapath_read_admin(const struct datapath *dp, struct klb_admin *ret, struct err *e)
{
	(void)dp;
	(void)ret;
	(void)e;
	return 0;
}

int datapath_read(const struct datapath *dp, struct datapath_state *ret, struct err *e)
{
	(void)e;
	memcpy(ret->stats, node_of(dp)->stats, sizeof(node_of(dp)->stats));
	return 0;
}

/* As candidate_of and clear_stats of user/datapath/apply.c. */
static void apply_backend(struct node *n, const struct plan_backend *b, struct klb_candidate *ret)
{
	struct klb_stats *s = &n->stats[b->id];

	if (b->new_id && s->generation != b->value.generation)
		*s = (struct klb_stats){ .generation = b->value.generation };
	*ret = (struct klb_candidate){ .endpoint = b->value.endpoint,
				       .id = (__u16)b->id,
				       .weight = (__u16)b->value.weight,
				       .generation = b->value.generation,
				       .state = b->value.state,
				       .rank = b->rank,
				       .ipv4 = endpoint_is_ipv4(&b->value.endpoint),
				       .preferred = b->preferred };
}

int datapath_apply(const struct datapath *dp, __u64 based_on, const struct plan *p, struct err *e)
{
	struct node *n = node_of(dp);
	const struct plan_frontend *f = &p->frontends[0];

	(void)based_on;
	(void)e;
	for (unsigned int i = 0; i < f->n_backends; i++)
		apply_backend(n, plan_find_id(p, f->ids[i]), &n->table[i]);
	n->n_table = f->n_backends;
	note_trouble(n);
	return 0;
}

int datapath_events(const struct datapath *dp, __u64 *next, struct klb_event *ret, unsigned int max,
		    struct err *e)
{
	struct node *n = node_of(dp);
	unsigned int count = n->n_events < max ? n->n_events : max;

	(void)next;
	(void)e;
	memcpy(ret, n->events, count * sizeof(*ret));
	n->n_events = 0;
	return (int)count;
}

/* klb_reached of bpf/outlier.bpf.h. */
int datapath_adjust(const struct datapath *dp, const struct klb_adjustment *a, struct err *e)
{
	struct klb_stats *s = &node_of(dp)->stats[a->id];

	(void)e;
	if (a->what != KLB_ADJUST_REACHED || s->evidence != KLB_EVIDENCE_EJECTED || !s->held_ms ||
	    a->reached_ns <= s->ejected_ns)
		return 0;
	s->ejected_until_ns = s->ejected_ns + s->held_ms * NS_PER_MS;
	s->held_ms = 0;
	return 0;
}

/* --- looks at connections ---------------------------------------------------------------- */

static void connection_of(const struct connection *c, struct klb_connection *ret)
{
	__u64 now = clock_now_ns(), data = client_last_data(c);

	memset(ret, 0, sizeof(*ret));
	ret->record.frontend = c->node->agent.config->frontends[0].endpoint;
	ret->record.backend = c->endpoint;
	ret->record.id = c->id;
	ret->record.generation = c->generation;
	ret->record.phase = KLB_PHASE_ACTIVE;
	ret->record.established_ns = c->established_ns;
	ret->record.pid = (__u32)c->cookie;
	ret->last_data_ms = data ? (__u32)((now - data) / NS_PER_MS) : CONNECTION_NO_DATA;
	ret->cookie = c->cookie;
}

static int visit(const struct node *n, const struct connection *list, unsigned int count,
		 const struct datapath_list_options *how, const struct datapath_visitor *visitor,
		 void *arg)
{
	struct klb_connection found;
	int r = 0;

	(void)n;
	for (unsigned int i = 0; !r && i < count; i++) {
		if (list[i].phase != CLIENT_OPEN ||
		    (how->backend && !endpoint_equal(how->backend, &list[i].endpoint)))
			continue;
		connection_of(&list[i], &found);
		r = visitor->take(&found, arg);
	}
	return r;
}

static int visit_all(const struct node *n, const struct datapath_list_options *how,
		     const struct datapath_visitor *visitor, void *arg)
{
	int r;

	visitor->begin(arg);
	r = visit(n, n->watches, n->n_watches, how, visitor, arg);
	for (const struct connection *c = n->brief; !r && c; c = c->next)
		r = visit(n, c, 1, how, visitor, arg);
	return r;
}

int datapath_visit(const struct datapath *dp, struct sock_diag *diag,
		   const struct datapath_list_options *how, const struct datapath_visitor *visitor,
		   void *arg, struct datapath_found *ret, struct err *e)
{
	(void)diag;
	(void)e;
	*ret = (struct datapath_found){ .all = true };
	return visit_all(node_of(dp), how, visitor, arg);
}

/* The place of user/agent/look.c: these looks take no time. */
void look_begin(struct look *l, struct event_base *base, const struct datapath *dp,
		const struct datapath_list_options *how, bool urgent, const struct look_ops *ops,
		void *arg)
{
	const struct datapath_found found = { .all = true };
	struct err e = { "" };

	(void)l;
	(void)base;
	(void)urgent;
	ops->done(arg, visit_all(node_of(dp), how, &ops->visitor, arg), &found, &e);
}

bool look_is_running(const struct look *l)
{
	(void)l;
	return false;
}

__u64 look_rested_ns(const struct look *l)
{
	(void)l;
	return 0;
}

void look_cancel(struct look *l)
{
	(void)l;
}

static struct connection *find(struct node *n, __u64 cookie)
{
	struct connection *c = n->brief;

	for (unsigned int i = 0; i < n->n_watches; i++)
		if (n->watches[i].cookie == cookie)
			return &n->watches[i];
	while (c && c->cookie != cookie)
		c = c->next;
	return c;
}

static void end(struct node *n, struct datapath_ending *ending)
{
	struct connection *c = find(n, ending->connection->cookie);
	__u64 data;

	if (!c || c->phase != CLIENT_OPEN) {
		ending->result = -ENOENT;
		return;
	}
	data = client_last_data(c);
	if (ending->spare_ms && data && clock_now_ns() - data < ending->spare_ms * NS_PER_MS) {
		ending->result = -EAGAIN;
		return;
	}
	ending->reset = true;
	client_reset(c);
}

void datapath_end(const struct datapath *dp, struct sock_diag *diag, struct datapath_ending *list,
		  unsigned int n)
{
	(void)diag;
	for (unsigned int i = 0; i < n; i++)
		end(node_of(dp), &list[i]);
}

int sock_diag_open(struct sock_diag **ret, struct err *e)
{
	(void)e;
	*ret = NULL;
	return 0;
}

void sock_diag_close(struct sock_diag *d)
{
	(void)d;
}

int sock_diag_can_destroy(struct sock_diag *d, struct err *e)
{
	(void)d;
	(void)e;
	return 0;
}
