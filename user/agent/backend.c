/* SPDX-License-Identifier: BSD-2-Clause */
/* One backend in the agent: schedules its probes, and updates its health from their results. */
#include "agent/backend.h"

#include <errno.h>
#include <stdlib.h>

#include <event2/event.h>
#include <event2/util.h>

#include "balance/names.h"
#include "base/clock.h"
#include "base/format.h"
#include "base/random.h"
#include "net/endpoint.h"
#include "base/log.h"

/* The probes of thousands of nodes must not come at the same time. */
#define JITTER_PERCENT 20
/*
 * The shortest time between two probes. Events during it cause one probe at its end, because the
 * probe before may have been too early to notice.
 */
#define EARLY_MIN_MS 100

/* --- the next probe ---------------------------------------------------------------- */

static void schedule(struct agent_backend *b, unsigned int ms)
{
	const struct timeval tv = clock_timeval(ms);

	event_add(b->timer, &tv);
}

static void schedule_next(struct agent_backend *b)
{
	schedule(b, random_around(health_next_probe_ms(&b->health, &b->rules), JITTER_PERCENT));
}

/* Probes at once, whatever was scheduled. */
static void probe_now(struct agent_backend *b, enum probe_path path)
{
	event_del(b->timer);
	b->begun = true;
	b->probing = true;
	b->again = false;
	if (path == PROBE_READY)
		b->began_ns = clock_now_ns();
	probe_start(b->probe, path);
}

static void prefer_others(struct agent_backend *b);

/* While the backend answers its clients, no probe is needed. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct agent_backend *b = arg;
	__u64 answer_ns;

	(void)fd;
	(void)what;
	if (b->probing) {
		prefer_others(b);
		return;
	}
	answer_ns = b->ops->last_answer_ns(b->arg, &b->endpoint);
	if (b->begun && !b->again &&
	    health_may_skip(&b->health, &b->rules, answer_ns, clock_now_ns())) {
		b->metrics.skipped++;
		schedule_next(b);
		return;
	}
	probe_now(b, PROBE_READY);
}

/*
 * Early probes: this many in a row, then one in this time. Every user of this node can make
 * connects fail, and a backend can close its connections; the limit protects the apiservers and the
 * agent from that.
 */
static const struct ration_rules early_rules = { .burst = 5, .every_ms = 1000 };

/* Counts one early probe. Returns false when there were too many. */
static bool may_probe_early(struct agent_backend *b)
{
	return ration_take(&b->early, &early_rules, clock_now_ns());
}

/* --- what the probe reports ---------------------------------------------------------- */

static void log_state(const struct agent_backend *b, enum klb_state was, const char *detail)
{
	char text[ENDPOINT_TEXT_MAX];
	bool better = health_is_better(b->health.state, was) || b->health.state == KLB_STATE_READY;

	log_event(better ? LOG_LEVEL_INFO : LOG_LEVEL_WARN,
		  b->health.state == was ? "backend is as it was" : "backend changed state",
		  "backend=%s state=%s was=%s reason=%s http_status=%u detail=%s",
		  endpoint_format(&b->endpoint, text), names_state(b->health.state),
		  names_state(was), log_quoted(names_reason(b->health.reason)),
		  b->health.http_status, log_quoted(detail));
}

/*
 * There was a connection but no answer about readiness. An apiserver whose etcd stalls still
 * answers about liveness. Other backends are preferred meanwhile.
 */
static void probe_liveness(struct agent_backend *b, const struct probe_result *result)
{
	enum klb_state was = b->health.state;
	bool changed = health_unanswered(&b->health, clock_now_ns());

	if (changed)
		log_state(b, was, result->detail ? result->detail : "");
	probe_now(b, PROBE_LIVE);
	if (changed)
		b->ops->changed(b->arg, true);
}

/* Any answer shows that it is alive. It has not said that it is ready. */
static enum klb_reason reason_while_alive(enum klb_reason outcome)
{
	switch (outcome) {
	case KLB_REASON_OK:
	case KLB_REASON_UNAUTHORIZED:
		return KLB_REASON_NOT_READY;
	default:
		return outcome;
	}
}

