/* SPDX-License-Identifier: BSD-2-Clause */
/* Judges a node in one line, as a monitoring plugin. */
#include "ctl/brief.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include "base/array.h"
#include "base/cli.h"

/* Above the exit statuses of cli.h. */
#define RETURN_BASE 64
/* So many backends are named; the others are counted. */
#define NAMED_MAX 3
/* As `status`: a kubelb-load that runs undisturbed has ended by then. */
#define LOCK_PATIENCE_S 3

static const char *const names[] = { [BRIEF_OK] = "OK",
				     [BRIEF_WARNING] = "WARNING",
				     [BRIEF_CRITICAL] = "CRITICAL",
				     [BRIEF_UNKNOWN] = "UNKNOWN" };

/* What was found, the worst first. UNKNOWN counts less than WARNING: what is known goes first. */
static const enum brief order[] = { BRIEF_CRITICAL, BRIEF_WARNING, BRIEF_UNKNOWN, BRIEF_OK };

struct findings {
	char texts[ARRAY_SIZE(names)][1024];
	bool found[ARRAY_SIZE(names)];
};

static void find(struct findings *f, enum brief level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void find(struct findings *f, enum brief level, const char *format, ...)
{
	char *text = f->texts[level];
	size_t used = strlen(text), size = sizeof(f->texts[level]);
	va_list args;

	if (used)
		used += (size_t)snprintf(text + used, size - used, "; ");
	if (used < size) {
		va_start(args, format);
		vsnprintf(text + used, size - used, format, args);
		va_end(args);
	}
	f->found[level] = true;
}

static enum brief worst(const struct findings *f)
{
	for (size_t i = 0; i < ARRAY_SIZE(order); i++)
		if (f->found[order[i]])
			return order[i];
	return BRIEF_OK;
}

/* --- the document ------------------------------------------------------------------------ */

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static long long number_of(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static double seconds_of(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

/* --- backends ------------------------------------------------------------------------------ */

/* Of those that are in the list, and have a weight. */
struct tally {
	unsigned int weighted, ready,
		serving; /* serving: not ready alone, but not dead or ejected */
	long long active, connecting, opened, failed;
};

static long long sum(const json_t *numbers)
{
	const char *key;
	const json_t *number;
	long long n = 0;

	json_object_foreach((json_t *)numbers, key, number)
		n += json_integer_value(number);
	return n;
}

static bool is_listed(const json_t *b)
{
	return strcmp(text_of(b, "state"), "removed") != 0;
}

static bool serves(const json_t *b)
{
	return strcmp(text_of(b, "state"), "dead") != 0 &&
	       strcmp(text_of(b, "state"), "ejected") != 0;
}

static bool is_ready(const json_t *b)
{
	return !strcmp(text_of(b, "state"), "ready");
}

static void count(const json_t *backends, struct tally *t)
{
	const json_t *b;
	size_t i;

	json_array_foreach(backends, i, b) {
		t->active += number_of(b, "active");
		t->connecting += number_of(b, "connecting");
		t->opened += number_of(b, "opened");
		t->failed += sum(json_object_get(b, "failed"));
		if (!is_listed(b) || !number_of(b, "weight"))
			continue;
		t->weighted++;
		t->ready += is_ready(b);
		t->serving += serves(b);
	}
}

static void name_the_others(const json_t *backends, enum brief level, struct findings *f)
{
	unsigned int n = 0;
	const json_t *b;
	size_t i;

	json_array_foreach(backends, i, b) {
		if (!is_listed(b) || !number_of(b, "weight") || is_ready(b))
			continue;
		if (n++ < NAMED_MAX)
			find(f, level, "%s %s (%s)", text_of(b, "address"), text_of(b, "state"),
			     text_of(b, "why"));
	}
	if (n > NAMED_MAX)
		find(f, level, "%u more", n - NAMED_MAX);
}

static void judge_backends(const json_t *backends, const struct tally *t, struct findings *f)
{
	enum brief level = t->serving ? BRIEF_WARNING : BRIEF_CRITICAL;

	if (!t->weighted)
		find(f, BRIEF_CRITICAL, "no backend has a weight");
	else if (t->ready < t->weighted)
		name_the_others(backends, level, f);
}

/* --- the rest ------------------------------------------------------------------------------ */

static void judge_listeners(const json_t *listeners, struct findings *f)
{
	const json_t *l;
	size_t i;

	json_array_foreach(listeners, i, l)
		if (!json_is_true(json_object_get(l, "listens")))
			find(f, BRIEF_CRITICAL, "frontend %s is not served: %s",
			     text_of(l, "frontend"), text_of(l, "error"));
}

/* weighted: how many backends a test connect could end at. */
static void judge_data_path(const json_t *d, unsigned int weighted, struct findings *f)
{
	const json_t *effective = json_object_get(d, "effective");

	if (json_is_null(effective) && weighted)
		find(f, BRIEF_UNKNOWN, "whether connects are balanced cannot be seen from here");
	else if (strcmp(text_of(d, "dataPath"), "relay") != 0 && json_is_false(effective))
		find(f, BRIEF_CRITICAL, "connects are not balanced: see kubelbctl status");
	judge_listeners(json_object_get(d, "listeners"), f);
}

static void judge_agent(const json_t *d, struct findings *f)
{
	const json_t *agent = json_object_get(d, "agent");
	const char *discovery = text_of(json_object_get(d, "discovery"), "state");

	if (!json_is_true(json_object_get(agent, "alive"))) {
		if (json_is_null(json_object_get(agent, "heartbeatSecondsAgo")))
			find(f, BRIEF_WARNING, "no agent: nobody checks the backends");
		else
			find(f, BRIEF_WARNING, "the agent is silent for %.0f s",
			     seconds_of(agent, "heartbeatSecondsAgo"));
	}
	if (!strcmp(discovery, "failing"))
		find(f, BRIEF_WARNING, "discovery fails");
	if (text_of(d, "httpTaken")[0])
		find(f, BRIEF_WARNING, "http is taken");
}

static void judge_configuration(const json_t *d, struct findings *f)
{
	const json_t *c = json_object_get(d, "configuration"), *lock = json_object_get(d, "lock");
	bool alive = json_is_true(json_object_get(json_object_get(d, "agent"), "alive"));

	/* Without agent and file, the configuration was the command line's. */
	if (text_of(c, "error")[0] && (alive || text_of(c, "writtenAt")[0]))
		find(f, BRIEF_WARNING, "configuration refused: %s", text_of(c, "error"));
	if (json_is_true(json_object_get(c, "newer")))
		find(f, BRIEF_WARNING, "configuration changed since it was applied");
	if (seconds_of(lock, "processSeconds") > LOCK_PATIENCE_S)
		find(f, BRIEF_WARNING, "%s (PID %lld) holds the lock", text_of(lock, "name"),
		     number_of(lock, "pid"));
}

/* --- the line ------------------------------------------------------------------------------- */

/* A '|' begins the numbers, and there is one line. */
static void print_finding(const char *text, FILE *to)
{
	for (; *text; text++)
		fputc(*text == '|' || *text == '\n' ? '/' : *text, to);
}

/* 'label'=value[unit];[warn];[crit];[min];[max] */
static void print_numbers(const json_t *d, FILE *to)
{
	const json_t *age = json_object_get(json_object_get(d, "agent"), "heartbeatSecondsAgo");
	struct tally counted = { 0 }, *t = &counted;

	count(json_object_get(d, "backends"), t);
	fprintf(to, " | ready=%u;%u:;1:;0;%u active=%lld;;;0 connecting=%lld;;;0 ", t->ready,
		t->weighted, t->weighted, t->active, t->connecting);
	fprintf(to, "opened=%lldc failed=%lldc", t->opened, t->failed);
	if (json_is_number(age))
		fprintf(to, " heartbeat_age=%.3fs", json_number_value(age));
}

static bool is_document(const json_t *d)
{
	return json_is_array(json_object_get(d, "backends")) &&
	       json_is_object(json_object_get(d, "agent"));
}

enum brief brief_print_text(const json_t *document, FILE *to)
{
	const json_t *backends = json_object_get(document, "backends");
	struct findings f = { 0 };
	struct tally t = { 0 };

	if (!is_document(document)) {
		fputs("KUBELB UNKNOWN: the agent's document has no backends", to);
		return BRIEF_UNKNOWN;
	}
	count(backends, &t);
	judge_data_path(document, t.weighted, &f);
	judge_backends(backends, &t, &f);
	judge_agent(document, &f);
	judge_configuration(document, &f);
	fprintf(to, "KUBELB %s: %u of %u backends ready%s", names[worst(&f)], t.ready, t.weighted,
		strcmp(text_of(document, "dataPath"), "relay") ? "" : ", relayed by the agent");
	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		if (f.found[order[i]])
			fputs("; ", to);
		print_finding(f.texts[order[i]], to);
	}
	return worst(&f);
}

enum brief brief_print(const json_t *document, FILE *to)
{
	enum brief b = brief_print_text(document, to);

	if (is_document(document))
		print_numbers(document, to);
	fputc('\n', to);
	return b;
}

enum brief brief_print_failure(int r, const struct err *e, FILE *to)
{
	enum brief b = r == -ENOENT ? BRIEF_CRITICAL : BRIEF_UNKNOWN;

	fprintf(to, "KUBELB %s: ", names[b]);
	print_finding(e->text, to);
	fputc('\n', to);
	return b;
}

int brief_return(enum brief b)
{
	return RETURN_BASE + (int)b;
}

int brief_exit(int status, int argc, char **argv)
{
	bool brief = false;

	if (status >= RETURN_BASE)
		return status - RETURN_BASE;
	for (int i = 1; i < argc; i++)
		brief |= !strcmp(argv[i], "--brief");
	return brief && status != CLI_OK ? BRIEF_UNKNOWN : status;
}
