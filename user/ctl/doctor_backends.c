/* SPDX-License-Identifier: BSD-2-Clause */
/* The doctor asks every backend, and looks at the certificates and clocks that it meets. */
#include "ctl/doctor.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "balance/backend_status.h"
#include "base/clock.h"
#include "base/format.h"
#include "config/probe_tls.h"
#include "ctl/doctor_dial.h"
#include "net/endpoint.h"

/* As the alert KubelbCertificateExpires. */
#define EXPIRES_SOON_S (14 * 86400LL)
/* TLS and tokens bear as much. */
#define CLOCK_BEARS_S 60

/* What all backends have answered. */
struct answers {
	struct doctor_endpoints backends, frontends;
	struct dialled at[KLB_MAX_BACKENDS];
};

static const char *day(__s64 unix_s, char *buf)
{
	struct tm at;
	time_t t = (time_t)unix_s;

	gmtime_r(&t, &at);
	strftime(buf, 32, "%Y-%m-%d %H:%M UTC", &at);
	return buf;
}

/* --- is it ready? --- */

/* What the operator and the kernel's outlier detection have to do with it. */
static void say_aside(struct doctor *d, const struct klb_endpoint *backend, const char *at)
{
	const struct plan_backend *b = d->dp ? plan_find_used(&d->state->applied, backend) : NULL;
	struct backend_status status;

	if (!b)
		return;
	backend_status_of(d->state, b, d->now_ns, &status);
	if (backend_status_admin(d->state, b)->drained || !status.weight) {
		doctor_say(d, DOCTOR_WARN, "backend", "%s gets no new connections: %s", at,
			   status.weight ? status.why : "its weight is 0");
		doctor_next(d, "kubelbctl undrain %s, kubelbctl weight %s auto", at, at);
	} else if (status.state != STATUS_READY) {
		doctor_say(d, DOCTOR_WARN, "backend", "%s counts as %s, and has answered now: %s",
			   at, backend_status_name(status.state), status.why);
		doctor_next(d, "kubelbctl events shows what has failed; look again in a minute");
	}
}

static void say_ready(struct doctor *d, const struct klb_endpoint *backend, const char *at,
		      const struct dialled *r)
{
	char took[FORMAT_TIME_MAX], until[32];

	doctor_say(d, DOCTOR_OK, "backend", "%s is ready, answered in %s; certificate until %s", at,
		   format_duration(r->took_ns, took), day(r->expires_s, until));
	say_aside(d, backend, at);
}

static void say_refusal(struct doctor *d, const char *at, unsigned int status)
{
	char detail[TLS_DETAIL_MAX], *advice;

	config_explain_refusal(status, d->config->probe.client_cert, detail);
	advice = strstr(detail, "; ");
	if (advice)
		*advice = '\0';
	doctor_say(d, DOCTOR_FAULT, "backend", "%s answers %s", at, detail);
	doctor_next(d, "%s", advice ? advice + 2 : "see probe.clientCert in kubelb.yaml(5)");
}

static void say_answer(struct doctor *d, const struct klb_endpoint *backend, const char *at,
		       const struct dialled *r)
{
	bool refused = r->status == 401 || r->status == 403;

	if (r->status == 200 || (refused && !d->config->probe.anonymous_auth)) {
		say_ready(d, backend, at, r);
	} else if (refused) {
		say_refusal(d, at, r->status);
	} else {
		doctor_say(d, DOCTOR_FAULT, "backend", "%s answers %u to %s: it is not ready", at,
			   r->status, d->config->probe.path);
		doctor_next(d,
			    "curl -sk https://%s%s?verbose names what fails there: etcd in most "
			    "cases",
			    at, d->config->probe.path);
	}
}

/* --- its certificate is refused --- */

static void advise_certificate(struct doctor *d, const char *at, const struct dialled *r)
{
	switch (r->fault) {
	case TLS_FAULT_NAME:
		doctor_next(d, "issue it anew with that name (kubeadm: apiServer.certSANs, then "
			       "kubeadm init phase certs apiserver), or set probe.serverName to "
			       "one that it has");
		break;
	case TLS_FAULT_TIME:
		doctor_next(d, "%s",
			    r->dated && llabs(r->ahead_s) > CLOCK_BEARS_S
				    ? "set the clock first: see the check clock"
				    : "renew it there (kubeadm certs renew apiserver) and restart "
				      "that apiserver");
		break;
	default:
		doctor_next(d,
			    "set probe.ca (%s) to the CA that has issued it, "
			    "/etc/kubernetes/pki/ca.crt of the cluster; if the certificate is the "
			    "wrong one, see who answers at %s",
			    d->config->probe.ca ? d->config->probe.ca : "the system's trust store",
			    at);
	}
}

/* --- it does not answer --- */