/* A probe can fail at once; data to clients this long before still shows that it serves. */
#define SERVING_MS 1000

/* Whether clients have had data since the failed probe or PING began, or just before. */
static bool serves_clients(struct agent_backend *b, __u64 began_ns)
{
	unsigned int ms = b->rules.interval_ms < SERVING_MS ? b->rules.interval_ms : SERVING_MS;
	__u64 since = clock_now_ns() - ms * NS_PER_MS;

	if (began_ns < since)
		since = began_ns;
	return b->ops->last_data_ns(b->arg, &b->endpoint) > since;
}

/*
 * A backend that serves clients is not dead, whatever the probes say: it is busy, or it shuts
 * down.
 */
static bool take_outcome(struct agent_backend *b, enum klb_reason outcome,
			 const struct probe_result *result)
{
	if (health_is_last_failure(&b->health, &b->rules, outcome) &&
	    serves_clients(b, b->began_ns))
		return health_failed_serving(&b->health, &b->rules, outcome, clock_now_ns());
	return health_probed(&b->health, &b->rules, outcome, result->http_status, clock_now_ns());
}

/* The want of descriptors or memory here says nothing about the backend. */
static void note_unable(struct agent_backend *b, const struct probe_result *result)
{
	char text[ENDPOINT_TEXT_MAX];
	struct err e = { "" };

	if (result->unable)
		err_set(&e, ENOMEM, "%s: %s", endpoint_format(&b->endpoint, text), result->detail);
	else if (b->unable[0])
		log_event(LOG_LEVEL_INFO, "the backend can be probed again", "backend=%s",
			  endpoint_format(&b->endpoint, text));
	log_failure(b->unable, LOG_LEVEL_WARN,
		    "the backend cannot be probed for now, its state stays as it is", &e);
}

/* Was it closed for being idle? Then its server is kept from it, and that is said once. */
static void learn_idle_close(struct agent_backend *b)
{
	char text[ENDPOINT_TEXT_MAX], idle[FORMAT_TIME_MAX];
	bool first = b->closed && health_is_well(&b->health) &&
		     idle_close_learn(&b->idle, b->closed_idle_ms);

	b->closed = false;
	b->rules.keep_ms = idle_close_probe_ms(&b->idle);
	if (first)
		log_event(LOG_LEVEL_INFO,
			  "backend closes idle connections, which says nothing about it",
			  "backend=%s idle=%s probes=%s", endpoint_format(&b->endpoint, text),
			  format_duration(b->idle.limit_ms * NS_PER_MS, idle),
			  b->rules.keep_ms ? "sooner" : "\"dial anew\"");
}

static void log_probed(const struct agent_backend *b, enum klb_reason outcome,
		       const struct probe_result *result)
{
	char text[ENDPOINT_TEXT_MAX];

	log_event(LOG_LEVEL_DEBUG, "probed", "backend=%s result=%s http_status=%u seconds=%.6f",
		  endpoint_format(&b->endpoint, text), log_quoted(names_reason(outcome)),
		  result->http_status, (double)result->duration_ns / NS_PER_S);
}

/*
 * Whatever it says on a new connection, it serves such. So does one whose certificate this agent
 * cannot verify.
 */
static void note_reached(struct agent_backend *b, const struct probe_result *result)
{
	b->metrics.handshakes += result->handshake;
	if (result->certificate_expires_s)
		b->metrics.certificate_expires_s = result->certificate_expires_s;
	if (result->outcome != KLB_REASON_CERTIFICATE &&
	    (!result->handshake || !result->http_status))
		return;
	b->reached_ns = clock_now_ns() - result->duration_ns;
	b->ops->reached(b->arg, b);
}

/*
 * It was reached, and another configuration waits for its time: the failure may be the old one's,
 * of a CA or a client certificate that has been replaced at both ends by now.
 */
static bool is_outdated(const struct agent_backend *b, const struct probe_result *result)
{
	switch (result->outcome) {
	case KLB_REASON_OK:
	case KLB_REASON_REFUSED:
	case KLB_REASON_UNREACHABLE:
	case KLB_REASON_CONNECT_TIMEOUT:
	case KLB_REASON_NO_ANSWER:
		return false;
	default:
		return b->next.kept;
	}
}

