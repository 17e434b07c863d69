/* SPDX-License-Identifier: BSD-2-Clause */
/* Includes of an nginx.conf. They are not followed; the one that matters is named. */
#include <string.h>

#include "import/nginx.h"

static bool names_stream(const char *path)
{
	return strstr(path, "stream") || strstr(path, "tcp");
}

/* How much an include on the top of the file could matter: none of these has a stream {}. */
static int rank_of(const char *path)
{
	if (strstr(path, "modules-enabled") || strstr(path, "/modules/") ||
	    strstr(path, "mime.types"))
		return 0;
	return names_stream(path) ? 2 : 1;
}

bool nginx_find_include(const struct import *m, struct nginx_context in, size_t *ret)
{
	int best = 0;
	size_t stream;

	if (nginx_find(m, in, "stream", &stream) &&
	    nginx_find_deep(m, nginx_inside(m, stream), "include", ret))
		return true;
	IMPORT_EACH(&m->words, i, in.first, in.last)
	{
		int rank = import_is(&m->words, i, "include")
				   ? rank_of(import_word(&m->words, i, 1))
				   : 0;

		if (rank > best) {
			best = rank;
			*ret = i;
		}
	}
	return best > 0;
}

void nginx_note_includes(struct import *m, struct nginx_context stream)
{
	IMPORT_EACH(&m->words, i, stream.first, stream.last)
	{
		if (import_is(&m->words, i, "include"))
			import_hint(m, m->words.items[i].line,
				    "include %s is not followed: if the apiservers are in there, "
				    "give that file",
				    import_word(&m->words, i, 1));
		else if (import_is(&m->words, i, "server") || import_is(&m->words, i, "upstream"))
			nginx_note_includes(m, nginx_inside(m, i));
	}
}
