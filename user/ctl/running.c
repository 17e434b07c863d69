/* SPDX-License-Identifier: BSD-2-Clause */
/* Which configuration is in force, and the versions of what runs. */
#include "ctl/running.h"

#include <string.h>

#include "balance/backend_status.h"
#include "base/array.h"
#include "base/clock.h"

static __u64 wall_ns(const struct timespec *t)
{
	return (__u64)t->tv_sec * NS_PER_S + (__u64)t->tv_nsec;
}

void running_set_file(struct running *r, const char *file, const struct file_identity *seen,
		      const char *error)
{
	snprintf(r->file, sizeof(r->file), "%s", file);
	snprintf(r->error, sizeof(r->error), "%s", error);
	r->written[0] = '\0';
	if (seen && seen->inode)
		format_wall(wall_ns(&seen->modified), r->written);
}

/* When the configuration in force was applied, by the wall clock; 0: never. */
static __u64 applied_wall_ns(const struct datapath_state *s, __u64 now_ns)
{
	__u64 applied_ns = s->control.config_applied_ns;

	return applied_ns ? clock_wall_ns() - (now_ns - applied_ns) : 0;
}

void running_look(struct running *r, const char *file, const char *error,
		  const struct datapath_state *s, __u64 now_ns)
{
	__u64 applied_ns = applied_wall_ns(s, now_ns);
	struct file_identity seen;

	file_identify(file, &seen);
	running_set_file(r, file, &seen, error);
	r->missing = !seen.inode;
	r->newer = !error[0] && applied_ns && wall_ns(&seen.modified) > applied_ns &&
		   !backend_status_agent_alive(&s->control, now_ns);
}

/* --- text ---------------------------------------------------------------------------- */

static void print_configuration(const struct running *r, const struct datapath_state *s,
				__u64 now_ns, FILE *to)
{
	char age[FORMAT_TIME_MAX], applied[FORMAT_TIME_MAX + 16] = "";

	if (s->control.config_applied_ns)
		snprintf(applied, sizeof(applied), ", applied %s ago",
			 format_age(s->control.config_applied_ns, now_ns, age));
	if (r->missing)
		fprintf(to, "config    %s is not there%s\n", r->file, applied);
	else if (r->error[0])
		fprintf(to, "config    REFUSED, the one before stays: %s\n", r->error);
	else if (r->newer)
		fprintf(to, "config    CHANGED since it was applied, run kubelb-load: %s of %s\n",
			r->file, r->written);
	else
		fprintf(to, "config    %s of %s%s\n", r->file, r->written, applied);
}

/* One version where all are of that. */
static void print_versions(const struct running *r, FILE *to)
{
	const struct {
		const char *name, *version;
	} all[] = { { "kubelbctl", r->ctl }, { "agent", r->agent }, { "programs", r->programs } };
	const char *first = r->ctl[0] ? r->ctl : r->agent;
	bool same = true, begun = false;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		same &= !all[i].version[0] || !strcmp(all[i].version, first);
	fprintf(to, "version   %s", same ? first : "");
	for (size_t i = 0; !same && i < ARRAY_SIZE(all); i++) {
		if (all[i].version[0])
			fprintf(to, "%s%s %s", begun ? ", " : "", all[i].name, all[i].version);
		begun |= all[i].version[0];
	}
	/* Of a version that did not say, or without the privilege to see it. */
	fputs(r->ctl[0] && !r->programs[0] ? ", programs not known\n" : "\n", to);
}

void running_print(const struct running *r, const struct datapath_state *s, __u64 now_ns, FILE *to)
{
	if (r->file[0])
		print_configuration(r, s, now_ns, to);
	print_versions(r, to);
}

/* --- JSON ---------------------------------------------------------------------------- */

json_t *running_configuration_json(const struct running *r, const struct datapath_state *s,
				   __u64 now_ns)
{
	__u64 applied_ns = s->control.config_applied_ns;

	return json_pack("{s:s?, s:s?, s:o, s:b, s:s?}", "file", r->file[0] ? r->file : NULL,
			 "writtenAt", r->written[0] ? r->written : NULL, "appliedSecondsAgo",
			 applied_ns ? json_real(clock_seconds(applied_ns, now_ns)) : json_null(),
			 "newer", r->newer, "error", r->error[0] ? r->error : NULL);
}

json_t *running_versions_json(const struct running *r)
{
	return json_pack("{s:s?, s:s?, s:s?}", "kubelbctl", r->ctl[0] ? r->ctl : NULL, "agent",
			 r->agent[0] ? r->agent : NULL, "programs",
			 r->programs[0] ? r->programs : NULL);
}

static void copy(const json_t *object, const char *key, char *ret, size_t size)
{
	const char *text = json_string_value(json_object_get(object, key));

	snprintf(ret, size, "%s", text ? text : "");
	err_make_printable(ret);
}

void running_from_json(struct running *r, const json_t *document)
{
	const json_t *configuration = json_object_get(document, "configuration");
	char file[sizeof(r->file)], error[sizeof(r->error)];

	copy(json_object_get(document, "versions"), "agent", r->agent, sizeof(r->agent));
	copy(configuration, "file", file, sizeof(file));
	copy(configuration, "error", error, sizeof(error));
	if (!file[0])
		return;
	/* What was read here says more than what the agent tells everybody. */
	if (error[0] && r->error[0] && !r->missing && !strcmp(file, r->file))
		snprintf(error, sizeof(error), "%s", r->error);
	running_set_file(r, file, NULL, error);
	copy(configuration, "writtenAt", r->written, sizeof(r->written));
	r->newer = r->missing = false;
}