/* The next configuration's turn is now. What it finds is judged. */
static void renew_now(struct agent_backend *b)
{
	event_add(b->renew_timer, &(struct timeval){ 0 });
	schedule_next(b);
}

/* What it says of the backend's state. */
static void judge(struct agent_backend *b, const struct probe_result *result)
{
	enum klb_state was = b->health.state;
	enum klb_reason reason_was = b->health.reason, outcome = result->outcome;
	bool changed;

	if (result->path == PROBE_LIVE)
		outcome = reason_while_alive(outcome);
	changed = take_outcome(b, outcome, result);
	learn_idle_close(b);
	/* Also logs a new reason why it is not ready, and once after a start the adopted state. */
	if (changed || (b->health.state != KLB_STATE_READY && outcome != KLB_REASON_OK &&
			(reason_was != outcome || b->adopted)))
		log_state(b, was, result->detail ? result->detail : "");
	else if (log_enabled(LOG_LEVEL_DEBUG))
		log_probed(b, outcome, result);
	b->adopted = false;
	if (b->again)
		schedule(b, EARLY_MIN_MS);
	else
		schedule_next(b);
	b->ops->changed(b->arg, changed);
}

static void on_done(void *arg, const struct probe_result *result)
{
	struct agent_backend *b = arg;

	b->probing = false;
	event_del(b->timer);
	note_unable(b, result);
	if (result->unable) {
		b->closed = false;
		schedule_next(b);
		return;
	}
	metrics_probe_observe(&b->metrics, result->outcome, result->duration_ns);
	note_reached(b, result);
	if (result->http_status)
		b->alive_ns = clock_now_ns();
	if (is_outdated(b, result))
		renew_now(b);
	else if (result->outcome == KLB_REASON_NO_ANSWER && result->path == PROBE_READY)
		probe_liveness(b, result);
	else
		judge(b, result);
}

/* The next probe shows whether the server was well when it closed the connection. */
static void note_close(struct agent_backend *b)
{
	b->closed = true;
	b->closed_idle_ms =
		(unsigned int)((clock_now_ns() - probe_answer_ns(b->probe)) / NS_PER_MS);
}

/* How long the probe after a closed connection may take before others are preferred. */
#define QUICK_ANSWER_MS 500
/* The wait for that probe, when there were too many. */
#define CLOSED_WAIT_MS 500

/*
 * The server has closed the connection after a good answer. If it has died, a new connection is
 * refused one round trip later; if not, it keeps no idle connections, or has restarted. Until the
 * probe has an answer, nothing is known.
 */
static void on_closed(struct agent_backend *b)
{
	unsigned int wait =
		b->rules.interval_ms < CLOSED_WAIT_MS ? b->rules.interval_ms : CLOSED_WAIT_MS;

	note_close(b);
	if (may_probe_early(b)) {
		probe_now(b, PROBE_READY);
		schedule(b, QUICK_ANSWER_MS);
		return;
	}
	b->again = true;
	schedule(b, wait);
	if (!b->idle.limit_ms)
		prefer_others(b);
}

/* Its connection was closed, and there is no answer on a new one yet, be it that it is dead. */
static void prefer_others(struct agent_backend *b)
{
	enum klb_state was = b->health.state;

	if (!health_unanswered(&b->health, clock_now_ns()))
		return;
	log_state(b, was,
		  "the connection kept for probes was closed, and a new one has no answer yet");
	b->ops->changed(b->arg, true);
}

/* The connection has ended by itself: check at once whether the backend is still there. */
static void on_lost(void *arg, bool timed_out)
{
	struct agent_backend *b = arg;
	enum klb_state was = b->health.state;
	bool changed;

	if (!timed_out && health_is_well(&b->health)) {
		on_closed(b);
		return;
	}
	/* Closed by one that is not well: that is no news. */
	changed = timed_out && health_timed_out(&b->health, &b->rules, clock_now_ns());
	if (changed)
		log_state(b, was,
			  "nothing is acknowledged any more on the connection kept for probes");
	if (may_probe_early(b))
		probe_now(b, PROBE_READY);
	else
		schedule_next(b);
	if (changed)
		b->ops->changed(b->arg, true);
}

