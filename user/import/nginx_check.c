/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Refuses what nginx itself refuses: a file with such a line is not the one that balances, and
 * what the line should have said may be one of the apiservers.
 */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/ascii.h"
#include "import/nginx.h"

/* The directives of nginx 1.9 to 1.29, and of modules that are often seen. */
static const char blocks_of_stream[] = "server upstream map geo split_clients match geoip2 "
				       "keyval_zone otel_exporter";
static const char only_stream[] =
	"include limit_conn_zone log_format map_hash_bucket_size map_hash_max_size js_import "
	"js_path js_preload_object js_shared_dict_zone js_shared_array_zone keyval keyval_zone "
	"geoip_country geoip_city geoip_org geoip_proxy server_names_hash_bucket_size "
	"server_names_hash_max_size server_traffic_status_zone variables_hash_bucket_size "
	"variables_hash_max_size zone_sync lua_package_path lua_package_cpath lua_shared_dict "
	"lua_code_cache init_by_lua_file init_worker_by_lua_file stream_server_traffic_status_zone "
	"server_traffic_status check_shm_size resolver resolver_timeout";
static const char stream_or_server[] =
	"access_log allow deny error_log js_access js_buffer_size js_fetch_buffer_size "
	"js_fetch_ciphers js_fetch_protocols js_fetch_timeout js_fetch_verify js_filter js_preread "
	"js_set js_var limit_conn limit_conn_dry_run limit_conn_log_level limit_conn_status "
	"mqtt mqtt_preread open_log_file_cache pass_filter preread_buffer_size preread_timeout "
	"proxy_bind proxy_buffer_size proxy_connect_timeout proxy_download_rate "
	"proxy_downstream_buffer proxy_half_close proxy_next_upstream "
	"proxy_next_upstream_timeout proxy_next_upstream_tries proxy_protocol "
	"proxy_protocol_timeout proxy_protocol_version proxy_requests proxy_responses "
	"proxy_session_drop proxy_socket_keepalive proxy_socket_rcvbuf proxy_socket_sndbuf "
	"proxy_ssl proxy_ssl_alpn proxy_ssl_certificate proxy_ssl_certificate_cache "
	"proxy_ssl_certificate_key proxy_ssl_ciphers proxy_ssl_conf_command proxy_ssl_crl "
	"proxy_ssl_key_log proxy_ssl_name proxy_ssl_password_file proxy_ssl_protocols "
	"proxy_ssl_server_name proxy_ssl_session_reuse proxy_ssl_trusted_certificate "
	"proxy_ssl_verify proxy_ssl_verify_depth proxy_timeout proxy_upload_rate "
	"proxy_upstream_buffer resolver resolver_timeout server_name server_traffic_status "
	"set_real_ip_from ssl ssl_alpn ssl_certificate ssl_certificate_cache "
	"ssl_certificate_compression ssl_certificate_key ssl_ciphers ssl_client_certificate "
	"ssl_conf_command ssl_crl ssl_dhparam ssl_ecdh_curve ssl_engine ssl_handshake_timeout "
	"ssl_key_log ssl_ocsp ssl_ocsp_cache ssl_ocsp_responder ssl_password_file "
	"ssl_prefer_server_ciphers ssl_preread ssl_protocols ssl_reject_handshake "
	"ssl_session_cache ssl_session_ticket_key ssl_session_tickets ssl_session_timeout "
	"ssl_stapling ssl_stapling_file ssl_stapling_responder ssl_stapling_verify "
	"ssl_trusted_certificate ssl_verify_client ssl_verify_depth tcp_nodelay include "
	"lua_socket_log_errors lua_ssl_trusted_certificate lua_ssl_verify_depth";
static const char only_server[] =
	"listen proxy_pass pass return set status_zone health_check health_check_timeout "
	"zone_sync zone_sync_server preread_by_lua_file content_by_lua_file log_by_lua_file echo "
	"proxy_set set_by";
static const char in_upstream[] =
	"server zone state hash least_conn least_time random resolver resolver_timeout include "
	"balancer_by_lua_file check check_shm_size check_http_send check_http_expect_alive "
	"least_time sticky upstream_conf keepalive_sni";
static const char top_of_file[] =
	"include load_module user worker_processes worker_connections worker_rlimit_nofile "
	"worker_rlimit_core worker_priority worker_cpu_affinity worker_shutdown_timeout "
	"worker_aio_requests pid lock_file error_log env daemon master_process debug_points "
	"working_directory timer_resolution thread_pool pcre_jit ssl_engine "
	"ssl_object_cache_inheritable google_perftools_profiles quic_bpf accept_mutex "
	"accept_mutex_delay mgmt license_token events http stream mail rtmp tcp dso";
