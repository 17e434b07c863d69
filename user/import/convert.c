/* SPDX-License-Identifier: BSD-2-Clause */
/* What the readers of import share: notes, addresses, values, and the choice of a proxy. */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ascii.h"
#include "config/internal.h"
#include "net/endpoint.h"
#include "import/internal.h"
#include "base/redact.h"

/* The ranges of kubelb.yaml. config/schema.c decides; tests compare the two. */
static const struct range {
	size_t offset; /* of the field in struct import */
	const char *key;
	unsigned int min, max;
	bool duration;
} ranges[] = {
	{ offsetof(struct import, connect_timeout_ms), "connectTimeout", 10, 60000, true },
	{ offsetof(struct import, dead_peer_timeout_ms), "deadPeerTimeout", 1000, 3600000, true },
	{ offsetof(struct import, interval_ms), "probe.interval", 100, 3600000, true },
	{ offsetof(struct import, timeout_ms), "probe.timeout", 10, 300000, true },
	{ offsetof(struct import, rise), "probe.rise", 1, 100, false },
	{ offsetof(struct import, fall), "probe.fall", 1, 100, false },
};

void import_explain(const struct import *m, unsigned int line, const char *format, ...)
{
	char what[ERR_TEXT_MAX];
	va_list ap;

	va_start(ap, format);
	vsnprintf(what, sizeof(what), format, ap);
	va_end(ap);
	if (line)
		err_set(m->e, EINVAL, "%s:%u: %s", m->source, line, what);
	else
		err_set(m->e, EINVAL, "%s: %s", m->source, what);
}

int import_fail_memory(const struct import *m)
{
	return err_no_memory_for(m->e, m->source);
}

/* --- notes -------------------------------------------------------------------- */

/*
 * Only ASCII is kept: a comment in YAML ends at U+2028, and the rest of the text would become part
 * of the configuration.
 */
char *import_ascii(const char *text, char *buf, size_t size)
{
	size_t length = 0;

	for (; *text && length + 1 < size; text++)
		buf[length++] = ascii_is_print(*text) ? *text : '?';
	buf[length] = '\0';
	if (*text && length > 3)
		memcpy(buf + length - 3, "...", 3);
	return buf;
}

/* A line that is read for both the frontend and the backend counts once. */
static void add_line(struct import_note *note, unsigned int line)
{
	if (note->n_lines && note->n_lines <= IMPORT_NOTE_LINES_MAX &&
	    note->lines[note->n_lines - 1] == line)
		return;
	if (note->n_lines < IMPORT_NOTE_LINES_MAX)
		note->lines[note->n_lines] = line;
	note->n_lines++;
}

static void add_note(struct import *m, bool hint, unsigned int line, const char *format, va_list ap)
{
	static const char full[] = "and more, which is not listed here";
	char raw[sizeof(m->notes[0].text)], text[sizeof(raw)];
	struct import_note *note;

	vsnprintf(raw, sizeof(raw), format, ap);
	import_ascii(raw, text, sizeof(text));
	for (unsigned int i = 0; i < m->n_notes; i++) {
		note = &m->notes[i];
		if (note->hint == hint && strcmp(note->text, text) == 0) {
			if (line)
				add_line(note, line);
			return;
		}
	}
	if (m->n_notes == IMPORT_NOTES_MAX) {
		note = &m->notes[IMPORT_NOTES_MAX - 1];
		note->n_lines = 0;
		memcpy(note->text, full, sizeof(full));
		return;
	}
	note = &m->notes[m->n_notes++];
	note->hint = hint;
	memcpy(note->text, text, sizeof(text));
	if (line)
		add_line(note, line);
}

void import_note(struct import *m, unsigned int line, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	add_note(m, false, line, format, ap);
	va_end(ap);
}

void import_hint(struct import *m, unsigned int line, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	add_note(m, true, line, format, ap);
	va_end(ap);
}

void import_own(struct import *m, const char *name)
{
	char text[IMPORT_LABEL_MAX];
	size_t length = strlen(m->own), more;
	const char *at = m->own;

	import_ascii(name, text, sizeof(text));
	more = strlen(text);
	while (more && (at = strstr(at, text))) {
		if ((at == m->own || at[-1] == ' ') && (!at[more] || at[more] == ','))
			return;
		at += more;
	}
	if (more && length + more + sizeof(", ") <= sizeof(m->own))
		snprintf(m->own + length, sizeof(m->own) - length, "%s%s", length ? ", " : "",
			 text);
}

/* --- addresses ---------------------------------------------------------------- */