/* --- signs of life --------------------------------------------------------------------- */

static void on_alive(void *arg)
{
	struct agent_backend *b = arg;
	enum klb_state was = b->health.state;
	bool changed;

	b->alive_ns = clock_now_ns();
	liveness_alive(b->liveness);
	changed = health_alive(&b->health, b->alive_ns);
	if (!changed)
		return;
	log_state(b, was, "it answers again");
	if (b->health.state != KLB_STATE_READY)
		agent_backend_probe_soon(b);
	b->ops->changed(b->arg, true);
}

/* The server takes no more requests on this connection; that is no failure. */
static void on_going(void *arg)
{
	struct agent_backend *b = arg;

	note_close(b);
	if (may_probe_early(b))
		probe_now(b, PROBE_READY);
}

static int ping(void *arg)
{
	struct agent_backend *b = arg;
	int r = probe_ping(b->probe);

	/*
	 * The handshake of a new connection is as good a question to one that was well. Otherwise a
	 * process that hangs while its connection is renewed is found by the probes' long timeouts.
	 */
	if (r == -EINPROGRESS && b->health.state == KLB_STATE_READY)
		return 0;
	/* A dead one is probed at its interval. */
	if (r == -ENOTCONN && b->health.state != KLB_STATE_DEAD && may_probe_early(b))
		probe_now(b, PROBE_READY);
	if (!r)
		b->metrics.pings++;
	return r;
}

static bool is_acknowledged(void *arg)
{
	struct agent_backend *b = arg;

	return probe_is_acknowledged(b->probe);
}

/* Other backends are preferred until it is known whether the host is gone. */
static void on_doubted(void *arg)
{
	struct agent_backend *b = arg;
	enum klb_state was = b->health.state;

	if (!health_silent(&b->health, KLB_REASON_CONNECT_TIMEOUT, clock_now_ns()))
		return;
	log_state(b, was, "its host acknowledges no PING and answers no new connect");
	b->ops->changed(b->arg, true);
}

/* A new connection shows whether it is the process that hangs, or that connection alone. */
static void on_silent(void *arg, __u64 asked_ns)
{
	struct agent_backend *b = arg;
	enum klb_state was = b->health.state;
	bool changed = health_silent(&b->health, KLB_REASON_NO_ANSWER, clock_now_ns());

	(void)asked_ns;
	b->metrics.pings_unanswered++;
	if (changed)
		log_state(b, was, "a PING was not answered");
	probe_renew(b->probe);
	if (!b->probing && b->health.state != KLB_STATE_DEAD)
		probe_now(b, PROBE_READY);
	if (changed)
		b->ops->changed(b->arg, true);
}

static void on_no_life(void *arg, __u64 asked_ns, bool vanished)
{
	struct agent_backend *b = arg;
	enum klb_state was = b->health.state;
	enum klb_reason reason = vanished ? KLB_REASON_CONNECT_TIMEOUT : KLB_REASON_NO_ANSWER;
	bool changed;

	b->metrics.pings_unanswered += vanished;
	/* When nobody answers, the trouble is this node's own. */
	if (!b->ops->others_alive(b->arg, b, asked_ns))
		changed = health_silent(&b->health, reason, clock_now_ns());
	else
		changed = health_lost(&b->health, &b->rules, reason, serves_clients(b, asked_ns),
				      clock_now_ns());
	if (!changed)
		return;
	log_state(b, was,
		  vanished ? "its host answers neither a PING nor new connects"
			   : "it answers neither a PING nor a new connection's handshake");
	b->ops->changed(b->arg, true);
}

static const struct liveness_ops liveness_callbacks = {
	.ping = ping,
	.is_acknowledged = is_acknowledged,
	.doubted = on_doubted,
	.silent = on_silent,
	.lost = on_no_life,
};

