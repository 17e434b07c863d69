/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The status page itself, at `/`: page/page.html with its style and script, as
 * scripts/embed-page.sh has put them together. The policy lets the browser run these two and
 * nothing else, load nothing, and ask only the agent; the page writes what it hears as text.
 */
#include "agent/internal.h"

#include "net/http_server.h"
#include "status_page.h"

static const unsigned char bytes[] = { PAGE_BYTES };

static const char headers[] =
	"Content-Security-Policy: default-src 'none'; connect-src 'self'; img-src data:; "
	"style-src '" PAGE_STYLE "'; script-src '" PAGE_SCRIPT "'; base-uri 'none'; "
	"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
	"trusted-types 'none'\r\n"
	"X-Frame-Options: DENY\r\n"
	"Referrer-Policy: no-referrer\r\n"
	"Cross-Origin-Opener-Policy: same-origin\r\n"
	"Cross-Origin-Resource-Policy: same-origin\r\n"
	"Cache-Control: no-cache\r\n";

unsigned int agent_show_page(struct http_text *ret)
{
	*ret = (struct http_text){ .fixed = (const char *)bytes,
				   .length = sizeof(bytes),
				   .type = "text/html; charset=utf-8",
				   .headers = headers };
	return 200;
}
