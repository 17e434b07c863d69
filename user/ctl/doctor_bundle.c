/* SPDX-License-Identifier: BSD-2-Clause */
/* Writes what a bug report needs into one tar archive, each text without secrets. */
#include "ctl/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/array.h"
#include "base/cli.h"
#include "base/file.h"
#include "base/redact_text.h"
#include "base/tar.h"
#include "ctl/ask.h"
#include "host/command.h"

#define FOLDER "kubelb/"
#define SECONDS 10
#define TEXT_MAX ((size_t)4 << 20)
#define ARGUMENTS_MAX 12

/* An archive in the making. */
struct bundle {
	const struct doctor *d;
	FILE *to;
	time_t now;
};

static void add(struct bundle *b, const char *name, const char *text)
{
	char path[64], *clean;
	size_t length;
	FILE *to = open_memstream(&clean, &length);

	if (!to)
		return;
	redact_text(text, to);
	if (!fclose(to)) {
		snprintf(path, sizeof(path), FOLDER "%s", name);
		tar_add(b->to, path, clean, length, b->now);
	}
	free(clean);
}

/* --- what this command has found --- */

static void add_findings(struct bundle *b)
{
	json_t *document = doctor_json(b->d);
	char *text = json_dumps(document, JSON_INDENT(2)), *printed;
	size_t length;
	FILE *to = open_memstream(&printed, &length);

	if (text)
		add(b, "doctor.json", text);
	free(text);
	json_decref(document);
	if (!to)
		return;
	doctor_print(b->d, to);
	if (!fclose(to))
		add(b, "doctor.txt", printed);
	free(printed);
}

static void add_config(struct bundle *b)
{
	char *text;
	size_t length;
	struct err e;

	if (file_read(b->d->config_path, CONFIG_BYTES_MAX, &text, &length, &e)) {
		add(b, "kubelb.yaml", e.text);
		return;
	}
	add(b, "kubelb.yaml", text);
	file_forget(text, length);
}

static void add_page(struct bundle *b, const char *name, const char *path)
{
	struct ask_body body = { 0 };
	struct err e;

	if (ask_body(b->d->config, ASK_PAGE, path, &body, &e)) {
		add(b, name, e.text);
		return;
	}
	add(b, name, body.text);
	free(body.text);
}

/* --- what other commands print --- */

static void print_output(const char *const *argv, FILE *to)
{
	char *text;
	int r = command_run(argv, SECONDS, TEXT_MAX, &text);

	fputs("$", to);
	for (size_t i = 0; argv[i]; i++)
		fprintf(to, " %s", argv[i]);
	fprintf(to, "\n%s", text ? text : "");
	if (r < 0)
		fprintf(to, "(%s)\n", r == -ENOENT ? "not on this machine" : strerror(-r));
	else if (r)
		fprintf(to, "(exit status %d)\n", r);
	free(text);
}

/* kubelbctl itself, with the same options. */
static void add_own(struct bundle *b, const char *name, const char *const *arguments)
{
	const char *argv[ARGUMENTS_MAX] = { "/proc/self/exe", "--pin", b->d->o->pin_dir, "-c",
					    b->d->config_path };
	char *text;

	for (size_t i = 0; i + 6 < ARGUMENTS_MAX && arguments[i]; i++)
		argv[5 + i] = arguments[i];
	command_run(argv, SECONDS, TEXT_MAX, &text);
	if (text)
		add(b, name, text);
	free(text);
}

static void add_owns(struct bundle *b)
{
	static const struct {
		const char *name, *arguments[4];
	} list[] = {
		{ "status.txt", { "status" } },
		{ "status.json", { "status", "-o", "json" } },
		{ "maps.txt", { "-v", "status" } },
		{ "connections.json", { "connections", "-o", "json" } },
		{ "events.txt", { "events" } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(list); i++)
		add_own(b, list[i].name, list[i].arguments);
}

struct tool {
	const char *argv[ARGUMENTS_MAX];
};

static void add_tools(struct bundle *b, const char *name, const struct tool *list, size_t n)
{
	char *text;
	size_t length;
	FILE *to = open_memstream(&text, &length);

	if (!to)
		return;
	for (size_t i = 0; i < n; i++)
		print_output(list[i].argv, to);
	if (!fclose(to))
		add(b, name, text);
	free(text);
}

static void add_machine(struct bundle *b)
{
	static const struct tool kernel[] = {
		{ { "uname", "-srvm" } },
		{ { "cat", "/sys/kernel/security/lsm", "/sys/kernel/security/lockdown",
		    "/proc/sys/kernel/unprivileged_bpf_disabled",
		    "/proc/sys/net/core/bpf_jit_enable",
		    "/proc/sys/net/ipv4/ip_local_port_range" } },
		{ { "findmnt", "-t", "bpf,cgroup,cgroup2" } },
		{ { "bpftool", "cgroup", "tree" } },
	};
	static const struct tool network[] = {
		{ { "ip", "-br", "addr" } }, { { "ip", "rule" } }, { { "ip", "route" } },
		{ { "ip", "-6", "route" } }, { { "ss", "-ltn" } },
	};
	static const struct tool firewall[] = {
		{ { "nft", "list", "ruleset" } },
		{ { "iptables-save" } },
		{ { "ip6tables-save" } },
	};
	static const struct tool journal[] = {
		{ { "journalctl", "-u", "kubelb-agent", "-u", "kubelb-load", "-n", "1000",
		    "--no-pager", "-o", "short-iso" } },
	};

	add_tools(b, "kernel.txt", kernel, ARRAY_SIZE(kernel));
	add_tools(b, "network.txt", network, ARRAY_SIZE(network));
	add_tools(b, "firewall.txt", firewall, ARRAY_SIZE(firewall));
	add_tools(b, "journal.txt", journal, ARRAY_SIZE(journal));
}

/* --- the file --- */

/* A new one: whoever has put something there before may not be root. */
static FILE *create(const char *path, struct err *e)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	FILE *to = fd < 0 ? NULL : fdopen(fd, "w");

	if (to)
		return to;
	if (errno == EEXIST)
		err_set(e, errno, "--bundle %s: exists already; name a file that does not", path);
	else
		err_set(e, errno, "--bundle %s: %s", path, err_reason(errno));
	if (fd >= 0)
		close(fd);
	return NULL;
}

int doctor_bundle(const struct doctor *d, const char *path, struct err *e)
{
	struct bundle b = { .d = d, .now = time(NULL) };
	bool failed;

	b.to = create(path, e);
	if (!b.to)
		return err_negative(errno);
	add(&b, "version.txt", KLB_VERSION "\n");
	add_findings(&b);
	add_config(&b);
	add_owns(&b);
	add_page(&b, "metrics.txt", "/metrics");
	add_machine(&b);
	tar_end(b.to);
	failed = ferror(b.to);
	if (!fclose(b.to) && !failed)
		return 0;
	unlink(path);
	return err_set(e, EIO, "--bundle %s: cannot be written; is the disk full?", path);
}
