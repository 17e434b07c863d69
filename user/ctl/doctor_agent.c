/* SPDX-License-Identifier: BSD-2-Clause */
/* The doctor looks at the agent: whether it runs and answers, its file, and discovery. */
#include "ctl/doctor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "balance/backend_status.h"
#include "balance/names.h"
#include "base/format.h"
#include "ctl/ask.h"
#include "host/node.h"
#include "host/process.h"

#define AGENT "kubelb-agent"
#define LOG "journalctl -u " AGENT " -n 50"

/* --- the process --- */

static void say_never(struct doctor *d)
{
	doctor_say(
		d, DOCTOR_WARN, "agent",
		"none has run since KubeLB was attached: every backend counts as ready, and only "
		"failed connects show that one is not");
	doctor_next(d, "systemctl enable --now " AGENT);
}

/* Its last sign of life is too old; p: what runs here. */
static void say_silent(struct doctor *d, const struct process_found *p)
{
	char age[FORMAT_TIME_MAX];

	format_age(d->state->control.heartbeat_ns, d->now_ns, age);
	if (p->n) {
		doctor_say(d, DOCTOR_FAULT, "agent",
			   "PID %u runs, and its last sign of life is %s old: its verdicts do not "
			   "count any more",
			   p->pid, age);
		doctor_next(d, "look at " LOG ", then systemctl restart " AGENT
			       ": that ends no connection");
		return;
	}
	doctor_say(d, DOCTOR_FAULT, "agent",
		   "it has ended%s: its last sign of life is %s old, and every backend counts as "
		   "ready",
		   node_sees_every_process() ? "" : ", or is not to be seen from this container",
		   age);
	doctor_next(d, "systemctl start " AGENT "; " LOG " says why it has ended");
}

static void say_stopped(struct doctor *d, __u32 pid)
{
	doctor_say(d, DOCTOR_FAULT, "agent",
		   "PID %u is stopped (a signal such as SIGSTOP, or a debugger): it probes nothing",
		   pid);
	doctor_next(d, "kill -CONT %u, or systemctl restart " AGENT ": that ends no connection",
		    pid);
}

static void say_alone(struct doctor *d, const struct process_found *p)
{
	if (p->n)
		doctor_say(d, DOCTOR_OK, "agent", "PID %u runs", p->pid);
	else
		doctor_say(d, DOCTOR_SKIP, "agent", "no process of it is to be seen here");
}

static void check_process(struct doctor *d)
{
	struct process_found p;
	char age[FORMAT_TIME_MAX];

	process_find(AGENT, &p);
	if (p.stopped)
		say_stopped(d, p.stopped);
	else if (d->relayed)
		doctor_say(d, DOCTOR_OK, "agent", "it answers");
	else if (!d->dp)
		say_alone(d, &p);
	else if (d->agent_alive)
		doctor_say(d, DOCTOR_OK, "agent", "its last sign of life is %s old",
			   format_age(d->state->control.heartbeat_ns, d->now_ns, age));
	else if (!d->state->control.heartbeat_ns)
		say_never(d);
	else if (backend_status_heartbeat_is_ahead(&d->state->control, d->now_ns)) {
		doctor_say(d, DOCTOR_FAULT, "agent",
			   "its heartbeat is of a clock that is ahead of the kernel's");
		doctor_next(d, "restart the agent outside of a time namespace (lsns -t time)");
	} else {
		say_silent(d, &p);
	}
}

/* --- what it says --- */

static void check_reload(struct doctor *d)
{
	struct ask_body body = { 0 };
	struct err e;

	if (ask_body(d->config, ASK_PAGE, "/metrics", &body, &e)) {
		doctor_say(d, DOCTOR_FAULT, "answers", "%s", e.text);
		doctor_next(d, LOG " says why (no metrics for now); kubelbctl works without");
		return;
	}
	if (!strstr(body.text, "\nkubelb_config_last_reload_successful 0")) {
		doctor_say(d, DOCTOR_OK, "reload", "the agent uses the file as it is");
	} else {
		doctor_say(d, DOCTOR_FAULT, "reload",
			   "the agent has refused the file, and goes on with what it read before");
		doctor_next(d, LOG " says what is wrong with it (configuration not reloaded); "
				   "correct that, and it is taken up by itself");
	}
	free(body.text);
}

static void check_ready(struct doctor *d)
{
	struct ask_answer answer = { .status = 0 };

	if (ask_agent(d->config, "/readyz", &answer, NULL) || answer.status == 200)
		return;
	doctor_say(d, DOCTOR_FAULT, "ready", "the agent is not: %s", answer.line);
	doctor_next(d, "the other faults come first; " LOG " has the rest");
}

static void check_answers(struct doctor *d)
{
	struct process_found p;

	process_find(AGENT, &p);
	/* What is stopped does not answer, and what does not run neither. */
	if (p.stopped || !(d->agent_alive || p.n))
		return;
	if (!d->config->http_enabled && !d->config->http_socket && !d->relayed) {
		doctor_say(d, DOCTOR_SKIP, "answers", "http is off, so the agent cannot be asked");
		return;
	}
	check_reload(d);
	check_ready(d);
}

/* --- discovery --- */

/* Of the maps, or of the agent's document. */
static enum klb_discovery discovery_of(const struct doctor *d)
{
	const char *key = json_string_value(
		json_object_get(json_object_get(d->relayed, "discovery"), "state"));

	if (d->dp)
		return d->state->control.discovery;
	for (int i = KLB_DISCOVERY_OFF; key && i <= KLB_DISCOVERY_FAILING; i++)
		if (!strcmp(names_discovery_key((enum klb_discovery)i), key))
			return (enum klb_discovery)i;
	return KLB_DISCOVERY_OFF;
}

static void check_discovery(struct doctor *d)
{
	enum klb_discovery state = discovery_of(d);

	if (!d->config->discovery && state == KLB_DISCOVERY_OFF) {
		doctor_say(d, DOCTOR_OK, "discovery", "off: the configuration has the list");
		return;
	}
	if (!d->agent_alive) {
		doctor_say(d, DOCTOR_SKIP, "discovery", "there is none without an agent");
		return;
	}
	if (state == KLB_DISCOVERY_CURRENT) {
		doctor_say(d, DOCTOR_OK, "discovery", "%s", names_discovery(state));
		return;
	}
	doctor_say(d, state == KLB_DISCOVERY_FAILING ? DOCTOR_FAULT : DOCTOR_WARN, "discovery",
		   "%s", names_discovery(state));
	doctor_next(d,
		    LOG " says what fails: the kubeconfig of discovery (%s), its rights to get "
			"endpointslices in default, or no backend that answers",
		    d->config->discovery_kubeconfig ? d->config->discovery_kubeconfig
						    : "the pod's service account");
}

void doctor_check_agent(struct doctor *d)
{
	check_process(d);
	check_answers(d);
	if (d->dp || d->relayed)
		check_discovery(d);
}
