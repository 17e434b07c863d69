/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rescue: when a backend leaves a SYN unanswered, the relay stands in for it. It listens on the
 * backend's own address; the kernel programs mark the client's socket, and rule and route deliver
 * what is marked here.
 *
 *   begin   listener, then route and rule, then the kernel is told
 *   end     the kernel is told; after connectTimeout, when no marked SYN is on its way any more,
 *           the listener closes; the rule goes with the last connection that was rescued, whose
 *           packets need it
 */
#include "agent/relay_internal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "balance/backend_status.h"
#include "base/clock.h"
#include "host/port_owner.h"
#include "net/endpoint.h"
#include "net/tcp_listen.h"

/*
 * The agent's own verdict (suspect, or dead) comes within this time. A rule that comes and goes
 * with each lost packet would be work for the whole host.
 */
#define REST_NS (5 * NS_PER_S)

/* --- for which backends ------------------------------------------------------------------- */

/*
 * A server that listens on every address of the host cannot have a port on which somebody listens
 * here, whatever the address: where this node's own apiserver would be refused its port, the relay
 * stays away from it.
 */
static bool is_port_of_own(const struct plan *p, __u32 port)
{
	for (unsigned int i = 0; i < p->n_backends; i++)
		if (p->backends[i].local && p->backends[i].value.endpoint.port == port)
			return true;
	return false;
}

static bool can_stand_in(const struct plan *p, const struct plan_backend *b)
{
	return !b->removed && !b->local && !is_port_of_own(p, b->value.endpoint.port);
}

static bool can_take(const struct datapath_state *s, const struct plan_backend *b)
{
	return !b->removed && backend_status_weight(s, b);
}

/* Whether somebody could serve b's clients. If not, its own next SYN is their best chance. */
static bool has_alternative(const struct datapath_state *s, const struct plan_backend *b)
{
	for (unsigned int i = 0; i < s->applied.n_backends; i++) {
		const struct plan_backend *other = &s->applied.backends[i];

		if (other != b && can_take(s, other) && other->value.state != KLB_STATE_DEAD)
			return true;
	}
	return false;
}

static bool is_alone(const struct datapath_state *s)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < s->applied.n_backends; i++)
		n += can_take(s, &s->applied.backends[i]);
	return n < 2;
}

/* The mark and the families, as configured. Returns how many backends it is for. */
static unsigned int wanted_delivery(const struct agent *a, struct local_delivery *ret)
{
	const struct config_relay *c = &a->config->relay;
	const struct plan *p = &a->state->applied;
	unsigned int n = 0;

	*ret = (struct local_delivery){ .mark = c->mark, .mask = c->mask, .table = c->table };
	for (unsigned int i = 0; i < p->n_backends; i++) {
		if (!can_stand_in(p, &p->backends[i]))
			continue;
		n++;
		if (endpoint_is_ipv4(&p->backends[i].value.endpoint))
			ret->ipv4 = true;
		else
			ret->ipv6 = true;
	}
	return n;
}

/* Its kernel answers no SYN, as far as the probes can tell; or that is being found out. */
static bool is_silent(const struct health *h)
{
	return h->state == KLB_STATE_SUSPECT ||
	       (h->state == KLB_STATE_DEAD &&
		(h->reason == KLB_REASON_UNREACHABLE || h->reason == KLB_REASON_CONNECT_TIMEOUT));
}

/* --- whether ------------------------------------------------------------------------------ */

static enum klb_relay_off off_by_errno(int code)
{
	switch (code) {
	case 0:
		return KLB_RELAY_ON;
	case EEXIST:
		return KLB_RELAY_OFF_TAKEN;
	case EOPNOTSUPP:
		return KLB_RELAY_OFF_KERNEL;
	case EPERM:
	case EACCES:
		return KLB_RELAY_OFF_PRIVILEGE;
	case EADDRINUSE:
		return KLB_RELAY_OFF_ADDRESS;
	default:
		return KLB_RELAY_OFF_OTHER;
	}
}

/* Why there is no rescue at all, apart from rule and route. */
static enum klb_relay_off why_off(const struct agent_relay *r, unsigned int n_backends)
{
	const struct agent *a = r->agent;

