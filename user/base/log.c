/* SPDX-License-Identifier: BSD-2-Clause */
/* Writes the log: one line in logfmt for each event, on stderr. */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ascii.h"
#include "base/clock.h"
#include "base/format.h"
#include "base/log_queue.h"

/* priority: the one of syslog(3), which journald reads from the <N> at the start of a line. */
static const struct {
	const char *name;
	int priority;
} levels[] = {
	[LOG_LEVEL_ERROR] = { "error", 3 },
	[LOG_LEVEL_WARN] = { "warn", 4 },
	[LOG_LEVEL_INFO] = { "info", 6 },
	[LOG_LEVEL_DEBUG] = { "debug", 7 },
};

/* log_init sets them once, before the first line. */
static struct {
	const char *program;
	enum log_level level;
	bool journal;
	bool file;
} settings = { "kubelb", LOG_LEVEL_INFO, false, false };

/* A line under construction: always terminated, always with space for a newline. */
struct line {
	size_t length;
	char text[LOG_LINE_MAX];
};

/*
 * Programs inherit JOURNAL_STREAM. Only when it names the very file that stderr is does the journal
 * read stderr; otherwise stderr is a terminal or a pipe (systemd.exec(5)).
 */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;
	char *end;

	if (!stream)
		return false;
	dev = strtoull(stream, &end, 10);
	if (*end != ':')
		return false;
	ino = strtoull(end + 1, NULL, 10);
	return fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

/* The journal and container runtimes note when a line came; a file does not. */
static bool stderr_is_file(void)
{
	struct stat st;

	return fstat(STDERR_FILENO, &st) == 0 && S_ISREG(st.st_mode);
}

void log_init(const char *program, enum log_level level)
{
	settings.program = program;
	settings.level = level;
	settings.journal = stderr_is_journal();
	settings.file = !settings.journal && stderr_is_file();
}

bool log_enabled(enum log_level level)
{
	return level <= settings.level;
}

static void line_vadd(struct line *l, const char *format, va_list ap)
	__attribute__((format(printf, 2, 0)));
static void line_add(struct line *l, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void line_vadd(struct line *l, const char *format, va_list ap)
{
	size_t size = sizeof(l->text) - 1 - l->length;
	int n = vsnprintf(l->text + l->length, size, format, ap);

	if (n > 0)
		l->length += (size_t)n < size ? (size_t)n : size - 1;
}

static void line_add(struct line *l, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	line_vadd(l, format, ap);
	va_end(ap);
}

static void line_begin(struct line *l, enum log_level level)
{
	l->length = 0;
	l->text[0] = '\0';
	if (settings.journal)
		line_add(l, "<%d>", levels[level].priority);
}

/* The first keys of an event. */
static void line_begin_event(struct line *l, enum log_level level)
{
	char when[FORMAT_WALL_MAX];

	line_begin(l, level);
	if (settings.file)
		line_add(l, "time=%s ", format_wall(clock_wall_ns(), when));
	line_add(l, "level=%s ", levels[level].name);
}

/* The line about n dropped ones. Returns its length; 0: no room. */
static size_t format_dropped(char *ret, size_t size, unsigned long long n)
{
	struct line l;

	line_begin_event(&l, LOG_LEVEL_WARN);
	line_add(&l, "msg=\"nobody took the log's lines, and some were dropped\" lines=%llu\n", n);
	if (l.length > size)
		return 0;
	memcpy(ret, l.text, l.length);
	return l.length;
}

/* With one write, so that the lines of several processes do not mix. */
static void line_write(struct line *l)
{
	size_t i;

	for (i = 0; i < l->length; i++)
		if (ascii_is_control((unsigned char)l->text[i]))
			l->text[i] = ' ';
	l->text[l->length++] = '\n';
	log_queue_write(l->text, l->length, format_dropped);
}

void log_event(enum log_level level, const char *msg, const char *keys, ...)
{
	int saved_errno = errno;
	struct line l;
	va_list ap;

	if (!log_enabled(level))
		return;
	line_begin_event(&l, level);
	line_add(&l, "msg=%s", log_quoted(msg));
	if (keys && keys[0]) {
		line_add(&l, " ");
		va_start(ap, keys);
		line_vadd(&l, keys, ap);
		va_end(ap);
	}
	line_write(&l);
	errno = saved_errno;
}

/* Writes c to out as it stands in a quoted value. out has 4 bytes. Returns how many it has used. */
static size_t escape(unsigned char c, char *out)
{
	static const char hex[] = "0123456789abcdef";
	static const char named[] = "\n\r\t\"\\", names[] = "nrt\"\\";
	const char *at = c ? strchr(named, c) : NULL;

	out[0] = '\\';
	if (at) {
		out[1] = names[at - named];
		return 2;
	}
	if (ascii_is_print(c)) {
		out[0] = (char)c;
		return 1;
	}
	/*
	 * Bytes outside ASCII too: they may not be UTF-8, and the journal stores such lines as a
	 * blob.
	 */
	out[1] = 'x';
	out[2] = hex[c >> 4];
	out[3] = hex[c & 15];
	return 4;
}

const char *log_quote(char *buf, unsigned long size, const char *text)
{
	size_t length = 0;
	char escaped[4];

	if (size < 3) { /* not even "" fits */
		if (size)
			buf[0] = '\0';
		return buf;
	}
	buf[length++] = '"';
	for (; text && *text; text++) {
		size_t n = escape((unsigned char)*text, escaped);

		if (length + n + 2 > size)
			break;
		memcpy(buf + length, escaped, n);
		length += n;
	}
	buf[length++] = '"';
	buf[length] = '\0';
	return buf;
}

void log_failure(char last[ERR_TEXT_MAX], enum log_level level, const char *text,
		 const struct err *e)
{

	if (!strcmp(last, e->text))
		return;
	memcpy(last, e->text, ERR_TEXT_MAX);
	if (e->text[0])
		log_event(level, text, "error=%s", log_quoted(e->text));
}

void log_line(const char *format, ...)
{
	struct line l;
	va_list ap;

	line_begin(&l, LOG_LEVEL_ERROR);
	line_add(&l, "%s: ", settings.program);
	va_start(ap, format);
	line_vadd(&l, format, ap);
	va_end(ap);
	line_write(&l);
}
