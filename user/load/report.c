/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints what kubelb-load has done, or would do, and what does not work as expected. */
#include "load/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/array.h"
#include "base/cli.h"
#include "base/log.h"
#include "host/node.h"
#include "host/service_unit.h"
#include "net/endpoint.h"

static void print_backend_change(const struct plan_backend *b, const struct plan_backend *old)
{
	char text[ENDPOINT_TEXT_MAX];

	endpoint_format(&b->value.endpoint, text);
	if (!old)
		printf("  + backend %s weight %u\n", text, b->value.weight);
	else if (old->value.weight != b->value.weight)
		printf("  ~ backend %s weight %u -> %u\n", text, old->value.weight,
		       b->value.weight);
	else
		printf("    backend %s weight %u\n", text, b->value.weight);
}

static void print_frontend_change(const struct plan_frontend *f, const struct plan_frontend *old)
{
	char text[ENDPOINT_TEXT_MAX];
	char mark = !old ? '+' : old->policy == f->policy && old->scope == f->scope ? ' ' : '~';

	printf("  %c frontend %s policy %s scope %s\n", mark, endpoint_format(&f->endpoint, text),
	       config_policy_name(f->policy), config_scope_name(f->scope));
}

static void print_backend_changes(const struct plan *before, const struct plan *after)
{
	char text[ENDPOINT_TEXT_MAX];

	for (unsigned int i = 0; i < after->n_backends; i++) {
		const struct plan_backend *b = &after->backends[i];

		if (!b->removed)
			print_backend_change(b, plan_find_used(before, &b->value.endpoint));
	}
	for (unsigned int i = 0; i < before->n_backends; i++) {
		const struct plan_backend *b = &before->backends[i];

		if (!b->removed && !plan_find_used(after, &b->value.endpoint))
			printf("  - backend %s\n", endpoint_format(&b->value.endpoint, text));
	}
}

static void print_changes(const struct attach_report *rep)
{
	char text[ENDPOINT_TEXT_MAX];

	for (unsigned int i = 0; i < rep->after.n_frontends; i++)
		print_frontend_change(
			&rep->after.frontends[i],
			plan_find_frontend(&rep->before, &rep->after.frontends[i].endpoint));
	for (unsigned int i = 0; i < rep->before.n_frontends; i++)
		if (!plan_find_frontend(&rep->after, &rep->before.frontends[i].endpoint))
			printf("  - frontend %s\n",
			       endpoint_format(&rep->before.frontends[i].endpoint, text));
	print_backend_changes(&rep->before, &rep->after);
}

/*
 * A socket of IPv4 reaches no backend of IPv6: its connects go through untouched, and nothing
 * listens there. One of IPv6 reaches both.
 */
static void warn_families(const struct plan *p)
{
	char text[ENDPOINT_TEXT_MAX];
	bool any = false, ipv4 = false;

	for (unsigned int i = 0; i < p->n_backends; i++) {
		const struct plan_backend *b = &p->backends[i];

		if (b->removed || !b->value.weight)
			continue;
		any = true;
		ipv4 = ipv4 || endpoint_is_ipv4(&b->value.endpoint);
	}
	for (unsigned int i = 0; any && !ipv4 && i < p->n_frontends; i++)
		if (endpoint_is_ipv4(&p->frontends[i].endpoint))
			log_line(
				"warning: frontend %s is IPv4, and all backends are IPv6: connects "
				"go through untouched; dial an IPv6 frontend such as [::1]:6443, "
				"or "
				"add backends by IPv4",
				endpoint_format(&p->frontends[i].endpoint, text));
}

