/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The operator's settings (kubelbctl drain, undrain, weight) while the agent is the data path, and
 * the operator's orders. The map `admin` is not there then, so the agent keeps them, by address:
 *
 *   { "kind": "kubelb-operator", "version": 1, "backends": [
 *       { "address": "192.168.17.11:6443", "drained": true, "weight": null } ] }
 *
 * They hold over the agent's end. When the kernel is the data path again, they go into its map.
 */
#include "agent/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "balance/backend_status.h"
#include "base/cli.h"
#include "base/file.h"
#include "base/file_replace.h"
#include "ctl/admin.h"
#include "ctl/ctl.h"
#include "host/worker.h"
#include "net/endpoint.h"

#define KIND "kubelb-operator"
#define VERSION 1
#define FOLDER "/var/lib/kubelb"
#define NAME "operator.json"
/* KLB_MAX_IDS settings take some 12 KiB. */
#define BYTES_MAX ((size_t)64 * 1024)

/* systemd names its StateDirectory=; whoever tries KubeLB out without root can, too. */
static const char *file_path(char *ret, size_t size)
{
	const char *folder = getenv("STATE_DIRECTORY");

	snprintf(ret, size, "%s/" NAME, folder && folder[0] == '/' ? folder : FOLDER);
	return ret;
}

static bool is_set(const struct klb_admin *admin)
{
	return admin->drained || admin->weight_set;
}

/* --- the list ------------------------------------------------------------------------ */

static struct agent_setting *find(struct agent *a, const struct klb_endpoint *backend)
{
	for (unsigned int i = 0; i < a->path.n_settings; i++)
		if (endpoint_equal(&a->path.settings[i].backend, backend))
			return &a->path.settings[i];
	return NULL;
}

static void put(struct agent *a, const struct klb_endpoint *backend, const struct klb_admin *admin)
{
	struct agent_setting *s = find(a, backend);

	if (!s && is_set(admin) && a->path.n_settings < KLB_MAX_IDS)
		s = &a->path.settings[a->path.n_settings++];
	if (!s)
		return;
	*s = (struct agent_setting){ *backend, *admin };
	if (!is_set(admin))
		*s = a->path.settings[--a->path.n_settings];
}

void agent_apply_settings(struct agent *a)
{
	for (unsigned int i = 0; i < a->state->applied.n_backends; i++) {
		const struct plan_backend *b = &a->state->applied.backends[i];
		const struct agent_setting *s = find(a, &b->value.endpoint);
		struct klb_admin admin = { 0 };

		if (s)
			admin = s->admin;
		admin.generation = b->value.generation;
		a->state->admin[b->id] = admin;
	}
}

/* --- the file ------------------------------------------------------------------------ */

static int read_setting(struct agent *a, const json_t *entry)
{
	const char *address = json_string_value(json_object_get(entry, "address"));
	const json_t *weight = json_object_get(entry, "weight");
	struct klb_endpoint backend;
	struct klb_admin admin = {
		.drained = json_is_true(json_object_get(entry, "drained")),
		.weight_set = json_is_integer(weight),
	};

	if (!address || endpoint_parse(address, 0, &backend, NULL))
		return -EINVAL;
	if (admin.weight_set &&
	    (json_integer_value(weight) < 0 || json_integer_value(weight) > KLB_WEIGHT_MAX))
		return -EINVAL;
	admin.weight = (__u32)json_integer_value(weight);
	put(a, &backend, &admin);
	return 0;
}

static int parse(struct agent *a, const char *path, const char *text, size_t length, struct err *e)
{
	json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL), *entry;
	const char *kind = json_string_value(json_object_get(root, "kind"));
	int r = kind && !strcmp(kind, KIND) ? 0 : -EINVAL;
	size_t i;

	if (!r && json_integer_value(json_object_get(root, "version")) != VERSION)
		r = -EINVAL;
	json_array_foreach(json_object_get(root, "backends"), i, entry)
		if (!r)
			r = read_setting(a, entry);
	json_decref(root);
	return r ? err_set(e, EINVAL,
			   "%s: not a file of the operator's settings; what is not understood of "
			   "it is ignored, and it is replaced by the next setting",
			   path)
		 : 0;
}

