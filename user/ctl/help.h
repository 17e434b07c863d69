/* SPDX-License-Identifier: BSD-2-Clause */
/* What --help and `kubelbctl help` print. */
#ifndef KUBELB_CTL_HELP_H
#define KUBELB_CTL_HELP_H

#include <stddef.h>

#include "ctl/ctl.h"

/* The options that not every command accepts. */
#define WITH_WATCH 1u
#define WITH_FOLLOW 2u
#define WITH_JSON 4u
#define WITH_FORMATS 8u /* wide and yaml */
#define WITH_COLOR 16u
#define WITH_BRIEF 32u
#define WITH_TOP 64u
#define WITH_BUNDLE 128u

struct ctl_command {
	const char *name, *arguments, *help;
	unsigned int with;
	int (*run)(const struct ctl_options *o, int argc, char **argv);
};

/* The command of this name; NULL: there is none. */
const struct ctl_command *help_find(const struct ctl_command *list, size_t n, const char *name);

/* Print on stdout: the summary of all commands, and that of one. */
void help_print(const struct ctl_command *list, size_t n);
void help_print_command(const struct ctl_command *c);

/* Says that there is no such command, and which one is meant in all likelihood. CLI_USAGE. */
int help_unknown(const struct ctl_command *list, size_t n, const char *name);
/* Says that there is no command, and which ones there are. CLI_USAGE. */
int help_missing(const struct ctl_command *list, size_t n);

#endif
