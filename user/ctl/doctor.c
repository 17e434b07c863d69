/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelbctl doctor: says what is wrong and what to do about it. */
#include "ctl/doctor.h"

#include "base/array.h"
#include "base/cli.h"
#include "ctl/json.h"

static void (*const checks[])(struct doctor *d) = {
	doctor_check_host,     doctor_check_config,   doctor_check_attached,
	doctor_check_connects, doctor_check_agent,    doctor_check_relay,
	doctor_check_ports,    doctor_check_backends, doctor_check_firewall,
};

static int print(const struct doctor *d, bool json)
{
	if (json)
		return ctl_print_json(doctor_json(d), JSON_INDENT(2), stdout);
	doctor_print(d, stdout);
	printf("\n%u faults, %u warnings, %u not checked\n", doctor_count(d, DOCTOR_FAULT),
	       doctor_count(d, DOCTOR_WARN), doctor_count(d, DOCTOR_SKIP));
	return 0;
}

static int write_bundle(const struct doctor *d, const struct ctl_options *o, struct err *e)
{
	int r = o->bundle ? doctor_bundle(d, o->bundle, e) : 0;

	if (o->bundle && !r && !o->json)
		printf("%s: written, for a bug report; secrets are removed, and addresses and "
		       "names "
		       "are not: look through it first\n",
		       o->bundle);
	return r;
}

int ctl_doctor(const struct ctl_options *o, int argc, char **argv)
{
	struct err e = { "out of memory" };
	struct doctor d;
	int r, status;

	(void)argv;
	if (argc)
		return cli_usage("doctor takes no argument");
	r = doctor_look(&d, o);
	for (size_t i = 0; !r && i < ARRAY_SIZE(checks); i++)
		checks[i](&d);
	if (!r)
		r = print(&d, o->json);
	if (!r)
		r = write_bundle(&d, o, &e);
	status = r				  ? cli_fail(CLI_FAILED, &e)
		 : doctor_count(&d, DOCTOR_FAULT) ? CLI_FAILED
						  : CLI_OK;
	doctor_forget(&d);
	return status;
}