/* A user who can write it can take every backend from the node. */
static void read_settings(struct agent *a)
{
	char path[512], *text = NULL;
	struct err e = { "" };
	size_t length = 0;
	int r;

	if (a->path.settings_read)
		return;
	a->path.settings_read = true;
	r = file_read_own(file_path(path, sizeof(path)), BYTES_MAX, &text, &length, &e);
	if (!r)
		r = parse(a, path, text, length, &e);
	free(text);
	if (r && r != -ENOENT)
		log_event(LOG_LEVEL_WARN, "the operator's earlier settings do not count",
			  "error=%s", log_quoted(e.text));
}

static char *to_text(const struct agent *a)
{
	json_t *list = json_array(), *root;
	char address[ENDPOINT_TEXT_MAX], *text;

	for (unsigned int i = 0; i < a->path.n_settings; i++) {
		const struct agent_setting *s = &a->path.settings[i];

		json_array_append_new(list,
				      json_pack("{s:s, s:b, s:o}", "address",
						endpoint_format(&s->backend, address), "drained",
						s->admin.drained, "weight",
						s->admin.weight_set ? json_integer(s->admin.weight)
								    : json_null()));
	}
	root = json_pack("{s:s, s:i, s:o}", "kind", KIND, "version", VERSION, "backends", list);
	text = json_dumps(root, JSON_INDENT(2));
	json_decref(root);
	return text;
}

/* On a thread: a disk may hang. */
struct saving {
	char *text, path[512];
	int r;
	struct err e;
};

static void saving_drop(void *data)
{
	struct saving *s = data;

	free(s->text);
	free(s);
}

static void saving_work(void *data)
{
	struct saving *s = data;

	s->r = file_replace(s->path, s->text, "set STATE_DIRECTORY to another one", &s->e);
}

static void saving_done(void *arg, void *data)
{
	struct saving *s = data;
	struct agent *a = arg;

	a->path.saving = NULL;
	log_failure(a->path.settings_error, LOG_LEVEL_WARN,
		    "the operator's settings are lost when the agent ends", &s->e);
	if (a->path.save_again)
		agent_save_settings(a);
}

void agent_save_settings(struct agent *a)
{
	static const struct worker_ops ops = { .work = saving_work,
					       .done = saving_done,
					       .drop = saving_drop };
	struct saving *s;
	struct err e = { "" };

	a->path.save_again = a->path.saving != NULL;
	if (a->path.saving)
		return;
	s = calloc(1, sizeof(*s));
	if (!s)
		return;
	file_path(s->path, sizeof(s->path));
	s->text = to_text(a);
	if (!s->text)
		saving_drop(s);
	else if (worker_start(a->base, &ops, a, s, &a->path.saving, &e))
		log_failure(a->path.settings_error, LOG_LEVEL_WARN,
			    "the operator's settings are lost when the agent ends", &e);
}

/* How long the end waits for the disk. */
#define END_WAIT_MS 500

void agent_end_saving(struct agent *a)
{
	if (a->path.saving && !worker_wait(a->path.saving, END_WAIT_MS))
		worker_cancel(a->path.saving);
}

/* --- from the maps, and back ----------------------------------------------------------- */

void agent_keep_settings(struct agent *a)
{
	read_settings(a);
	for (unsigned int i = 0; i < a->state->applied.n_backends; i++) {
		const struct plan_backend *b = &a->state->applied.backends[i];
		const struct klb_admin *admin = backend_status_admin(a->state, b);

		if (is_set(admin))
			put(a, &b->value.endpoint, admin);
	}
}

static void replace_admin(struct klb_admin *admin, const void *arg)
{
	const struct klb_admin *kept = arg;

	admin->drained = kept->drained;
	admin->weight_set = kept->weight_set;
	admin->weight = kept->weight;
}

/* What kubelbctl has set in the map meanwhile counts. */
static int hand_over(struct agent *a, const struct agent_setting *s)
{
	const struct plan_backend *b = plan_find(&a->state->applied, &s->backend);
	struct err unsaid;

	if (!b || is_set(backend_status_admin(a->state, b)))
		return 0;
	return datapath_change_admin(a->dp, b, replace_admin, &s->admin, &unsaid);
}