static void on_not_covered(void *arg, const struct klb_endpoint *address)
{
	struct agent_backend *b = arg;
	char text[ENDPOINT_TEXT_MAX], frontend[ENDPOINT_TEXT_MAX];

	if (b->coverage_warned)
		return;
	b->coverage_warned = true;
	endpoint_format_address(address, frontend);
	log_event(LOG_LEVEL_WARN,
		  "the backend's certificate does not cover the frontend's address: clients that "
		  "dial it will refuse the certificate",
		  "backend=%s frontend=%s fix=\"add %s to apiServer.certSANs in kubeadm's "
		  "ClusterConfiguration; then on each control plane move "
		  "/etc/kubernetes/pki/apiserver.crt and .key away, run kubeadm init phase certs "
		  "apiserver --config FILE with that configuration, and restart the apiserver\"",
		  endpoint_format(&b->endpoint, text), frontend, frontend);
}

static const struct probe_ops probe_callbacks = {
	.done = on_done,
	.lost = on_lost,
	.alive = on_alive,
	.going = on_going,
	.not_covered = on_not_covered,
};

/* --- beside the persistent connection ------------------------------------------------------ */

static void on_dialled(void *arg, const struct probe_result *result)
{
	struct agent_backend *b = arg;

	b->dialling = false;
	probe_hang_up(b->beside);
	note_reached(b, result);
}

static void ignore_lost(void *arg, bool timed_out)
{
	(void)arg;
	(void)timed_out;
}

static void ignore_sign(void *arg)
{
	(void)arg;
}

/* Signs of life count on the persistent connection alone, whose PINGs they would put off. */
static const struct probe_ops beside_callbacks = {
	.done = on_dialled,
	.lost = ignore_lost,
	.alive = ignore_sign,
	.going = ignore_sign,
};

/* --- make and free --- */

void agent_backend_rules(const struct config *cfg, struct health_rules *ret,
			 struct liveness_rules *ret_liveness)
{
	*ret = (struct health_rules){ .rise = cfg->probe.rise,
				      .fall = cfg->probe.fall,
				      .no_anonymous = !cfg->probe.anonymous_auth,
				      .interval_ms = cfg->probe.interval_ms };
	*ret_liveness = (struct liveness_rules){ .ping_ms = cfg->probe.ping_ms,
						 .timeout_ms = cfg->probe.ping_timeout_ms };
}

struct liveness *agent_backend_make_liveness(struct agent_backend *b, struct event_base *base,
					     const struct liveness_rules *rules)
{
	return liveness_new(base, &b->endpoint, rules, &liveness_callbacks, b);
}

int agent_backend_make_probes(struct agent_backend *b, struct event_base *base,
			      const struct config *cfg, struct probe_tls *tls,
			      struct agent_backend_probes *ret, struct err *e)
{
	struct klb_endpoint cover[KLB_MAX_FRONTENDS];
	int r;

	for (unsigned int i = 0; i < cfg->n_frontends; i++)
		cover[i] = cfg->frontends[i].endpoint;
	ret->tls = probe_tls_hold(tls);
	r = probe_new(base, &cfg->probe, tls, &b->endpoint, NULL, 0, &beside_callbacks, b,
		      &ret->beside, e);
	if (r)
		return r;
	return probe_new(base, &cfg->probe, tls, &b->endpoint, cover, cfg->n_frontends,
			 &probe_callbacks, b, &ret->kept, e);
}

void agent_backend_free_probes(struct agent_backend_probes *p)
{
	probe_free(p->kept);
	probe_free(p->beside);
	probe_tls_free(p->tls);
	*p = (struct agent_backend_probes){ 0 };
}

void agent_backend_take_probes(struct agent_backend *b, struct agent_backend_probes *next)
{
	struct agent_backend_probes old = { b->probe, b->beside, b->tls };

	b->probe = next->kept;
	b->beside = next->beside;
	b->tls = next->tls;
	*next = (struct agent_backend_probes){ 0 };
	agent_backend_free_probes(&old);
}

void agent_backend_probe_now(struct agent_backend *b)
{
	probe_now(b, PROBE_READY);
}

static int make_parts(struct agent_backend *b, struct event_base *base, const struct config *cfg,
		      struct probe_tls *tls, struct err *e)
{
	struct agent_backend_probes probes = { 0 };
	int r;

