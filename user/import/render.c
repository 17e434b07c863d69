/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints what a reader has found as a kubelb.yaml with comments. */
#include "import/import.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/internal.h"
#include "net/endpoint.h"
#include "import/internal.h"

/* The column in which comments behind a key begin. */
#define COMMENT_COLUMN 32
#define LINE_MAX_LENGTH 88

/* Where kubeadm and Kubespray keep the cluster's CA. */
#define CA_DEFAULT "/etc/kubernetes/pki/ca.crt"

static const struct {
	const char *option;
	int (*read)(struct import *m, const char *text, size_t length);
} kinds[] = {
	[IMPORT_NGINX] = { "--from-nginx", import_read_nginx },
	[IMPORT_HAPROXY] = { "--from-haproxy", import_read_haproxy },
	[IMPORT_KUBECONFIG] = { "--from-kubeconfig", import_read_kubeconfig },
};

const char *import_option(enum import_kind kind)
{
	return kinds[kind].option;
}

/* --- lines -------------------------------------------------------------------- */

/* Ends a line of this length, with a comment in its column unless that is empty. */
static void put_comment(FILE *out, int length, const char *comment)
{
	if (*comment)
		fprintf(out, "%*s # %s", length < COMMENT_COLUMN ? COMMENT_COLUMN - length : 0, "",
			comment);
	fputc('\n', out);
}

