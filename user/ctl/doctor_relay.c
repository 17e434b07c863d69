/* SPDX-License-Identifier: BSD-2-Clause */
/* The doctor looks at the relay: what goes through the agent beside the kernel's own way. */
#include "ctl/doctor.h"

#include "ctl/relay_status.h"

static enum doctor_level level_of(__u16 off)
{
	switch (off) {
	case KLB_RELAY_ON:
	case KLB_RELAY_OFF_CONFIG:
	case KLB_RELAY_OFF_LOCAL:
	case KLB_RELAY_OFF_ALONE:
		return DOCTOR_OK;
	case KLB_RELAY_OFF_KERNEL:
		return DOCTOR_WARN;
	default:
		return DOCTOR_FAULT;
	}
}

static const char *advice(__u16 off)
{
	switch (off) {
	case KLB_RELAY_OFF_KERNEL:
		return "use a kernel with policy routing (CONFIG_IP_MULTIPLE_TABLES) and sockops";
	case KLB_RELAY_OFF_PRIVILEGE:
		return "give the agent CAP_NET_ADMIN";
	case KLB_RELAY_OFF_NETNS:
		return "run the agent where kubelb-load ran: on the host";
	case KLB_RELAY_OFF_TAKEN:
		return "ip rule shows who has the mark or the table; choose others by relay.mark "
		       "and relay.table";
	case KLB_RELAY_OFF_ADDRESS:
		return "journalctl -u kubelb-agent says who listens there (ss -ltnp); end that";
	default:
		return "journalctl -u kubelb-agent says why";
	}
}

static void check_part(struct doctor *d, const char *name, bool on, __u16 off)
{
	enum doctor_level level = level_of(off);

	if (!off) {
		doctor_say(d, DOCTOR_OK, "relay", "%s is %s", name, on ? "on" : "starting");
		return;
	}
	doctor_say(d, level, "relay", "%s is %s: %s", name, on ? "not on everywhere" : "off",
		   relay_status_off_text(off));
	if (level != DOCTOR_OK)
		doctor_next(d, "%s", advice(off));
}

void doctor_check_relay(struct doctor *d)
{
	const struct klb_relay *r = &d->state->control.relay;

	if (!d->dp)
		return;
	if (!d->agent_alive) {
		doctor_say(d, DOCTOR_SKIP, "relay", "there is none without an agent");
		return;
	}
	check_part(d, "rescue", r->mark, r->rescue_off);
	check_part(d, "detour", r->port4 || r->port6, r->detour_off);
}