	if (!a->config->relay.rescue)
		return KLB_RELAY_OFF_CONFIG;
	if (a->other_netns)
		return KLB_RELAY_OFF_NETNS;
	if (a->state->control.refused[KLB_FEATURE_SOCKOPS])
		return KLB_RELAY_OFF_KERNEL;
	if (!n_backends)
		return KLB_RELAY_OFF_LOCAL;
	if (is_alone(a->state))
		return KLB_RELAY_OFF_ALONE;
	return off_by_errno(-tcp_listen_can_be_transparent());
}

/* --- a stand-in --------------------------------------------------------------------------- */

static struct relay_stand_in *find(struct relay_rescue *s, const struct klb_endpoint *backend)
{
	for (unsigned int i = 0; i < s->n; i++)
		if (endpoint_equal(&s->at[i].endpoint, backend))
			return &s->at[i];
	return NULL;
}

/* Once for each errno. */
static void log_cannot_listen(struct relay_stand_in *s, int code)
{
	char text[ENDPOINT_TEXT_MAX], name[PORT_OWNER_MAX];
	struct port_owner who;
	bool owned = code == EADDRINUSE && port_owner_find(&s->endpoint, &who);

	if (code && code != s->error)
		log_event(LOG_LEVEL_WARN,
			  "connects that this backend does not answer are not rescued: the relay "
			  "cannot listen in its place",
			  "backend=%s error=%s owner=%s fix=%s",
			  endpoint_format(&s->endpoint, text), log_quoted(strerror(code)),
			  log_quoted(owned ? port_owner_name(&who, name) : ""),
			  log_quoted(code == EADDRINUSE
					     ? "end what listens on this port here, or on every "
					       "address (ss -ltnp), or set relay.rescue to false"
					     : "give the agent CAP_NET_ADMIN"));
	s->error = code;
}

static void listen_for(struct agent_relay *r, struct relay_stand_in *s)
{
	struct klb_endpoint at = s->endpoint;
	int fd = tcp_listen(&at, true), code = fd < 0 ? -fd : 0;
	struct err e;

	if (fd >= 0)
		code = -relay_listen(r->relay, fd, RELAY_RETRANSMIT, NULL, NULL, 0, &s->listener,
				     &e);
	if (fd >= 0 && code)
		close(fd);
	log_cannot_listen(s, code);
}

static struct relay_stand_in *add(struct agent_relay *r, const struct klb_endpoint *backend)
{
	struct relay_rescue *s = &r->rescue;
	struct relay_stand_in *new = &s->at[s->n];

	if (s->n == KLB_MAX_BACKENDS)
		return NULL;
	*new = (struct relay_stand_in){ .endpoint = *backend };
	s->n++;
	return new;
}

static void release(struct relay_rescue *s, struct relay_stand_in *at)
{
	if (at->listener)
		relay_unlisten(at->listener);
	*at = s->at[--s->n];
}

static bool has_family(const struct local_delivery *d, const struct klb_endpoint *backend)
{
	return endpoint_is_ipv4(backend) ? d->ipv4 : d->ipv6;
}

/* Whether the kernel may send new clients to it. */
static bool is_in_force(const struct relay_rescue *s, const struct relay_stand_in *at)
{
	return at->listener && at->id && !at->dropped_ns && s->route.on &&
	       has_family(&s->route.there, &at->endpoint);
}

/* --- all of them -------------------------------------------------------------------------- */

static void need(struct agent_relay *r, const struct plan_backend *b, __u64 now)
{
	struct relay_stand_in *s = find(&r->rescue, &b->value.endpoint);

	if (!has_alternative(r->agent->state, b))
		return;
	if (!s)
		s = add(r, &b->value.endpoint);
	if (!s)
		return;
	s->id = b->id;
	s->needed_ns = now;
	s->dropped_ns = 0;
	if (!s->listener)
		listen_for(r, s);
}

/* What the probes say, which is all there is after the kernel's event. */
static void need_silent(struct agent_relay *r, __u64 now)
{
	const struct agent *a = r->agent;

	for (unsigned int i = 0; i < a->config->n_backends; i++) {
		const struct plan_backend *b =
			plan_find(&a->state->applied, &a->config->backends[i].endpoint);

		if (b && can_stand_in(&a->state->applied, b) &&
		    is_silent(agent_backend_health(a->backends[i])))
			need(r, b, now);
	}
}