	agent_backend_rules(cfg, &b->rules, &b->liveness_rules);
	b->timer = evtimer_new(base, on_timer, b);
	b->liveness = agent_backend_make_liveness(b, base, &b->liveness_rules);
	if (!b->timer || !b->liveness)
		return err_no_memory(e);
	r = agent_backend_make_probes(b, base, cfg, tls, &probes, e);
	agent_backend_take_probes(b, &probes);
	return r;
}

int agent_backend_new(struct event_base *base, const struct config *cfg,
		      const struct klb_endpoint *endpoint, struct probe_tls *tls,
		      const struct agent_backend_ops *ops, void *arg, struct agent_backend **ret,
		      struct err *e)
{
	struct agent_backend *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return err_no_memory(e);
	b->endpoint = *endpoint;
	b->metrics.backend = b->endpoint;
	b->ops = ops;
	b->arg = arg;
	health_init(&b->health, clock_now_ns());
	r = make_parts(b, base, cfg, tls, e);
	if (r) {
		agent_backend_free(b);
		return r;
	}
	*ret = b;
	return 0;
}

void agent_backend_stop(struct agent_backend *b)
{
	if (b->stop_renewal)
		b->stop_renewal(b);
	if (b->timer)
		event_free(b->timer);
	b->timer = NULL;
	liveness_free(b->liveness);
	b->liveness = NULL;
	agent_backend_take_probes(b, &(struct agent_backend_probes){ 0 });
	b->dialling = false;
}

void agent_backend_free(struct agent_backend *b)
{
	if (!b)
		return;
	agent_backend_stop(b);
	free(b);
}

void agent_backend_inherit(struct agent_backend *b, const struct agent_backend *before)
{
	b->health = before->health;
	b->metrics = before->metrics;
	b->alive_ns = before->alive_ns;
	b->reached_ns = before->reached_ns;
	b->coverage_warned = before->coverage_warned;
	b->idle = before->idle;
	b->rules.keep_ms = idle_close_probe_ms(&b->idle);
}

void agent_backend_adopt(struct agent_backend *b, const struct klb_backend *seen,
			 unsigned int weight)
{
	health_adopt(&b->health, seen, weight);
	b->adopted = true;
}

void agent_backend_came_back(struct agent_backend *b)
{
	b->left_ns = 0;
	health_came_back(&b->health, clock_now_ns());
}

void agent_backend_start(struct agent_backend *b, unsigned int within_ms)
{
	schedule(b, random_between(0, within_ms));
}

void agent_backend_probe_soon(struct agent_backend *b)
{
	__u64 age_ms = (clock_now_ns() - b->health.last_probe_ns) / NS_PER_MS;

	liveness_hurry(b->liveness);
	/* A probe is requested already, or there were too many. */
	if (b->again || !may_probe_early(b))
		return;
	if (!b->probing && age_ms >= EARLY_MIN_MS) {
		probe_now(b, PROBE_READY);
		return;
	}
	if (!b->probing)
		schedule(b, EARLY_MIN_MS - (unsigned int)age_ms);
	b->again = true;
}

void agent_backend_dial(struct agent_backend *b)
{
	/* The probes of a dead one are new connections already. */
	if (b->dialling || b->health.state == KLB_STATE_DEAD || !may_probe_early(b))
		return;
	b->dialling = true;
	probe_start(b->beside, PROBE_READY);
}

__u64 agent_backend_reached_ns(const struct agent_backend *b)
{
	return b->reached_ns;
}

__u64 agent_backend_alive_ns(const struct agent_backend *b)
{
	return b->alive_ns;
}

const struct health *agent_backend_health(const struct agent_backend *b)
{
	return &b->health;
}

const struct metrics_probe *agent_backend_metrics(const struct agent_backend *b)
{
	return &b->metrics;
}

struct agent_backend *agent_backend_find(struct agent_backend *const *list, unsigned int n,
					 const struct klb_endpoint *endpoint)
{
	for (unsigned int i = 0; list && i < n; i++)
		if (endpoint_equal(&list[i]->endpoint, endpoint))
			return list[i];
	return NULL;
}