/* What ends the handling of a connection; one of them has to be there. */
static const char handlers[] = "proxy_pass pass return zone_sync content_by_lua_block "
			       "content_by_lua_file echo js_access include";

/* Of which more than one word of this kind is taken. */
static const char single[] = "proxy_pass proxy_timeout proxy_connect_timeout proxy_protocol "
			     "proxy_ssl pass";

/* More than any real file has; bounds the time that comparing names takes. */
#define LINES_MAX 4096

static bool is_lua(const char *word)
{
	return strstr(word, "_by_lua_block") != NULL;
}

/* --- one directive ------------------------------------------------------------------------- */

/* Where a ; is missing, the next directive looks like words of the one before. */
static int check_end(const struct import *m, size_t item, size_t first)
{
	for (size_t n = first; n < m->words.items[item].n_words; n++)
		if (import_listed(import_word(&m->words, item, n),
				  "server listen proxy_pass upstream stream http events "
				  "proxy_timeout proxy_connect_timeout include"))
			return import_fail(m, m->words.items[item].line,
					   "'%.64s' is followed by '%.64s'; is a ; missing?",
					   import_word(&m->words, item, 0),
					   import_word(&m->words, item, n));
	return 0;
}

static int fail_unknown(const struct import *m, size_t item, const char *where)
{
	const char *word = import_word(&m->words, item, 0);
	unsigned int line = m->words.items[item].line;

	char text[96];

	if (!ascii_all_print(word))
		return import_fail(
			m, line,
			"'%s': what is shown as ?? here is no plain character (a no-break "
			"space?) and makes this no directive of nginx's; remove it",
			import_join(&m->words, item, text, sizeof(text)));
	if (strchr(word, '$'))
		return import_fail(
			m, line,
			"'%.64s' is a variable where nginx wants a directive: a template "
			"that was not rendered? give the file of a node",
			word);
	return import_fail(m, line,
			   "'%.64s' is no directive that nginx knows in %s; correct it (is a ; "
			   "missing before it?), or remove it in a copy of the file",
			   word, where);
}

/* How many words a directive takes behind its name. */
static int check_count(const struct import *m, size_t item, size_t min, size_t max)
{
	size_t n = m->words.items[item].n_words - 1;

	if (n >= min && n <= max)
		return 0;
	return import_fail(m, m->words.items[item].line,
			   "'%.64s' has %zu words behind it, which nginx refuses; is a ; missing?",
			   import_word(&m->words, item, 0), n);
}

static int check_block(const struct import *m, size_t item, bool block)
{
	if (m->words.items[item].block == block)
		return 0;
	if (block)
		return import_fail(m, m->words.items[item].line,
				   "'%.64s' has no {} here, which nginx refuses; is this a file "
				   "that another one includes? give one file that has all of it",
				   import_word(&m->words, item, 0));
	return import_fail(m, m->words.items[item].line,
			   "'%.64s' is followed by '{'; is a ; missing before it?",
			   import_word(&m->words, item, 0));
}

/* --- contexts ------------------------------------------------------------------------------ */

static int check_upstream(const struct import *m, size_t upstream)
{
	struct nginx_context in = nginx_inside(m, upstream);
	int r = check_count(m, upstream, 1, 1);

	IMPORT_EACH(&m->words, i, in.first, in.last)
	{
		const char *name = import_word(&m->words, i, 0);

		if (r < 0)
			return r;
		if (is_lua(name))
			continue;
		if (!import_listed(name, in_upstream))
			return fail_unknown(m, i, "an upstream of stream {}");
		r = check_block(m, i, false);
		if (r == 0)
			r = check_end(m, i, 1);
		if (r == 0 && strcmp(name, "least_conn") == 0)
			r = check_count(m, i, 0, 0);
		if (r == 0 && strcmp(name, "server") == 0)
			r = check_count(m, i, 1, 64);
	}
	return r;
}

/* Names that stand twice, where nginx takes one. */
static int check_single(const struct import *m, struct nginx_context in, size_t item)
{
	const char *name = import_word(&m->words, item, 0);
	size_t first = item;

	if (!import_listed(name, single))
		return 0;
	nginx_find(m, in, name, &first);
	if (first != item)
		return import_fail(m, m->words.items[item].line,
				   "'%.64s' is there already (line %u), which nginx refuses; "
				   "remove one",
				   name, m->words.items[first].line);
	return strcmp(name, "pass") == 0 ? 0 : check_count(m, item, 1, 1);
}