/* Lets go of those that are not needed any more. ending: of all of them. */
static void drop_idle(struct agent_relay *r, bool ending, __u64 now)
{
	const struct datapath_state *state = r->agent->state;
	const struct plan *p = &state->applied;
	__u64 on_its_way_ns = r->limits.connect_timeout_ms * NS_PER_MS;

	for (unsigned int i = r->rescue.n; i-- > 0;) {
		struct relay_stand_in *s = &r->rescue.at[i];
		const struct plan_backend *b = plan_find(p, &s->endpoint);
		bool over = ending || !b || !can_stand_in(p, b) || !has_alternative(state, b) ||
			    now - s->needed_ns >= REST_NS;

		s->id = b && !b->removed ? b->id : 0;
		if (over && !s->dropped_ns)
			s->dropped_ns = now;
		if (s->dropped_ns && now - s->dropped_ns >= on_its_way_ns) {
			release(&r->rescue, s);
			/* Clients that were taken last are joined by then, or reset. */
			r->rescue.rested_ns = now + on_its_way_ns;
		}
	}
}

static void fill_stands_in(struct agent_relay *r)
{
	const struct relay_rescue *s = &r->rescue;

	memset(r->told.stands_in, 0, sizeof(r->told.stands_in));
	for (unsigned int i = 0; i < s->n; i++)
		if (is_in_force(s, &s->at[i]))
			r->told.stands_in[s->at[i].id / 64] |= 1ULL << s->at[i].id % 64;
}

static bool needs_rule(struct agent_relay *r, __u64 now)
{
	bool some = r->rescue.n || now < r->rescue.rested_ns;

	if (!some && r->rescue.route.on)
		relay_read_counts(r->relay, &r->counts);
	for (unsigned int i = 0; i < r->counts.n && !some; i++)
		some = r->counts.at[i].active[RELAY_RETRANSMIT];
	return some;
}

/* Of the mark, while rule and route can be had; and why not. */
static void fill_mark(struct agent_relay *r, enum klb_relay_off off,
		      const struct local_delivery *wanted)
{
	const struct relay_route *t = &r->rescue.route;
	bool possible = relay_route_is_possible(t, wanted);

	if (!off && t->error)
		off = off_by_errno(t->error);
	r->told.mark = off || !possible || r->ending_ns ? 0 : t->on ? t->there.mark : wanted->mark;
	for (unsigned int i = 0; i < r->rescue.n && !off; i++)
		off = off_by_errno(r->rescue.at[i].error);
	r->told.rescue_off = (__u16)off;
}

void relay_rescue_review(struct agent_relay *r)
{
	static const struct local_delivery none;
	__u64 now = clock_now_ns();
	struct local_delivery wanted;
	unsigned int n = wanted_delivery(r->agent, &wanted);
	enum klb_relay_off off = why_off(r, n);

	if (!off && !r->ending_ns && !r->agent->config_pending)
		need_silent(r, now);
	drop_idle(r, off || r->ending_ns, now);
	/* Nothing of an agent that balances another namespace is to be found, or left, here. */
	if (off != KLB_RELAY_OFF_NETNS)
		relay_route_step(r, needs_rule(r, now), off ? &none : &wanted);
	fill_stands_in(r);
	fill_mark(r, off, &wanted);
	relay_tell(r);
}

void relay_rescue_need(struct agent_relay *r, const struct klb_endpoint *backend)
{
	const struct plan *p = &r->agent->state->applied;
	const struct plan_backend *b = plan_find_used(p, backend);

	/* Until the plan is made anew, nobody knows which backends are this node's own. */
	if (!r->told.mark || r->agent->config_pending || !b || !can_stand_in(p, b))
		return;
	need(r, b, clock_now_ns());
	relay_rescue_review(r);
}

void relay_rescue_close(struct agent_relay *r)
{
	while (r->rescue.n)
		release(&r->rescue, &r->rescue.at[0]);
}
