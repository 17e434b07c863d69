/* SPDX-License-Identifier: BSD-2-Clause */
/* Works out names of files. */
#include "base/path.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Takes the last part off what has been written. ".." above the root is the root. */
static size_t drop_part(const char *text, size_t length)
{
	while (length && text[length - 1] != '/')
		length--;
	return length ? length - 1 : 0;
}

/* Removes ".", ".." and doubled slashes in place. The text is absolute. */
static void clean(char *text)
{
	const char *at = text;
	size_t length = 0;

	while (*at) {
		size_t part;

		at += strspn(at, "/");
		part = strcspn(at, "/");
		if (part == 2 && memcmp(at, "..", 2) == 0) {
			length = drop_part(text, length);
		} else if (part && !(part == 1 && *at == '.')) {
			text[length++] = '/';
			memmove(text + length, at, part);
			length += part;
		}
		at += part;
	}
	if (!length)
		text[length++] = '/';
	text[length] = '\0';
}

char *path_resolve(const char *directory, const char *file)
{
	char *full;

	if (asprintf(&full, "%s/%s", file[0] == '/' ? "" : directory, file) < 0)
		return NULL;
	if (full[0] == '/')
		clean(full);
	return full;
}

char *path_directory(const char *file)
{
	char *here = file[0] == '/' ? strdup("/") : getcwd(NULL, 0);
	char *full = here ? path_resolve(here, file) : NULL;
	char *slash = full ? strrchr(full, '/') : NULL;

	free(here);
	if (slash)
		slash[slash == full] = '\0';
	return full;
}