/* Warns about what does not work as the user may expect. */
static void print_warnings(const struct attach_report *rep, const struct config *cfg,
			   bool from_args)
{
	const struct {
		const char *key, *file;
	} files[] = { { "probe.ca", cfg->probe.ca },
		      { "probe.clientCert", cfg->probe.client_cert },
		      { "probe.clientKey", cfg->probe.client_key } };

	if (rep->moved[0])
		log_line("warning: %s", rep->moved);
	if (rep->first_in_container)
		log_line(
			"warning: this container has a network of its own: only connects made in "
			"it are balanced, not the machine's; a pod needs hostNetwork: true (a node "
			"that is a container itself does not)");
	if (rep->cache_error[0])
		log_line("warning: the cache of discovery is not used: %s", rep->cache_error);
	for (unsigned int i = 0; i < rep->n_features; i++)
		if (!rep->features[i].present && !rep->features[i].quiet)
			log_line("warning: without %s, which the kernel refuses (%s): %s",
				 rep->features[i].name, rep->features[i].detail,
				 rep->features[i].loss);
	if (!plan_count_used(&rep->after))
		log_line("warning: no backends: connects go through untouched");
	warn_families(&rep->after);
	if (rep->local_missing)
		log_line(
			"warning: local: only, but no backend has an address of this node: all of "
			"them are used, as with local: ignore; on a control-plane node add its own "
			"address to backends");
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (files[i].file && access(files[i].file, R_OK))
			log_line("warning: %s: %s: %s: kubelb-agent will not start with it",
				 files[i].key, files[i].file, strerror(errno));
	if (rep->agent_alive && from_args)
		log_line("warning: a kubelb-agent runs and will apply its own file again in a "
			 "moment; change that file instead");
}

void report_print(const struct attach_report *rep, const struct config *cfg, const char *pin_dir,
		  bool from_args, bool verbose)
{
	unsigned int n = plan_count_used(&rep->after);

	printf("%s %u frontend%s, %u backend%s on cgroup %s, pins in %s\n",
	       rep->dry_run ? (rep->upgrade ? "would update:" : "would attach:")
			    : (rep->upgrade ? "updated:" : "attached:"),
	       rep->after.n_frontends, rep->after.n_frontends == 1 ? "" : "s", n, n == 1 ? "" : "s",
	       rep->cgroup, pin_dir);
	if (rep->from_cache)
		printf("backends: those that discovery has left in %s%s\n", cfg->discovery_cache,
		       rep->seeds ? ", and the configuration's own" : "");
	print_warnings(rep, cfg, from_args);
	report_preflight(&rep->preflight);
	if (rep->dry_run)
		report_answers(&rep->preflight);
	if (rep->dry_run || verbose)
		print_changes(rep);
}

void report_relay(const struct config *cfg, const char *pin_dir)
{
	printf("dataPath: relay: nothing to attach; kubelb-agent listens on %u frontend%s and "
	       "relays\n",
	       cfg->n_frontends, cfg->n_frontends == 1 ? "" : "s");
	if (datapath_is_pinned(pin_dir))
		log_line("warning: what is attached in %s stays, and sends connects straight; once "
			 "the agent listens, kubelb-load --detach removes it",
			 pin_dir);
}

void report_refused(const struct err *e)
{
	log_line(
		"warning: nothing is attached, so kubelb-agent has to run: it relays every connect "
		"(dataPath: auto), unless it can attach: %s",
		e->text);
}

int report_config(const struct config *cfg)
{
	struct err e = { "" };
	char *text = NULL;

	if (config_print(cfg, node_has_ipv6(), &text, &e))
		return cli_fail(CLI_FAILED, &e);
	fputs(text, stdout);
	free(text);
	return CLI_OK;
}

/* The package's units read the file. */
#define ATTACH_UNITS "systemctl enable --now kubelb-load kubelb-agent && kubelbctl status"
#define ATTACH_ONCE "kubelb-load && kubelbctl status"

void report_next(bool attached)
{
	printf("next: %s\n", attached			   ? "kubelbctl status"
			     : service_unit_systemd_runs() ? ATTACH_UNITS
							   : ATTACH_ONCE);
}

void report_imported(void)
{
	log_line("next, once that is in " CONFIG_PATH_DEFAULT
		 " (kubelb-load --dry-run looks at it first): %s",
		 service_unit_systemd_runs() ? ATTACH_UNITS : ATTACH_ONCE);
}