void agent_hand_over_settings(struct agent *a)
{
	if (!a->path.n_settings || a->config_pending)
		return;
	if (datapath_read_admin(a->dp, a->state->admin, NULL))
		return;
	/* What the lock keeps it from comes with a later tick. */
	while (a->path.n_settings && !hand_over(a, &a->path.settings[a->path.n_settings - 1]))
		a->path.n_settings--;
	if (!a->path.n_settings)
		agent_save_settings(a);
}

/* --- orders -------------------------------------------------------------------------- */

/* "drain", "undrain", "weight/N", "weight/auto" */
static bool parse_change(const char *word, struct admin_change *ret)
{
	unsigned long weight;

	*ret = (struct admin_change){ .kind = ADMIN_DRAIN };
	if (!strcmp(word, "drain"))
		return true;
	ret->kind = ADMIN_UNDRAIN;
	if (!strcmp(word, "undrain"))
		return true;
	ret->kind = ADMIN_WEIGHT_AUTO;
	if (!strcmp(word, "weight/auto"))
		return true;
	if (strncmp(word, "weight/", 7) != 0 || cli_number(word + 7, 0, KLB_WEIGHT_MAX, &weight))
		return false;
	ret->kind = ADMIN_WEIGHT;
	ret->weight = (unsigned int)weight;
	return true;
}

static void change(struct agent *a, const struct plan_backend *b, const struct admin_change *c,
		   FILE *to)
{
	struct klb_admin *admin = &a->state->admin[b->id];
	char text[ENDPOINT_TEXT_MAX];

	agent_read_relayed(a);
	admin_report(c, a->state, b, to);
	admin_edit(admin, c);
	put(a, &b->value.endpoint, admin);
	agent_save_settings(a);
	log_event(LOG_LEVEL_INFO, "the operator has changed a setting",
		  "backend=%s drained=%u weight=%d", endpoint_format(&b->value.endpoint, text),
		  admin->drained, admin->weight_set ? (int)admin->weight : -1);
	agent_review_listeners(a);
}

static void kill_connections(struct agent *a, const struct plan_backend *b, FILE *to)
{
	char text[ENDPOINT_TEXT_MAX];
	unsigned int n = agent_end_relayed(a, &b->value.endpoint);

	endpoint_format(&b->value.endpoint, text);
	fprintf(to, "%s: %u connection%s ended\n", text, n, n == 1 ? "" : "s");
	log_event(LOG_LEVEL_INFO, "the operator has ended connections", "backend=%s connections=%u",
		  text, n);
}

static unsigned int carry_out(struct agent *a, const char *backend, const char *word, FILE *to)
{
	const struct plan_backend *b;
	struct klb_endpoint endpoint;
	struct admin_change c;
	struct err e;

	if (!a->path.relaying) {
		fputs("the kernel is the data path: its maps are to be changed\n", to);
		return 409;
	}
	if (endpoint_parse(backend, KLB_PORT_DEFAULT, &endpoint, &e)) {
		fprintf(to, "%s\n", e.text);
		return 400;
	}
	b = plan_find(&a->state->applied, &endpoint);
	if (!b) {
		ctl_unknown_backend(&a->state->applied, &endpoint, &e);
		fprintf(to, "%s\n", e.text);
		return 409;
	}
	if (!strcmp(word, "kill"))
		kill_connections(a, b, to);
	else if (parse_change(word, &c))
		change(a, b, &c, to);
	else
		return 404;
	return 200;
}

/* "/backends/ADDRESS/WORD" */
unsigned int agent_take_order(struct agent *a, const char *path, FILE *to)
{
	static const char prefix[] = "/backends/";
	char backend[ENDPOINT_TEXT_MAX];
	const char *word;
	size_t length;

	if (strncmp(path, prefix, sizeof(prefix) - 1) != 0)
		return 404;
	path += sizeof(prefix) - 1;
	length = strcspn(path, "/");
	word = path + length;
	if (!*word || length >= sizeof(backend))
		return 404;
	snprintf(backend, sizeof(backend), "%.*s", (int)length, path);
	return carry_out(a, backend, word + 1, to);
}
