/* SPDX-License-Identifier: BSD-2-Clause */
/* What the doctor has found, and how it is shown. */
#include "ctl/doctor.h"

#include <stdarg.h>

#include "base/array.h"

static const struct {
	const char *key, *text;
} levels[DOCTOR_LEVELS] = {
	[DOCTOR_OK] = { "ok", "ok" },
	[DOCTOR_SKIP] = { "skip", "skip" },
	[DOCTOR_WARN] = { "warn", "warn" },
	[DOCTOR_FAULT] = { "fault", "FAULT" },
};

void doctor_say(struct doctor *d, enum doctor_level level, const char *check, const char *format,
		...)
{
	struct doctor_finding *f;
	va_list args;

	if (d->n_findings == DOCTOR_FINDINGS_MAX)
		return;
	f = &d->findings[d->n_findings++];
	*f = (struct doctor_finding){ .level = level, .check = check };
	va_start(args, format);
	vsnprintf(f->text, sizeof(f->text), format, args);
	va_end(args);
	/* Names of processes and words of servers are others'. */
	err_make_printable(f->text);
}

void doctor_next(struct doctor *d, const char *format, ...)
{
	struct doctor_finding *f = &d->findings[d->n_findings - 1];
	va_list args;

	va_start(args, format);
	vsnprintf(f->next, sizeof(f->next), format, args);
	va_end(args);
	err_make_printable(f->next);
}

unsigned int doctor_count(const struct doctor *d, enum doctor_level level)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < d->n_findings; i++)
		n += d->findings[i].level == level;
	return n;
}

void doctor_print(const struct doctor *d, FILE *to)
{
	for (unsigned int i = 0; i < d->n_findings; i++) {
		const struct doctor_finding *f = &d->findings[i];

		fprintf(to, "%-5s  %-11s  %s%s%s\n", levels[f->level].text, f->check, f->text,
			f->next[0] ? "; next: " : "", f->next);
	}
}

static json_t *json_finding(const struct doctor_finding *f)
{
	return json_pack("{s:s, s:s, s:s, s:s?}", "check", f->check, "result", levels[f->level].key,
			 "text", f->text, "next", f->next[0] ? f->next : NULL);
}

json_t *doctor_json(const struct doctor *d)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < d->n_findings; i++)
		json_array_append_new(list, json_finding(&d->findings[i]));
	return json_pack("{s:i, s:i, s:o}", "faults", (int)doctor_count(d, DOCTOR_FAULT),
			 "warnings", (int)doctor_count(d, DOCTOR_WARN), "checks", list);
}