void import_busy(struct import *m, const struct klb_endpoint *ep, unsigned int last_port)
{
	if (!endpoint_is_loopback(ep) && !endpoint_is_unspecified(ep))
		return;
	for (unsigned int n = 0; n < 32; n++)
		if (IMPORT_HTTP_PORT + n >= ep->port && IMPORT_HTTP_PORT + n <= last_port)
			m->busy |= 1U << n;
}

/* The loopback address of the family. */
static void make_loopback(struct klb_endpoint *ep)
{
	if (endpoint_is_ipv4(ep))
		ep->addr[12] = 127;
	ep->addr[15] = 1;
}

int import_add_frontend(struct import *m, unsigned int line, struct klb_endpoint ep)
{
	char text[ENDPOINT_TEXT_MAX];

	import_busy(m, &ep, ep.port);
	if (endpoint_is_multicast(&ep))
		return import_fail(m, line,
				   "%s is for multicast or broadcast; write a host's own address",
				   endpoint_format(&ep, text));
	if (endpoint_is_unspecified(&ep)) {
		make_loopback(&ep);
		import_note(m, line,
			    "listens on every address: %s is what stands below; add to frontends "
			    "what else is dialled on this node (other hosts' connects are not "
			    "balanced)",
			    endpoint_format(&ep, text));
	} else if (!endpoint_is_loopback(&ep)) {
		import_hint(m, line,
			    "%s: connects that are made on this node are balanced, those of "
			    "other hosts are not",
			    endpoint_format(&ep, text));
	}
	for (unsigned int i = 0; i < m->n_frontends; i++)
		if (endpoint_equal(&m->frontends[i].endpoint, &ep))
			return 0;
	if (m->n_frontends == KLB_MAX_FRONTENDS)
		return import_fail(m, line, "more than %u addresses to listen on; remove some",
				   KLB_MAX_FRONTENDS);
	m->frontends[m->n_frontends++] = (struct import_frontend){ .endpoint = ep, .line = line };
	return 0;
}

static int check_backend(const struct import *m, const struct import_backend *b)
{
	char text[ENDPOINT_TEXT_MAX];

	endpoint_format(&b->endpoint, text);
	if (endpoint_is_unspecified(&b->endpoint) || endpoint_is_multicast(&b->endpoint))
		return import_fail(m, b->line,
				   "%s is no address to connect to; write the apiserver's own",
				   text);
	if (endpoint_is_link_local_v6(&b->endpoint))
		return import_fail(m, b->line,
				   "%s is link-local, it needs a zone, which backends have not; "
				   "write a routable address",
				   text);
	for (unsigned int i = 0; i < m->n_frontends; i++)
		if (endpoint_equal(&m->frontends[i].endpoint, &b->endpoint))
			return import_fail(m, b->line,
					   "%s is also what clients dial (line %u), and would "
					   "connect to itself; write the apiserver's own address",
					   text, m->frontends[i].line);
	return 0;
}

int import_add_backend(struct import *m, const struct import_backend *backend)
{
	char text[ENDPOINT_TEXT_MAX];
	int r = check_backend(m, backend);

	if (r < 0)
		return r;
	for (unsigned int i = 0; i < m->n_backends; i++)
		if (endpoint_equal(&m->backends[i].endpoint, &backend->endpoint)) {
			import_note(m, backend->line, "%s is there already (line %u)",
				    endpoint_format(&backend->endpoint, text), m->backends[i].line);
			return 0;
		}
	if (m->n_backends == KLB_MAX_BACKENDS)
		return import_fail(m, backend->line, "more than %u apiservers; remove some",
				   KLB_MAX_BACKENDS);
	m->backends[m->n_backends++] = *backend;
	return 0;
}

/* --- values ------------------------------------------------------------------- */

static const struct range *range_of(const struct import *m, const struct import_number *field)
{
	size_t offset = (size_t)((const char *)field - (const char *)m), i = 0;

	while (ranges[i].offset != offset)
		i++;
	return &ranges[i];
}

static const char *number_text(const struct range *r, unsigned int value, char *buf)
{
	if (r->duration)
		return config_duration_format(value, buf);
	snprintf(buf, CONFIG_DURATION_TEXT_MAX, "%u", value);
	return buf;
}

void import_set_number(struct import *m, struct import_number *field,
		       const struct import_number *value)
{
	const struct range *r = range_of(m, field);
	char there[CONFIG_DURATION_TEXT_MAX], here[CONFIG_DURATION_TEXT_MAX];
	struct import_number new = *value;

	if (!value->line)
		return;
	new.value = new.value < r->min ? r->min : new.value > r->max ? r->max : new.value;
	if (field->line && field->value != new.value)
		import_note(m, value->line, "%s %s: there is one %s for all backends, from line %u",
			    value->origin, number_text(r, value->value, there), r->key,
			    field->line);
	if (field->line)
		return;
	if (new.value != value->value)
		import_note(m, value->line, "%s %s: %s has a range that ends at %s", value->origin,
			    number_text(r, value->value, there), r->key,
			    number_text(r, new.value, here));
	*field = new;
}