static void advise_silence(struct doctor *d, const char *at, enum klb_reason reason)
{
	switch (reason) {
	case KLB_REASON_REFUSED:
		doctor_next(d,
			    "start kube-apiserver there (crictl ps -a --name kube-apiserver "
			    "shows what became of it), or take %s out of the list",
			    at);
		break;
	case KLB_REASON_CONNECT_TIMEOUT:
	case KLB_REASON_UNREACHABLE:
		doctor_next(d,
			    "is that host up, and does every firewall between let this node "
			    "through? ip route get, ping, and the check firewall; kubelbctl drain "
			    "%s keeps connects away meanwhile",
			    at);
		break;
	case KLB_REASON_NO_ANSWER:
		doctor_next(d,
			    "its kernel lives and its process does not: look at kube-apiserver's "
			    "log there, and restart it");
		break;
	default:
		doctor_next(d, "curl -vk https://%s shows what answers there; is it an apiserver?",
			    at);
	}
}

static void check_backend(struct doctor *d, const struct klb_endpoint *backend,
			  const struct dialled *r)
{
	char at[ENDPOINT_TEXT_MAX];

	endpoint_format(backend, at);
	if (r->reason == KLB_REASON_OK) {
		say_answer(d, backend, at, r);
		return;
	}
	doctor_say(d, DOCTOR_FAULT, "backend", "%s: %s", at, r->detail);
	if (r->reason == KLB_REASON_CERTIFICATE)
		advise_certificate(d, at, r);
	else
		advise_silence(d, at, r->reason);
}

/* --- what the certificates name, and until when --- */

static void say_uncovered(struct doctor *d, const char *backend, const char *names, bool all)
{
	doctor_say(d, all ? DOCTOR_FAULT : DOCTOR_WARN, "certificate",
		   "that of %s does not name %s: clients that dial it there refuse it", backend,
		   names);
	doctor_next(d, "add the address to its SANs (kubeadm: apiServer.certSANs, move "
		       "apiserver.crt and .key away, kubeadm init phase certs apiserver); until "
		       "then a client's kubeconfig can have tls-server-name: kubernetes");
}

static void check_names(struct doctor *d, const struct answers *a, unsigned int which)
{
	char at[ENDPOINT_TEXT_MAX], name[ENDPOINT_TEXT_MAX], names[ERR_TEXT_MAX / 2] = "";
	const struct dialled *r = &a->at[which];
	unsigned int missing = 0;
	size_t used = 0;

	for (unsigned int i = 0; i < a->frontends.n && used < sizeof(names); i++)
		if (!r->covers[i])
			used += (size_t)snprintf(
				names + used, sizeof(names) - used, "%s%s", missing++ ? ", " : "",
				endpoint_format_address(&a->frontends.list[i], name));
	if (missing)
		say_uncovered(d, endpoint_format(&a->backends.list[which], at), names,
			      missing == a->frontends.n);
}

static void check_expiry(struct doctor *d, const char *whose, __s64 expires_s)
{
	__s64 left_s = expires_s - (__s64)(clock_wall_ns() / NS_PER_S);
	char until[32];

	/* One that has expired was refused: that is said already. */
	if (!expires_s || left_s > EXPIRES_SOON_S || left_s <= 0)
		return;
	doctor_say(d, DOCTOR_WARN, "certificate", "that of %s expires on %s", whose,
		   day(expires_s, until));
	doctor_next(d, "renew it there (kubeadm certs renew apiserver)");
}

static void check_certificates(struct doctor *d, const struct answers *a)
{
	unsigned int before = d->n_findings, seen = 0;
	char at[ENDPOINT_TEXT_MAX];

	for (unsigned int i = 0; i < a->backends.n; i++) {
		if (a->at[i].reason != KLB_REASON_OK)
			continue;
		seen++;
		if (!d->config->probe.insecure_skip_verify)
			check_names(d, a, i);
		check_expiry(d, endpoint_format(&a->backends.list[i], at), a->at[i].expires_s);
	}
	if (!seen || d->n_findings != before)
		return;
	if (d->config->probe.insecure_skip_verify)
		doctor_say(d, DOCTOR_SKIP, "certificate",
			   "%u of %u seen, not verified: probe.insecureSkipVerify is on", seen,
			   a->backends.n);
	else
		doctor_say(d, DOCTOR_OK, "certificate", "%u of %u seen, each names all frontends",
			   seen, a->backends.n);
}

/* --- clocks --- */

static bool is_off(const struct dialled *r)
{
	return r->dated && llabs(r->ahead_s) > CLOCK_BEARS_S;
}

