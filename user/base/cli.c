/* SPDX-License-Identifier: BSD-2-Clause */
/* What the three programs share at the command line. */
#include "base/cli.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ascii.h"
#include "base/log.h"

int cli_fail(int status, const struct err *e)
{
	log_line("%s", e->text);
	return status;
}

int cli_file_status(int r)
{
	return err_is_shortage(-r) ? CLI_FAILED : CLI_USAGE;
}

int cli_usage(const char *format, ...)
{
	char text[ERR_TEXT_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	log_line("%s; see --help", text);
	return CLI_USAGE;
}

int cli_bad_option(int c, char *const *argv)
{
	return cli_usage("%s: %s", argv[optind - 1], c == ':' ? "needs a value" : "unknown option");
}

int cli_output_format(const char *text, bool *ret_json)
{
	*ret_json = !strcmp(text, "json");
	return *ret_json || !strcmp(text, "text") ? -1
						  : cli_usage("-o %s: want text or json", text);
}

int cli_version(const char *program)
{
	const char *commit = KLB_COMMIT;

	printf(*commit ? "%s %s (%s)\n" : "%s %s\n", program, KLB_VERSION, commit);
	return CLI_OK;
}

int cli_end(int status)
{
	if (!fflush(stdout) && !ferror(stdout))
		return status;
	log_line("cannot write to standard output: %s", strerror(errno));
	return status == CLI_OK ? CLI_FAILED : status;
}

int cli_number(const char *text, unsigned long min, unsigned long max, unsigned long *ret)
{
	unsigned long value;
	char *end;

	if (!ascii_is_digit(*text))
		return -EINVAL;
	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || *end || value < min || value > max)
		return -EINVAL;
	*ret = value;
	return 0;
}