int import_set_text(struct import *m, struct import_text *field, unsigned int line,
		    const char *origin, const char *value)
{
	if (field->value) {
		if (strcmp(field->value, value) != 0)
			import_note(m, line, "%s %s: there is one for all backends, from line %u",
				    origin, value, field->line);
		return 0;
	}
	field->value = strdup(value);
	if (!field->value)
		return import_fail_memory(m);
	field->line = line;
	field->origin = origin;
	return 0;
}

/* What a path in kubelb.yaml may contain: see config_read_file. */
static bool is_path(const char *text)
{
	if (text[0] != '/' || strlen(text) >= PATH_MAX)
		return false;
	return ascii_all_print(text);
}

/* Where pods find their service account. */
static bool is_in_pod(const char *path)
{
	static const char run[] = "/run/secrets/";

	return strncmp(path, run, strlen(run)) == 0 ||
	       (strncmp(path, "/var", 4) == 0 && strncmp(path + 4, run, strlen(run)) == 0);
}

int import_set_file(struct import *m, struct import_text *field, unsigned int line,
		    const char *origin, const char *value)
{
	/* The value is not repeated: other users may read the output. */
	if (secret_is_likely(value)) {
		import_note(m, line, "%s: the thing itself, where a file's name should be", origin);
		return 0;
	}
	if (is_in_pod(value)) {
		import_hint(m, line,
			    "%s %s: this path exists in a pod alone, so it is not carried over; "
			    "write the file that this node has",
			    origin, value);
		return 0;
	}
	if (is_path(value))
		return import_set_text(m, field, line, origin, value);
	import_note(m, line, "%s %s: not an absolute path in plain characters", origin, value);
	return 0;
}

int import_set_name(struct import *m, unsigned int line, const char *origin, const char *value)
{
	if (config_is_server_name(value))
		return import_set_text(m, &m->server_name, line, origin, value);
	import_note(m, line, "%s %s: neither a DNS name nor an address", origin, value);
	return 0;
}

void import_set_policy(struct import *m, enum klb_policy policy, unsigned int line,
		       const char *origin)
{
	m->policy = policy;
	m->policy_line = line;
	m->policy_origin = origin;
}

bool import_uint(const char *text, unsigned int *ret)
{
	unsigned int value = 0;

	if (!*text)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		if (__builtin_mul_overflow(value, 10U, &value) ||
		    __builtin_add_overflow(value, (unsigned int)(*text - '0'), &value))
			value = UINT_MAX / 10; /* stays too large for everything */
	}
	*ret = value;
	return true;
}

/* --- the choice --------------------------------------------------------------- */

/* On how many sides a candidate has port 6443. */
static int sides_of(const struct import_candidate *c)
{
	return (int)c->listens_6443 + (int)c->leads_to_6443;
}

/* Returns how many candidates have 6443 on that many sides or more; *ret is the first of them. */
static size_t count_sides(const struct import_candidate *list, size_t n, int sides, size_t *ret)
{
	size_t found = 0;

	for (size_t i = 0; i < n; i++)
		if (sides_of(&list[i]) >= sides && !found++)
			*ret = i;
	return found;
}

static int fail_choice(struct import *m, const struct import_candidate *list, size_t n,
		       const char *what)
{
	char choices[512] = "";
	size_t length = 0;

	for (size_t i = 0; i < n && length < sizeof(choices); i++)
		length += (size_t)snprintf(choices + length, sizeof(choices) - length,
					   "%sline %u (%s)", i ? ", " : "", list[i].line,
					   list[i].label);
	return import_fail(m, list[0].line,
			   "%zu %ss, and none of them alone has port 6443: %s; leave one in a copy "
			   "of the file and name that",
			   n, what, choices);
}

int import_choose(struct import *m, const struct import_candidate *list, size_t n, const char *what,
		  size_t *ret)
{
	size_t found = n, at = 0;

	if (n > 1)
		found = count_sides(list, n, 2, &at);
	if (n > 1 && !found)
		found = count_sides(list, n, 1, &at);
	if (found != 1)
		return fail_choice(m, list, n, what);
	if (!sides_of(&list[at]))
		import_hint(m, list[at].line,
			    "no port 6443 on either side: see that these are the apiservers");
	for (size_t i = 0; i < n; i++) {
		if (i != at)
			import_own(m, list[i].label);
		if (i != at && list[i].leads_to_6443)
			import_hint(m, list[i].line,
				    "%s also leads to port 6443, and is not carried over",
				    list[i].label);
	}
	*ret = at;
	return 0;
}
