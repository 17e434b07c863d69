/* SPDX-License-Identifier: BSD-2-Clause */
/* Says what the preflight has found: one line for each cause, with what to do. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "load/report.h"
#include "net/endpoint.h"

/* Then "and N more". */
#define NAMED_MAX 4
#define LIST_MAX (NAMED_MAX * (ENDPOINT_TEXT_MAX + 2) + 32)

/* Addresses, separated by commas. */
struct list {
	char text[LIST_MAX];
	size_t length;
	unsigned int n;
};

static void list_add(struct list *l, const struct klb_endpoint *endpoint)
{
	char text[ENDPOINT_TEXT_MAX];

	if (l->n++ < NAMED_MAX)
		l->length +=
			(size_t)snprintf(l->text + l->length, sizeof(l->text) - l->length, "%s%s",
					 l->n > 1 ? ", " : "", endpoint_format(endpoint, text));
}

static const char *list_end(struct list *l)
{
	if (l->n > NAMED_MAX)
		snprintf(l->text + l->length, sizeof(l->text) - l->length, " and %u more",
			 l->n - NAMED_MAX);
	return l->text;
}

static const char *advice(enum klb_reason reason)
{
	switch (reason) {
	case KLB_REASON_REFUSED:
		return "is the apiserver up there, and the port right?";
	case KLB_REASON_CERTIFICATE:
		return "is probe.ca the CA of this cluster?";
	case KLB_REASON_UNREACHABLE:
	case KLB_REASON_CONNECT_TIMEOUT:
		return "is the address right, and is there a way from this node, through firewalls "
		       "too?";
	default:
		return "is it an apiserver's address and port?";
	}
}

/* A line for all from number `from` on that are refused for its cause, unless one before was. */
static void warn_refused(const struct preflight *p, unsigned int from)
{
	const struct preflight_answer *first = &p->backends[from];
	struct list list = { .n = 0 };

	if (first->accepted || !first->detail[0])
		return;
	for (unsigned int i = 0; i < p->n_backends; i++) {
		if (p->backends[i].accepted || strcmp(p->backends[i].detail, first->detail) != 0)
			continue;
		if (i < from)
			return;
		list_add(&list, &p->backends[i].endpoint);
	}
	log_line("warning: %s: %s; %s", list_end(&list), first->detail, advice(first->reason));
}

static void warn_uncovered(const struct preflight *p, unsigned int frontend)
{
	char address[ENDPOINT_TEXT_MAX];
	struct list list = { .n = 0 };

	for (unsigned int i = 0; i < p->n_backends; i++)
		if (p->backends[i].uncovered & 1U << frontend)
			list_add(&list, &p->backends[i].endpoint);
	if (!list.n)
		return;
	endpoint_format_address(&p->frontends[frontend].endpoint, address);
	log_line("warning: the certificate of %s does not name %s: clients that dial it will "
		 "refuse the certificate; add %s to the apiservers' certSANs (docs/migrate.md)",
		 list_end(&list), address, address);
}

void report_preflight(const struct preflight *p)
{
	if (p->ca_error[0])
		log_line("warning: %s: kubelb-agent will not start with it", p->ca_error);
	for (unsigned int i = 0; i < p->n_backends; i++)
		warn_refused(p, i);
	for (unsigned int i = 0; i < p->n_frontends; i++)
		warn_uncovered(p, i);
}

void report_answers(const struct preflight *p)
{
	if (p->n_backends)
		printf("%u of %u backends answer as an apiserver\n", preflight_count_accepted(p),
		       p->n_backends);
}