static void say_clock(struct doctor *d, const struct klb_endpoint *backend, const struct dialled *r,
		      bool only)
{
	char at[ENDPOINT_TEXT_MAX], by[FORMAT_TIME_MAX];

	doctor_say(d, DOCTOR_FAULT, "clock", "that of %s is %s %s this node's%s",
		   endpoint_format(backend, at),
		   format_duration((__u64)llabs(r->ahead_s) * NS_PER_S, by),
		   r->ahead_s > 0 ? "ahead of" : "behind",
		   only ? ", and no third one says which is wrong" : "");
	doctor_next(d, "set the clock %s: timedatectl, chronyc makestep",
		    only ? "that is wrong" : "of that host");
}

/* Most apiservers agree with each other and not with this node. */
static void say_own_clock(struct doctor *d, unsigned int off, unsigned int dated, __s64 ahead_s)
{
	char by[FORMAT_TIME_MAX];

	doctor_say(d, DOCTOR_FAULT, "clock",
		   "this node's is %s %s that of %u of %u apiservers: certificates and tokens are "
		   "not valid yet, or not any more",
		   format_duration((__u64)llabs(ahead_s) * NS_PER_S, by),
		   ahead_s > 0 ? "behind" : "ahead of", off, dated);
	doctor_next(d, "set this node's clock: timedatectl, chronyc makestep");
}

static void check_clocks(struct doctor *d, const struct answers *a)
{
	unsigned int dated = 0, off = 0, last = 0;

	for (unsigned int i = 0; i < a->backends.n; i++) {
		dated += a->at[i].dated;
		off += is_off(&a->at[i]);
		if (is_off(&a->at[i]))
			last = i;
	}
	if (!dated)
		doctor_say(d, DOCTOR_SKIP, "clock", "no apiserver has said what time it is");
	else if (!off)
		doctor_say(d, DOCTOR_OK, "clock", "no more than %d s from those of %u apiservers",
			   CLOCK_BEARS_S, dated);
	else if (dated > 1 && 2 * off > dated)
		say_own_clock(d, off, dated, a->at[last].ahead_s);
	else
		for (unsigned int i = 0; i < a->backends.n; i++)
			if (is_off(&a->at[i]))
				say_clock(d, &a->backends.list[i], &a->at[i], dated == 1);
}

/* --- all of it --- */

/* What time it is where the certificate's time is refused. Only the Date is taken from there. */
static void ask_refused_for_date(const struct doctor *d, struct answers *a)
{
	struct doctor_endpoints again = { .n = 0 };
	unsigned int which[KLB_MAX_BACKENDS];
	struct dialled *r;

	for (unsigned int i = 0; i < a->backends.n; i++) {
		if (a->at[i].fault != TLS_FAULT_TIME)
			continue;
		which[again.n] = i;
		again.list[again.n++] = a->backends.list[i];
	}
	r = calloc(again.n + 1, sizeof(*r));
	if (r && !dial_backends(&d->config->probe, &again, &a->frontends, true, r, NULL))
		for (unsigned int i = 0; i < again.n; i++) {
			a->at[which[i]].dated = r[i].dated;
			a->at[which[i]].ahead_s = r[i].ahead_s;
		}
	free(r);
}

static int ask(const struct doctor *d, struct answers *a, struct err *e)
{
	int r = dial_backends(&d->config->probe, &a->backends, &a->frontends, false, a->at, e);

	if (!r)
		ask_refused_for_date(d, a);
	return r;
}

static void judge(struct doctor *d, const struct answers *a)
{
	for (unsigned int i = 0; i < a->backends.n; i++)
		check_backend(d, &a->backends.list[i], &a->at[i]);
	check_certificates(d, a);
	check_clocks(d, a);
}

static void say_not_dialled(struct doctor *d, int r, const struct err *e)
{
	bool hidden = r == -EACCES || r == -EPERM || doctor_is_blind(d);

	doctor_say(d, hidden ? DOCTOR_SKIP : DOCTOR_FAULT, "backend", "not dialled: %s", e->text);
	if (!hidden)
		doctor_next(d, "correct that file, or the key that names it in %s", d->config_path);
}

void doctor_check_backends(struct doctor *d)
{
	struct answers *a = calloc(1, sizeof(*a));
	struct err e = { "" };
	int r;

	if (!a)
		return;
	doctor_backends(d, &a->backends);
	doctor_frontends(d, &a->frontends);
	if (!a->backends.n) {
		doctor_say(d, DOCTOR_SKIP, "backend", "none is known here");
	} else if (d->config_is_default) {
		/* Without probe.ca every certificate would be refused. */
		doctor_say(d, DOCTOR_SKIP, "backend",
			   "%u, not dialled: the configuration with probe.ca cannot be read",
			   a->backends.n);
	} else {
		r = ask(d, a, &e);
		if (r)
			say_not_dialled(d, r, &e);
		else
			judge(d, a);
	}
	free(a);
}
