/* SPDX-License-Identifier: BSD-2-Clause */
/* Works out of all that a reader has found: weights on one scale, pairs, and what cannot work. */
#include <stdlib.h>

#include "import/internal.h"
#include "net/endpoint.h"

/* --- weights ------------------------------------------------------------------------------- */

static unsigned int gcd(unsigned int a, unsigned int b)
{
	while (b) {
		unsigned int rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

struct import_scale import_scale_of(const struct import *m)
{
	struct import_scale s = { .equal = true };
	const struct import_backend *first = NULL;

	for (unsigned int i = 0; i < m->n_backends; i++) {
		const struct import_backend *b = &m->backends[i];

		if (b->off || b->backup)
			continue;
		first = first ? first : b;
		s.equal = s.equal && b->weight == first->weight && b->weight;
		s.divisor = gcd(b->weight, s.divisor);
		s.largest = b->weight > s.largest ? b->weight : s.largest;
	}
	if (s.divisor)
		s.largest /= s.divisor;
	return s;
}

unsigned int import_weight_of(const struct import_backend *b, const struct import_scale *s)
{
	unsigned long long share = s->divisor ? b->weight / s->divisor : 0, scaled;

	if (b->off)
		return 0;
	if (b->backup)
		return 1;
	if (s->equal)
		return KLB_WEIGHT_DEFAULT;
	if (s->largest * (unsigned long long)KLB_WEIGHT_DEFAULT <= KLB_WEIGHT_MAX)
		return (unsigned int)share * KLB_WEIGHT_DEFAULT;
	if (s->largest <= KLB_WEIGHT_MAX)
		return (unsigned int)share * (KLB_WEIGHT_MAX / s->largest);
	scaled = share * KLB_WEIGHT_MAX / s->largest;
	return share && !scaled ? 1 : (unsigned int)scaled;
}

/* Notes how weights and switches are converted. */
static void note_weights(struct import *m)
{
	struct import_scale scale = import_scale_of(m);
	bool any = false;

	for (unsigned int i = 0; i < m->n_backends; i++) {
		if (m->backends[i].backup)
			import_note(m, m->backends[i].line,
				    "backup: the least weight of all, 1, is the nearest to it");
		if (m->backends[i].off)
			import_hint(m, m->backends[i].line,
				    "switched off there: has weight 0 here and takes nothing");
	}
	for (unsigned int i = 0; i < m->n_backends; i++)
		any = any || import_weight_of(&m->backends[i], &scale);
	if (!any)
		import_hint(m, m->backends[0].line,
			    "every weight is 0: KubeLB would leave connects alone");
	if (!scale.equal && scale.largest > KLB_WEIGHT_MAX)
		import_note(m, 0, "weights are rounded: they go up to %d here", KLB_WEIGHT_MAX);
}

/* Certificate and key go together, as config/schema.c demands. */
static void pair_client_files(struct import *m)
{
	struct import_text *alone = m->client_cert.value ? &m->client_cert : &m->client_key;

	if (!m->client_cert.value == !m->client_key.value)
		return;
	import_note(m, alone->line, "%s: given without its other half, certificate or key",
		    alone->origin);
	free(alone->value);
	alone->value = NULL;
}

/* --- families ------------------------------------------------------------------------------ */

/* Whether a socket of IPv4 reaches any apiserver; one of IPv6 reaches those of IPv4, too. */
static bool reaches_any(const struct import *m)
{
	struct import_scale scale = import_scale_of(m);

	for (unsigned int i = 0; i < m->n_backends; i++)
		if (endpoint_is_ipv4(&m->backends[i].endpoint) &&
		    import_weight_of(&m->backends[i], &scale))
			return true;
	return false;
}

static void hint_family(struct import *m, unsigned int line, const char *address)
{
	import_hint(m, line,
		    "%s is IPv4, and all apiservers below are IPv6: a proxy connects the two, "
		    "KubeLB does not, and such a connect is refused without the proxy; let clients "
		    "dial an IPv6 frontend such as [::1]:6443, or add apiservers by IPv4",
		    address);
}

static void note_families(struct import *m)
{
	char text[ENDPOINT_TEXT_MAX];

	if (reaches_any(m))
		return;
	for (unsigned int i = 0; i < m->n_frontends; i++)
		if (endpoint_is_ipv4(&m->frontends[i].endpoint))
			hint_family(m, m->frontends[i].line,
				    endpoint_format(&m->frontends[i].endpoint, text));
	if (!m->n_frontends)
		hint_family(m, 0, "127.0.0.1:6443, a default frontend,");
}

void import_adjust(struct import *m)
{
	note_weights(m);
	pair_client_files(m);
	note_families(m);
}
