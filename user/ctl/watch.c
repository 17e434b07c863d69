/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelbctl status: prints the state, with -w again every second. */
#include "ctl/ctl.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cli.h"
#include "ctl/brief.h"
#include "ctl/color.h"
#include "ctl/json.h"
#include "ctl/take.h"
#include "ctl/yaml.h"

/* These return 0, or a negative errno with e. */
static int print_document(const struct ctl_options *o, struct take_memory *memory, bool compact,
			  struct err *e)
{
	json_t *document = NULL;
	int r = take_json(o, memory, DATAPATH_WAIT_MS, &document, e);

	if (r)
		return r;
	if (o->yaml && compact)
		puts("---");
	r = o->yaml ? ctl_print_yaml(document, stdout)
		    : ctl_print_json(document, compact ? JSON_COMPACT : JSON_INDENT(2), stdout);
	return r ? err_no_memory(e) : 0;
}

static int print_colored(const struct ctl_options *o, struct take_memory *memory, struct err *e)
{
	char *text = NULL;
	size_t size = 0;
	FILE *to = open_memstream(&text, &size);
	int r = to ? take_text(o, memory, to, e) : err_no_memory(e);

	if (to && fclose(to) && !r)
		r = err_no_memory(e);
	if (!r)
		color_status(text, stdout);
	free(text);
	return r;
}

/* compact: one of many documents. */
static int print_once(const struct ctl_options *o, struct take_memory *memory, bool compact)
{
	struct err e = { "" };
	int r;

	if (o->json)
		r = print_document(o, memory, compact, &e);
	else if (color_wanted(o))
		r = print_colored(o, memory, &e);
	else
		r = take_text(o, memory, stdout, &e);
	return r ? cli_fail(CLI_FAILED, &e) : CLI_OK;
}

/* Until Ctrl-C, the end of stdout's reader, or the end of the data path. */
static int watch(const struct ctl_options *o, struct take_memory *memory)
{
	bool terminal = isatty(STDOUT_FILENO);
	int status;

	ctl_handle_signals();
	do {
		if (terminal && !o->json)
			fputs("\033[H\033[J", stdout);
		status = print_once(o, memory, true);
		if (!terminal && !o->json && status == CLI_OK)
			putchar('\n');
	} while (status == CLI_OK && ctl_flush() && ctl_pause(1000));
	return status;
}

static int print_brief(const struct ctl_options *o, struct take_memory *memory)
{
	json_t *document = NULL;
	struct err e = { "" };
	int r = take_json(o, memory, DATAPATH_WAIT_MS, &document, &e);
	enum brief b = r ? brief_print_failure(r, &e, stdout) : brief_print(document, stdout);

	json_decref(document);
	/* cli_end says why. */
	if (fflush(stdout) || ferror(stdout))
		return CLI_FAILED;
	return brief_return(b);
}

int ctl_status(const struct ctl_options *o, int argc, char **argv)
{
	struct take_memory *memory;
	int status;

	(void)argv;
	if (argc)
		return cli_usage("status takes no argument");
	if (o->brief && (o->watch || o->json || o->wide))
		return cli_usage("--brief goes without -w and -o");
	memory = calloc(1, sizeof(*memory));
	if (!memory)
		return cli_fail(CLI_FAILED, &(struct err){ "out of memory" });
	if (o->brief)
		status = print_brief(o, memory);
	else
		status = o->watch ? watch(o, memory) : print_once(o, memory, false);
	free(memory);
	return status;
}