static int check_setting(const struct import *m, struct nginx_context in, size_t item)
{
	int r = check_block(m, item, false);

	if (r == 0)
		r = check_end(m, item, 1);
	return r < 0 ? r : check_single(m, in, item);
}

static int check_server(const struct import *m, size_t server)
{
	struct nginx_context in = nginx_inside(m, server);
	bool handled = false, included = false, listens = false;
	int r = check_count(m, server, 0, 0);

	IMPORT_EACH(&m->words, i, in.first, in.last)
	{
		const char *name = import_word(&m->words, i, 0);

		handled = handled || import_listed(name, handlers);
		included = included || strcmp(name, "include") == 0;
		listens = listens || strcmp(name, "listen") == 0;
		if (r < 0)
			return r;
		if (is_lua(name))
			continue;
		if (!import_listed(name, only_server) && !import_listed(name, stream_or_server))
			return fail_unknown(m, i, "a server of stream {}");
		r = check_setting(m, in, i);
	}
	if (r == 0 && (!handled || (!listens && !included)))
		return import_fail(m, m->words.items[server].line,
				   "this server {} has no %s, which nginx refuses; add it",
				   handled ? "listen" : "proxy_pass");
	return r;
}

static int check_upstream_name(const struct import *m, struct nginx_context stream, size_t upstream)
{
	size_t first = upstream;

	nginx_find_upstream(m, stream, import_word(&m->words, upstream, 1), &first);
	if (first == upstream)
		return 0;
	return import_fail(m, m->words.items[upstream].line,
			   "upstream '%.64s' is there already (line %u), which nginx refuses; "
			   "remove one",
			   import_word(&m->words, upstream, 1), m->words.items[first].line);
}

static int check_stream_block(const struct import *m, struct nginx_context stream, size_t item)
{
	int r = check_block(m, item, true);

	if (r == 0 && import_is(&m->words, item, "upstream")) {
		r = check_upstream(m, item);
		return r < 0 ? r : check_upstream_name(m, stream, item);
	}
	return r == 0 && import_is(&m->words, item, "server") ? check_server(m, item) : r;
}

int nginx_check_stream(const struct import *m, struct nginx_context stream)
{
	unsigned int n = 0;

	IMPORT_EACH(&m->words, i, stream.first, stream.last)
	{
		const char *name = import_word(&m->words, i, 0);
		int r = 0;

		if (++n > LINES_MAX)
			return import_fail(m, m->words.items[i].line,
					   "more than %d directives in stream {}; leave those of "
					   "the apiservers in a copy of the file",
					   LINES_MAX);
		if (is_lua(name))
			continue;
		if (import_listed(name, blocks_of_stream))
			r = check_stream_block(m, stream, i);
		else if (import_listed(name, only_stream) || import_listed(name, stream_or_server))
			r = check_setting(m, stream, i);
		else
			return fail_unknown(m, i, "stream {}");
		if (r < 0)
			return r;
	}
	return 0;
}

/* A whole file, rather than one that another includes. */
static bool is_whole(const struct import *m, struct nginx_context file)
{
	size_t item;

	return nginx_find(m, file, "stream", &item) || nginx_find(m, file, "events", &item) ||
	       nginx_find(m, file, "http", &item);
}

int nginx_check_file(const struct import *m, struct nginx_context file)
{
	bool whole = is_whole(m, file);
	size_t stream;
	int r = 0;

	IMPORT_EACH(&m->words, i, file.first, file.last)
	{
		if (!ascii_all_print(import_word(&m->words, i, 0)))
			return fail_unknown(m, i, "this place");
		if (whole && !import_listed(import_word(&m->words, i, 0), top_of_file))
			return fail_unknown(m, i, "the top of a file");
		if (m->words.items[i].block)
			r = check_end(m, i, 1);
		if (r == 0 && import_is(&m->words, i, "stream"))
			r = check_count(m, i, 0, 0);
		if (r == 0 && import_is(&m->words, i, "stream") &&
		    nginx_find(m, file, "stream", &stream) && stream != i)
			r = import_fail(m, m->words.items[i].line,
					"a second stream {} (the first: line %u), which nginx "
					"refuses; put all into one",
					m->words.items[stream].line);
		if (r < 0)
			return r;
	}
	return 0;
}
