/* SPDX-License-Identifier: BSD-2-Clause */
/* What the preflight refuses. Pure. */
#include <errno.h>
#include <stdio.h>

#include "load/preflight.h"
#include "net/endpoint.h"

#define LIST_MAX 160

int preflight_check_addresses(const struct config *cfg, struct err *e)
{
	char text[ENDPOINT_TEXT_MAX], list[LIST_MAX] = "";
	size_t length = 0;
	unsigned int n = 0;

	for (unsigned int i = 0; i < cfg->n_backends; i++) {
		if (!endpoint_is_documentation(&cfg->backends[i].endpoint))
			continue;
		endpoint_format_address(&cfg->backends[i].endpoint, text);
		if (n++ < 3)
			length += (size_t)snprintf(list + length, sizeof(list) - length, "%s%s",
						   length ? ", " : "", text);
	}
	if (!n)
		return 0;
	return err_set(e, EINVAL,
		       "%s: backends: %s%s: documentation uses such addresses in examples, no "
		       "apiserver has one (RFC 5737, 3849, 9637), so nothing is attached; write "
		       "your apiservers' addresses, or add --force if these are yours",
		       cfg->source, list, n > 3 ? " and others" : "");
}

unsigned int preflight_count_accepted(const struct preflight *p)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < p->n_backends; i++)
		n += p->backends[i].accepted;
	return n;
}

/* Whether it is known that no client would be served. */
static bool none_serves(const struct preflight *p)
{
	for (unsigned int i = 0; i < p->n_backends; i++)
		if (p->backends[i].accepted || p->backends[i].unable)
			return false;
	return p->n_backends;
}

/* The first frontend that somebody serves now, or NULL. */
static const struct preflight_answer *find_served(const struct preflight *p)
{
	for (unsigned int i = 0; i < p->n_frontends; i++)
		if (p->frontends[i].serves)
			return &p->frontends[i];
	return NULL;
}

int preflight_judge(const struct preflight *p, enum preflight_mode mode, const char *source,
		    struct err *e)
{
	const struct preflight_answer *served = find_served(p);
	char text[ENDPOINT_TEXT_MAX];

	if (mode == PREFLIGHT_OFF || !p->done || !none_serves(p))
		return 0;
	if (served)
		return err_set(e, EHOSTUNREACH,
			       "%s: no backend answers as an apiserver, and %s is served now, so "
			       "nothing is attached: it would cut this node off; see the reasons "
			       "above, correct backends or probe.ca, or add --force",
			       source, endpoint_format(&served->endpoint, text));
	if (mode == PREFLIGHT_BOOT)
		return 0;
	return err_set(e, EHOSTUNREACH,
		       "%s: no backend answers as an apiserver, so nothing is attached; see the "
		       "reasons above, correct backends or probe.ca, or run it again when an "
		       "apiserver is up; --boot or --force attaches now",
		       source);
}