/* A line, and a comment behind it. */
static void put(FILE *out, const char *comment, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void put(FILE *out, const char *comment, const char *format, ...)
{
	va_list ap;
	int length;

	va_start(ap, format);
	length = vfprintf(out, format, ap);
	va_end(ap);
	put_comment(out, length, comment);
}

/* "line 12: proxy_connect_timeout" */
static const char *came_from(unsigned int line, const char *origin, char *buf, size_t size)
{
	snprintf(buf, size, "line %u%s%s", line, origin ? ": " : "", origin ? origin : "");
	return buf;
}

/* Prints a comment on as many lines as it needs. */
static void put_wrapped(FILE *out, const char *first, const char *rest, const char *text)
{
	size_t room = LINE_MAX_LENGTH - strlen(first);
	const char *prefix = first;

	while (strlen(text) > room) {
		size_t cut = room;

		while (cut && text[cut] != ' ')
			cut--;
		if (!cut)
			cut = strcspn(text, " ");
		fprintf(out, "%s%.*s\n", prefix, (int)cut, text);
		text += cut + strspn(text + cut, " ");
		prefix = rest;
		room = LINE_MAX_LENGTH - strlen(rest);
	}
	if (*text)
		fprintf(out, "%s%s\n", prefix, text);
}

/* --- the head ----------------------------------------------------------------- */

static void note_text(const struct import_note *note, char *buf, size_t size)
{
	unsigned int shown =
		note->n_lines < IMPORT_NOTE_LINES_MAX ? note->n_lines : IMPORT_NOTE_LINES_MAX;
	size_t length = 0;

	for (unsigned int i = 0; i < shown; i++)
		length += (size_t)snprintf(buf + length, size - length, "%s%u",
					   i		       ? ", "
					   : note->n_lines > 1 ? "lines "
							       : "line ",
					   note->lines[i]);
	if (shown < note->n_lines)
		length += (size_t)snprintf(buf + length, size - length, " and %u more",
					   note->n_lines - shown);
	snprintf(buf + length, size - length, "%s%s", shown ? ": " : "", note->text);
}

static void put_notes(FILE *out, const struct import *m, bool hint, const char *title)
{
	char text[sizeof(m->notes[0].text) + 16 * (IMPORT_NOTE_LINES_MAX + 2)];
	bool first = true;

	for (unsigned int i = 0; i < m->n_notes; i++) {
		if (m->notes[i].hint != hint)
			continue;
		if (first)
			fprintf(out, "#\n# %s\n", title);
		first = false;
		note_text(&m->notes[i], text, sizeof(text));
		put_wrapped(out, "#   ", "#     ", text);
	}
	if (hint || !m->own[0])
		return;
	if (first)
		fprintf(out, "#\n# %s\n", title);
	put_wrapped(out, "#   no part of the way to the apiservers: ", "#     ", m->own);
}

static void put_head(FILE *out, const struct import *m)
{
	char source[128];

	fprintf(out, "# kubelb.yaml, made by kubelb-load %s from %s\n", import_option(m->kind),
		import_ascii(m->source, source, sizeof(source)));
	fputs("# Read it, save it, and see what it would do:  kubelb-load --dry-run -c FILE\n"
	      "# A key behind a # shows KubeLB's default. kubelb.yaml(5) has them all.\n",
	      out);
	put_notes(out, m, true, "Look at:");
	put_notes(out, m, false, "Not carried over:");
}

/* --- frontends and backends --------------------------------------------------- */

/* An address as a scalar: brackets without quotes would begin a list. */
static const char *address(const struct klb_endpoint *ep, char *buf)
{
	char text[ENDPOINT_TEXT_MAX];

	endpoint_format(ep, text);
	snprintf(buf, ENDPOINT_TEXT_MAX + 2, text[0] == '[' ? "\"%s\"" : "%s", text);
	return buf;
}

static void put_frontends(FILE *out, const struct import *m)
{
	char text[ENDPOINT_TEXT_MAX + 2], origin[IMPORT_LABEL_MAX];

	fputs("\n# What clients dial.\n", out);
	if (!m->n_frontends) {
		fputs("# frontends:\n#   - 127.0.0.1:6443\n#   - \"[::1]:6443\"\n", out);
		return;
	}
	fputs("frontends:\n", out);
	for (unsigned int i = 0; i < m->n_frontends; i++)
		put(out, came_from(m->frontends[i].line, NULL, origin, sizeof(origin)), "  - %s",
		    address(&m->frontends[i].endpoint, text));
}

static const char *backend_comment(const struct import_backend *b, const struct import_scale *s,
				   char *buf, size_t size)
{
	char weight[32] = "";

	if (!b->off && !b->backup && !s->equal)
		snprintf(weight, sizeof(weight), ", weight %u there", b->weight);
	snprintf(buf, size, "line %u%s%s%s%s", b->line, b->label[0] ? ": " : "", b->label,
		 b->off	     ? ", switched off"
		 : b->backup ? ", a backup there"
			     : "",
		 weight);
	return buf;
}

static void put_backends(FILE *out, const struct import *m)
{
	char text[ENDPOINT_TEXT_MAX + 2], comment[2 * IMPORT_LABEL_MAX];
	struct import_scale scale = import_scale_of(m);

	fputs("\n# The apiservers.\nbackends:\n", out);
	for (unsigned int i = 0; i < m->n_backends; i++) {
		const struct import_backend *b = &m->backends[i];
		unsigned int weight = import_weight_of(b, &scale);

		address(&b->endpoint, text);
		backend_comment(b, &scale, comment, sizeof(comment));
		if (weight == KLB_WEIGHT_DEFAULT) {
			put(out, comment, "  - %s", text);
			continue;
		}
		put(out, comment, "  - address: %s", text);
		put(out, "", "    weight: %u", weight);
	}
}

/* --- single values ------------------------------------------------------------ */

static void put_number(FILE *out, const char *indent, const char *key,
		       const struct import_number *n, bool duration, const char *by_default)
{
	char text[CONFIG_DURATION_TEXT_MAX], comment[2 * IMPORT_LABEL_MAX];

	if (!n->line) {
		fprintf(out, "%s# %s: %s\n", indent, key, by_default);
		return;
	}
	if (duration)
		config_duration_format(n->value, text);
	else
		snprintf(text, sizeof(text), "%u", n->value);
	snprintf(comment, sizeof(comment), "line %u: %s; KubeLB's default: %s", n->line, n->origin,
		 by_default);
	put(out,
	    strcmp(text, by_default) ? comment
				     : came_from(n->line, n->origin, comment, sizeof(comment)),
	    "%s%s: %s", indent, key, text);
}

static void put_text(FILE *out, const char *key, const struct import_text *t)
{
	char origin[IMPORT_LABEL_MAX];
	int length;

	if (!t->value)
		return;
	length = fprintf(out, "  %s: ", key);
	length += config_put_string(out, t->value);
	put_comment(out, length, came_from(t->line, t->origin, origin, sizeof(origin)));
}

static void put_policy(FILE *out, const struct import *m)
{
	char origin[2 * IMPORT_LABEL_MAX];

	fputs("\n# How one of them is chosen: least-conn, random, rendezvous or latency.\n", out);
	if (m->policy_line)
		put(out, came_from(m->policy_line, m->policy_origin, origin, sizeof(origin)),
		    "policy: %s", config_policy_name(m->policy));
	else
		fputs("# policy: least-conn\n", out);
}

static void put_trust(FILE *out, const struct import *m)
{
	if (m->insecure_line) {
		put(out, "anybody can pass for an apiserver", "  insecureSkipVerify: true");
		return;
	}
	if (m->ca.value) {
		put_text(out, "ca", &m->ca);
		return;
	}
	put_wrapped(out, "  # ", "  # ",
		    "What verifies the apiservers' certificates. The file has no name for it: this "
		    "is kubeadm's and Kubespray's; RKE has /etc/kubernetes/ssl/kube-ca.pem.");
	put(out, "", "  ca: %s", CA_DEFAULT);
}

static void put_probe(FILE *out, const struct import *m)
{
	fputs("\n# How kubelb-agent finds out who is ready.\nprobe:\n", out);
	put_trust(out, m);
	put_text(out, "serverName", &m->server_name);
	put_text(out, "clientCert", &m->client_cert);
	put_text(out, "clientKey", &m->client_key);
	if (!m->client_cert.value)
		fputs("  # clientCert and clientKey: both, for clusters without anonymous access\n",
		      out);
	if (m->path.value)
		put_text(out, "path", &m->path);
	else
		fputs("  # path: /readyz\n", out);
	put_number(out, "  ", "interval", &m->interval_ms, true, "5s");
	put_number(out, "  ", "timeout", &m->timeout_ms, true, "3s");
	put_number(out, "  ", "rise", &m->rise, false, "2");
	put_number(out, "  ", "fall", &m->fall, false, "2");
}

/* The first port from IMPORT_HTTP_PORT on that nothing else listens on. */
static void put_http(FILE *out, const struct import *m)
{
	unsigned int n = m->busy == ~0U ? 31 : (unsigned int)__builtin_ctz(~m->busy);

	fputs("\n# Metrics and health of kubelb-agent; \"\" turns it off.\n", out);
	if (n)
		put(out, "a port that the file does not take", "http: 127.0.0.1:%u",
		    IMPORT_HTTP_PORT + n);
	else
		fprintf(out, "# http: 127.0.0.1:%d\n", IMPORT_HTTP_PORT);
}

static void put_all(FILE *out, const struct import *m)
{
	put_head(out, m);
	put_frontends(out, m);
	put_backends(out, m);
	put_policy(out, m);
	fputs("\n# How long one apiserver may leave a connect unanswered.\n", out);
	put_number(out, "", "connectTimeout", &m->connect_timeout_ms, true, "1s");
	fputs("\n# How long a peer may leave data unacknowledged; 0 leaves that to the client.\n",
	      out);
	put_number(out, "", "deadPeerTimeout", &m->dead_peer_timeout_ms, true, "10s");
	fputs("\n# On a control-plane node: its own apiserver first, while it serves.\n"
	      "# local: prefer\n",
	      out);
	put_probe(out, m);
	put_http(out, m);
}

/* --- all together ------------------------------------------------------------- */

/* Checks the text as kubelb-load would. The readers have checked all of it before. */
static int check(const struct import *m, const char *text, size_t length)
{
	struct config *c = NULL;
	struct err why;
	int r = config_parse(text, length, "kubelb.yaml", true, &c, &why);

	config_free(c);
	return r < 0 ? import_fail(m, 0, "makes no valid configuration (%s); write one by hand",
				   why.text)
		     : 0;
}

static int print(const struct import *m, char **ret)
{
	char *text = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);
	int r;

	if (!out)
		return import_fail_memory(m);
	put_all(out, m);
	r = ferror(out) ? -ENOMEM : 0;
	if (fclose(out) || r < 0)
		r = import_fail_memory(m);
	else
		r = check(m, text, length);
	if (r < 0)
		free(text);
	else
		*ret = text;
	return r;
}

static void import_free(struct import *m)
{
	import_words_free(&m->words);
	free(m->path.value);
	free(m->ca.value);
	free(m->server_name.value);
	free(m->client_cert.value);
	free(m->client_key.value);
	free(m);
}

int import_convert(enum import_kind kind, const char *text, size_t length, const char *source,
		   const char *directory, char **ret, struct err *e)
{
	struct import *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return err_no_memory_for(e, source);
	*m = (struct import){ .kind = kind, .source = source, .directory = directory, .e = e };
	r = import_check_text(m, text, length);
	if (r == 0)
		r = kinds[kind].read(m, text, length);
	if (r == 0) {
		import_adjust(m);
		r = print(m, ret);
	}
	import_free(m);
	return r;
}
