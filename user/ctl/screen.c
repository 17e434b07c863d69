/* SPDX-License-Identifier: BSD-2-Clause */
/* Takes the terminal, and gives it back whatever happens. */
#include "ctl/screen.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "base/array.h"

/* ECMA-48, with the private modes that xterm began and all follow: other screen, no cursor, no
 * wrapping; and back. */
#define TAKE "\033[?1049h\033[?25l\033[?7l\033[H\033[2J"
#define GIVE_BACK "\033[0m\033[?7h\033[?25h\033[?1049l"
#define HOME "\033[H"
#define CLEAR_BELOW "\033[J"

static struct termios before;
static sigset_t outside; /* the signals that were blocked before */
static volatile sig_atomic_t entered, ending, stopping, redraw;

/* What ends the program, what goes by in it, and what kills it. */
static const int ends[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
static const int kills[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT };

bool screen_is_there(void)
{
	const char *term = getenv("TERM");

	return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && term && *term &&
	       strcmp(term, "dumb") != 0;
}

/* Whole, or not at all: nothing can be done about a terminal that takes nothing. */
static int put(const char *text, size_t n)
{
	while (n) {
		ssize_t done = write(STDOUT_FILENO, text, n);

		if (done < 0 && errno != EINTR)
			return err_negative(errno);
		if (done > 0) {
			text += done;
			n -= (size_t)done;
		}
	}
	return 0;
}

/* --- the terminal --- */

static int take(void)
{
	struct termios raw = before;

	/* ISIG stays: ^C and ^Z are signals. */
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	raw.c_iflag &= ~(tcflag_t)(IXON | ICRNL);
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	if (tcsetattr(STDIN_FILENO, TCSANOW, &raw))
		return err_negative(errno);
	entered = 1;
	return put(TAKE, strlen(TAKE));
}

/* Only what a signal handler may call. */
static void give_back(void)
{
	if (!entered)
		return;
	entered = 0;
	put(GIVE_BACK, strlen(GIVE_BACK));
	tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

/* --- signals --- */

static void on_signal(int number)
{
	if (number == SIGTSTP)
		stopping = 1;
	else if (number == SIGWINCH || number == SIGCONT)
		redraw = 1;
	else
		ending = 1;
}

/* The handler is gone by now (SA_RESETHAND): the second time it kills. */
static void on_kill(int number)
{
	give_back();
	raise(number);
}

static void handle(int number, void (*handler)(int), int flags)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = flags };

	sigaction(number, &action, NULL);
}

/* Those of screen_wait come only while that waits. */
static void take_signals(void)
{
	sigset_t ours;

	sigemptyset(&ours);
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		sigaddset(&ours, ends[i]);
		handle(ends[i], on_signal, 0);
	}
	sigaddset(&ours, SIGTSTP);
	sigaddset(&ours, SIGWINCH);
	sigaddset(&ours, SIGCONT);
	sigprocmask(SIG_BLOCK, &ours, &outside);
	handle(SIGTSTP, on_signal, 0);
	handle(SIGWINCH, on_signal, 0);
	handle(SIGCONT, on_signal, 0);
	for (size_t i = 0; i < ARRAY_SIZE(kills); i++)
		handle(kills[i], on_kill, (int)SA_RESETHAND | SA_NODEFER);
	signal(SIGPIPE, SIG_IGN);
}

/* As ^Z would without a handler. Goes on after SIGCONT. */
static void stop(void)
{
	sigset_t only;

	stopping = 0;
	give_back();
	handle(SIGTSTP, SIG_DFL, 0);
	sigemptyset(&only);
	sigaddset(&only, SIGTSTP);
	raise(SIGTSTP);
	sigprocmask(SIG_UNBLOCK, &only, NULL);
	/* Here it stops. */
	sigprocmask(SIG_BLOCK, &only, NULL);
	handle(SIGTSTP, on_signal, 0);
	redraw = 1;
}

int screen_enter(struct err *e)
{
	if (tcgetattr(STDIN_FILENO, &before))
		return err_set(e, errno, "the terminal cannot be read: %s", strerror(errno));
	atexit(give_back);
	take_signals();
	return take() ? err_set(e, EIO, "the terminal cannot be written to") : 0;
}

void screen_leave(void)
{
	give_back();
}

/* --- out and in --- */

void screen_size(unsigned int *ret_columns, unsigned int *ret_rows)
{
	struct winsize size = { 0 };

	*ret_columns = 80;
	*ret_rows = 24;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size))
		return;
	*ret_columns = size.ws_col ? size.ws_col : 80;
	*ret_rows = size.ws_row ? size.ws_row : 24;
}

int screen_show(const char *frame, size_t length)
{
	int r = put(HOME, strlen(HOME));

	if (!r)
		r = put(frame, length);
	return r ? r : put(CLEAR_BELOW, strlen(CLEAR_BELOW));
}

/* What was typed and not taken yet. */
static struct {
	char text[32];
	size_t length, used;
} typed;

/* The keys that are more than a character begin with ESC [ or ESC O. */
static int read_key(void)
{
	static const struct {
		const char *sequence;
		int key;
	} named[] = { { "\033[A", SCREEN_UP },	     { "\033OA", SCREEN_UP },
		      { "\033[B", SCREEN_DOWN },     { "\033OB", SCREEN_DOWN },
		      { "\033[5~", SCREEN_PAGE_UP }, { "\033[6~", SCREEN_PAGE_DOWN } };
	const char *text;

	if (typed.used == typed.length) {
		ssize_t n = read(STDIN_FILENO, typed.text, sizeof(typed.text));

		if (n <= 0)
			return n < 0 && errno == EINTR ? SCREEN_OTHER : SCREEN_END;
		typed.length = (size_t)n;
		typed.used = 0;
	}
	text = typed.text + typed.used;
	for (size_t i = 0; i < ARRAY_SIZE(named); i++) {
		size_t n = strlen(named[i].sequence);

		if (typed.length - typed.used >= n && !memcmp(text, named[i].sequence, n)) {
			typed.used += n;
			return named[i].key;
		}
	}
	if (*text == '\033') {
		typed.used = typed.length;
		return SCREEN_OTHER;
	}
	typed.used++;
	return (unsigned char)*text;
}

/* What signals have brought, or 0. */
static int take_news(void)
{
	if (ending)
		return SCREEN_END;
	if (stopping)
		stop();
	if (!redraw)
		return 0;
	redraw = 0;
	/* Whoever had the terminal meanwhile may have changed it. */
	return take() ? SCREEN_END : SCREEN_REDRAW;
}

int screen_wait(unsigned int ms)
{
	bool waits = typed.used == typed.length;
	const struct timespec limit = { .tv_sec = waits ? ms / 1000 : 0,
					.tv_nsec = waits ? (long)(ms % 1000) * 1000000 : 0 };
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
	int n = ppoll(&in, 1, &limit, &outside), news = take_news();

	if (news)
		return news;
	if (n > 0 || !waits)
		return read_key();
	return n < 0 && errno != EINTR ? SCREEN_END : SCREEN_TIME;
}
