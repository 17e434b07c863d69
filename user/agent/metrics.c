/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints the agent's metrics in Prometheus' text format. */
#include "agent/metrics.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "balance/names.h"
#include "base/array.h"
#include "base/cli.h"
#include "base/clock.h"
#include "base/file.h"
#include "discovery/discovery.h"
#include "net/endpoint.h"
#include "balance/backend_status.h"

/* Upper bounds in seconds. */
static const double bounds[METRICS_BUCKETS] = { 0.001, 0.0025, 0.005, 0.01, 0.025,
						0.05,  0.1,    0.25,  1,    3 };

const char *metrics_ended_name(enum metrics_ended why)
{
	static const char *const names[] = { [METRICS_ENDED_DEAD] = "dead",
					     [METRICS_ENDED_REBALANCE] = "rebalance",
					     [METRICS_ENDED_LOCAL] = "local" };

	return names[why];
}

void metrics_probe_observe(struct metrics_probe *m, enum klb_reason result, __u64 duration_ns)
{
	double seconds = (double)duration_ns / NS_PER_S;

	m->results[result]++;
	m->count++;
	m->sum_seconds += seconds;
	for (int i = 0; i < METRICS_BUCKETS; i++) {
		if (seconds <= bounds[i]) {
			m->buckets[i]++;
			break;
		}
	}
}

static void print_head(FILE *f, const char *name, const char *type, const char *help)
{
	metrics_print_head(f, name, type, help);
}

/* --- from what is attached ----------------------------------------------------------- */

static void print_relaying(FILE *f, const struct metrics_input *in)
{
	print_head(
		f, "kubelb_relaying", "gauge",
		"1 if the agent relays every connect, because the kernel does not rewrite them.");
	fprintf(f, "kubelb_relaying %d\n", in->relaying);
}

/*
 * A link to a removed cgroup stays pinned and runs nothing: it counts as attached, not as
 * effective. When the agent may not read what a cgroup runs, there is no number.
 */
static void print_programs(FILE *f, const struct metrics_input *in)
{
	unsigned int effective = 0, hidden = 0;

	for (unsigned int i = 0; i < in->n_links; i++) {
		effective += in->links[i].effective;
		hidden += in->links[i].hidden;
	}
	print_relaying(f, in);
	print_head(f, "kubelb_programs_attached", "gauge",
		   "Programs that are attached by a pinned link.");
	fprintf(f, "kubelb_programs_attached %u\n", in->n_links);
	print_head(f, "kubelb_programs_effective", "gauge",
		   "Of these, programs that the kernel runs: their cgroup is there.");
	if (!hidden)
		fprintf(f, "kubelb_programs_effective %u\n", effective);
}

static void print_trials(FILE *f, const struct metrics_input *in)
{
	char text[ENDPOINT_TEXT_MAX];

	print_head(f, "kubelb_frontend_balanced", "gauge",
		   "1 if a test connect to the frontend ends at a backend, 0 if another program "
		   "decides.");
	for (unsigned int i = 0; i < in->n_trials; i++)
		if (in->trials[i].result != DATAPATH_TRIAL_NOT_MADE)
			fprintf(f, "kubelb_frontend_balanced{frontend=\"%s\"} %d\n",
				endpoint_format(&in->trials[i].frontend, text),
				in->trials[i].result == DATAPATH_TRIAL_BALANCED);
}

static void print_others(FILE *f, const struct metrics_input *in)
{
	static const char *const hooks[] = { "connect4", "connect6", "getpeername4",
					     "getpeername6" };

	print_head(f, "kubelb_other_programs", "gauge",
		   "Programs of others that the kernel runs for the same connects.");
	for (size_t h = 0; in->n_others >= 0 && h < ARRAY_SIZE(hooks); h++) {
		unsigned int n = 0;

		for (int i = 0; i < in->n_others; i++)
			n += !strcmp(datapath_hook_name(in->others[i].hook), hooks[h]);
		fprintf(f, "kubelb_other_programs{hook=\"%s\"} %u\n", hooks[h], n);
	}
}

static void print_diverted(FILE *f, const struct metrics_input *in)
{
	print_head(f, "kubelb_connects_diverted_total", "counter",
		   "Connects that another program sent elsewhere after KubeLB had chosen.");
	if (in->state)
		fprintf(f, "kubelb_connects_diverted_total %llu\n", in->state->counters.diverted);
}

static void print_features(FILE *f, const struct metrics_input *in)
{
	print_head(f, "kubelb_feature", "gauge",
		   "1 for what the kernel lets kubelb do, 0 for what it refuses.");
	for (unsigned int i = 0; i < in->n_features; i++)
		fprintf(f, "kubelb_feature{name=\"%s\"} %d\n", in->features[i].name,
			in->features[i].present);
}

/* A moment of the clock of the maps; nothing where it is 0. */
static void print_moment(FILE *f, const struct metrics_input *in, const char *name,
			 const char *help, __u64 at_ns)
{
	print_head(f, name, "gauge", help);
	if (at_ns)
		fprintf(f, "%s %.3f\n", name,
			(double)in->wall_ns / NS_PER_S - clock_seconds(at_ns, in->now_ns));
}

/* The heartbeat as it is in `control`, where the kernel reads it. */
static void print_heartbeat(FILE *f, const struct metrics_input *in)
{
	__u64 heartbeat_ns = in->state ? in->state->control.heartbeat_ns : 0;

	print_head(
		f, "kubelb_heartbeat_age_seconds", "gauge",
		"Since the agent's last heartbeat in the maps, by which the kernel believes it.");
	if (heartbeat_ns)
		fprintf(f, "kubelb_heartbeat_age_seconds %.3f\n",
			clock_seconds(heartbeat_ns, in->now_ns));
	print_moment(f, in, "kubelb_heartbeat_timestamp_seconds",
		     "When that heartbeat was, Unix time by the node's clock.", heartbeat_ns);
}

/* Connects to a frontend that went through as they were. */
static void print_left_alone(FILE *f, const struct metrics_input *in)
{
	static const char name[] = "kubelb_connects_left_alone_total";
	const struct klb_counters *c = in->state ? &in->state->counters : NULL;

	print_head(f, name, "counter",
		   "Connects to a frontend that KubeLB has left alone, by cause.");
	if (!c)
		return;
	fprintf(f, "%s{cause=\"loopback_source\"} %llu\n", name, c->skipped_loopback_source);
	fprintf(f, "%s{cause=\"no_backend\"} %llu\n", name, c->skipped_no_backend);
	fprintf(f, "%s{cause=\"other_netns\"} %llu\n", name, c->skipped_other_netns);
	fprintf(f, "%s{cause=\"own_listener\"} %llu\n", name, c->skipped_own_listener);
}

/* --- from the maps ------------------------------------------------------------------- */

typedef double (*value_fn)(const struct datapath_state *s, const struct plan_backend *b,
			   __u64 now_ns);

static double active_of(const struct datapath_state *s, const struct plan_backend *b, __u64 now_ns)
{
	(void)now_ns;
	return (double)s->stats[b->id].active;
}

static double connecting_of(const struct datapath_state *s, const struct plan_backend *b,
			    __u64 now_ns)
{
	(void)now_ns;
	return (double)s->stats[b->id].connecting;
}

static double opened_of(const struct datapath_state *s, const struct plan_backend *b, __u64 now_ns)
{
	(void)now_ns;
	return (double)s->stats[b->id].opened;
}

static double lost_of(const struct datapath_state *s, const struct plan_backend *b, __u64 now_ns)
{
	(void)now_ns;
	return (double)s->stats[b->id].lost;
}

static double ejections_of(const struct datapath_state *s, const struct plan_backend *b,
			   __u64 now_ns)
{
	(void)now_ns;
	return (double)s->stats[b->id].ejections;
}

static double rtt_of(const struct datapath_state *s, const struct plan_backend *b, __u64 now_ns)
{
	(void)now_ns;
	return s->stats[b->id].srtt_us / 1e6;
}

static double preferred_of(const struct datapath_state *s, const struct plan_backend *b,
			   __u64 now_ns)
{
	(void)s;
	(void)now_ns;
	return b->preferred;
}

static double weight_of(const struct datapath_state *s, const struct plan_backend *b, __u64 now_ns)
{
	struct backend_status status;

	backend_status_of(s, b, now_ns, &status);
	return status.weight;
}

static void each_backend(FILE *f, const struct metrics_input *in, const char *name,
			 const char *type, const char *help, value_fn value)
{
	char text[ENDPOINT_TEXT_MAX];

	print_head(f, name, type, help);
	for (unsigned int i = 0; in->state && i < in->state->applied.n_backends; i++) {
		const struct plan_backend *b = &in->state->applied.backends[i];

		if (!backend_status_is_shown(in->state, b))
			continue;
		fprintf(f, "%s{backend=\"%s\"} %.17g\n", name,
			endpoint_format(&b->value.endpoint, text), value(in->state, b, in->now_ns));
	}
}

static void print_states(FILE *f, const struct metrics_input *in)
{
	char text[ENDPOINT_TEXT_MAX];
	struct backend_status status;

	print_head(f, "kubelb_backend_state", "gauge",
		   "1 for the state that the backend is in, as the kernel goes by it, 0 for the "
		   "others.");
	for (unsigned int i = 0; in->state && i < in->state->applied.n_backends; i++) {
		const struct plan_backend *b = &in->state->applied.backends[i];

		if (!backend_status_is_shown(in->state, b))
			continue;
		backend_status_of(in->state, b, in->now_ns, &status);
		endpoint_format(&b->value.endpoint, text);
		for (int j = 0; j < STATUS_STATES; j++)
			fprintf(f, "kubelb_backend_state{backend=\"%s\",state=\"%s\"} %d\n", text,
				backend_status_name((enum status_state)j), j == (int)status.state);
	}
}

static void print_failures(FILE *f, const struct metrics_input *in)
{
	char text[ENDPOINT_TEXT_MAX];

	print_head(f, "kubelb_connect_failures_total", "counter",
		   "Connects to the backend that failed, by reason.");
	for (unsigned int i = 0; in->state && i < in->state->applied.n_backends; i++) {
		const struct plan_backend *b = &in->state->applied.backends[i];

		if (!backend_status_is_shown(in->state, b))
			continue;
		endpoint_format(&b->value.endpoint, text);
		for (int j = 0; j < KLB_FAILURES; j++)
			fprintf(f,
				"kubelb_connect_failures_total{backend=\"%s\",reason=\"%s\"} "
				"%llu\n",
				text, names_failure_key((enum klb_failure)j),
				in->state->stats[b->id].failed[j]);
	}
}

static void print_maps(FILE *f, const struct metrics_input *in)
{
	print_states(f, in);
	each_backend(f, in, "kubelb_backend_weight", "gauge",
		     "Weight that counts: the operator's, else the planned one.", weight_of);
	each_backend(f, in, "kubelb_backend_preferred", "gauge",
		     "1 for this node's own backend, to which its connects go first.",
		     preferred_of);
	each_backend(f, in, "kubelb_connections_active", "gauge",
		     "Connections to the backend that are open.", active_of);
	each_backend(f, in, "kubelb_connections_connecting", "gauge",
		     "Connects to the backend that are under way.", connecting_of);
	each_backend(f, in, "kubelb_connections_opened_total", "counter",
		     "Connections to the backend that were established.", opened_of);
	print_failures(f, in);
	each_backend(f, in, "kubelb_connections_lost_total", "counter",
		     "Established connections whose backend stopped answering.", lost_of);
	each_backend(f, in, "kubelb_ejections_total", "counter",
		     "Times that the kernel has ejected the backend after a failed connect.",
		     ejections_of);
	each_backend(f, in, "kubelb_backend_rtt_seconds", "gauge",
		     "Smoothed round trip time to the backend; 0 before the first connection.",
		     rtt_of);
	print_head(f, "kubelb_connections_repaired_total", "counter",
		   "Connections by which the agent's audit has corrected the active counts.");
	if (in->state)
		fprintf(f, "kubelb_connections_repaired_total %llu\n",
			in->state->counters.repaired);
}

/* --- from the agent -------------------------------------------------------------------- */

static void print_probes(FILE *f, const struct metrics_input *in)
{
	char text[ENDPOINT_TEXT_MAX];

	print_head(f, "kubelb_probes_total", "counter", "Probes that ended, by what they found.");
	for (unsigned int i = 0; i < in->n_probes; i++)
		for (int r = KLB_REASON_OK; r < METRICS_RESULTS; r++)
			if (in->probes[i].results[r] || r == KLB_REASON_OK)
				fprintf(f,
					"kubelb_probes_total{backend=\"%s\",result=\"%s\"} %llu\n",
					endpoint_format(&in->probes[i].backend, text),
					names_reason_key((enum klb_reason)r),
					in->probes[i].results[r]);
}

static void print_durations(FILE *f, const struct metrics_input *in)
{
	static const char name[] = "kubelb_probe_duration_seconds";
	char text[ENDPOINT_TEXT_MAX];

	print_head(f, name, "histogram", "How long a probe took, connecting included.");
	for (unsigned int i = 0; i < in->n_probes; i++) {
		const struct metrics_probe *m = &in->probes[i];
		__u64 sum = 0;

		endpoint_format(&m->backend, text);
		for (int j = 0; j < METRICS_BUCKETS; j++) {
			sum += m->buckets[j];
			fprintf(f, "%s_bucket{backend=\"%s\",le=\"%g\"} %llu\n", name, text,
				bounds[j], sum);
		}
		fprintf(f, "%s_bucket{backend=\"%s\",le=\"+Inf\"} %llu\n", name, text, m->count);
		fprintf(f, "%s_sum{backend=\"%s\"} %.17g\n", name, text, m->sum_seconds);
		fprintf(f, "%s_count{backend=\"%s\"} %llu\n", name, text, m->count);
	}
}

/* Prints a line for each backend. */
static void each_probed(FILE *f, const struct metrics_input *in, const char *name, const char *help,
			size_t offset)
{
	char text[ENDPOINT_TEXT_MAX];

	print_head(f, name, "counter", help);
	for (unsigned int i = 0; i < in->n_probes; i++)
		fprintf(f, "%s{backend=\"%s\"} %llu\n", name,
			endpoint_format(&in->probes[i].backend, text),
			*(const __u64 *)((const char *)&in->probes[i] + offset));
}

static void print_all_probes(FILE *f, const struct metrics_input *in)
{
	print_probes(f, in);
	print_durations(f, in);
	each_probed(f, in, "kubelb_probes_skipped_total",
		    "Probes left out because clients had just had data from the backend.",
		    offsetof(struct metrics_probe, skipped));
	each_probed(f, in, "kubelb_probe_pings_total",
		    "PINGs sent to the backend (HTTP/2), or GETs in their place (HTTP/1.1).",
		    offsetof(struct metrics_probe, pings));
	each_probed(f, in, "kubelb_probe_pings_unanswered_total",
		    "HTTP/2 PINGs that were not answered within pingTimeout.",
		    offsetof(struct metrics_probe, pings_unanswered));
	each_probed(f, in, "kubelb_probe_handshakes_total", "TLS handshakes made for probes.",
		    offsetof(struct metrics_probe, handshakes));
}

static void print_ended(FILE *f, const struct metrics_input *in)
{
	static const char name[] = "kubelb_connections_ended_total";
	char text[ENDPOINT_TEXT_MAX];

	print_head(f, name, "counter", "Connections that the agent has ended, by reason.");
	for (unsigned int i = 0; i < in->n_probes; i++)
		for (int why = 0; why < METRICS_ENDED; why++)
			fprintf(f, "%s{backend=\"%s\",reason=\"%s\"} %llu\n", name,
				endpoint_format(&in->probes[i].backend, text),
				metrics_ended_name((enum metrics_ended)why),
				in->probes[i].ended[why]);
}

static void print_destroyed(FILE *f, const struct metrics_input *in)
{
	each_probed(f, in, "kubelb_connections_destroyed_total",
		    "Connections that the agent has ended by SOCK_DESTROY, as no reset did.",
		    offsetof(struct metrics_probe, destroyed));
}

static void print_certificates(FILE *f, const struct metrics_input *in)
{
	static const char name[] = "kubelb_backend_certificate_expiry_timestamp_seconds";
	char text[ENDPOINT_TEXT_MAX];

	print_head(f, name, "gauge",
		   "When the certificate that the backend last showed expires, Unix time.");
	for (unsigned int i = 0; i < in->n_probes; i++)
		if (in->probes[i].certificate_expires_s)
			fprintf(f, "%s{backend=\"%s\"} %lld\n", name,
				endpoint_format(&in->probes[i].backend, text),
				in->probes[i].certificate_expires_s);
}

static void print_own_certificate(FILE *f, const struct metrics_input *in)
{
	static const char name[] = "kubelb_client_certificate_expiry_timestamp_seconds";

	print_head(f, name, "gauge",
		   "When the client certificate of the probes expires, Unix time.");
	if (in->own_expires_s)
		fprintf(f, "%s %lld\n", name, in->own_expires_s);
}

static void print_discovery_state(FILE *f, const struct metrics_input *in)
{
	static const char name[] = "kubelb_discovery_state";
	const struct klb_control *c = in->state ? &in->state->control : NULL;

	print_head(f, name, "gauge", "1 for the state that discovery is in, 0 for the others.");
	for (int d = KLB_DISCOVERY_OFF; c && d <= KLB_DISCOVERY_FAILING; d++)
		fprintf(f, "%s{state=\"%s\"} %d\n", name,
			names_discovery_key((enum klb_discovery)d), d == (int)c->discovery);
}

static void print_discovery_heard(FILE *f, const struct metrics_input *in)
{
	print_moment(f, in, "kubelb_discovery_heard_timestamp_seconds",
		     "When the cluster last said something about its apiservers, Unix time.",
		     in->state ? in->state->control.discovery_heard_ns : 0);
}

static void print_discovery(FILE *f, const struct metrics_input *in)
{
	static const char name[] = "kubelb_discovery_updates_total";

	print_head(f, name, "counter", "What the cluster said of its apiservers, by result.");
	for (int i = 0; in->discovery_results && i < DISCOVERY_RESULTS; i++)
		fprintf(f, "%s{result=\"%s\"} %llu\n", name,
			discovery_result_name((enum discovery_result)i), in->discovery_results[i]);
}

static void print_reloads(FILE *f, const struct metrics_input *in)
{
	print_head(f, "kubelb_config_reloads_total", "counter",
		   "Configuration reloads, by result.");
	fprintf(f, "kubelb_config_reloads_total{result=\"ok\"} %llu\n", in->reloads_ok);
	fprintf(f, "kubelb_config_reloads_total{result=\"error\"} %llu\n", in->reloads_failed);
	print_head(f, "kubelb_config_last_reload_successful", "gauge",
		   "0 while the configuration's file is refused and an older one is in use.");
	fprintf(f, "kubelb_config_last_reload_successful %d\n", !in->reload_refused);
	print_head(f, "kubelb_config_last_reload_success_timestamp_seconds", "gauge",
		   "When the configuration in use was read, Unix time.");
	fprintf(f, "kubelb_config_last_reload_success_timestamp_seconds %.3f\n", in->reload_time);
}

static void print_log(FILE *f, const struct metrics_input *in)
{
	print_head(f, "kubelb_log_lines_dropped_total", "counter",
		   "Lines of the log that were dropped because nobody took them.");
	fprintf(f, "kubelb_log_lines_dropped_total %llu\n", in->log_dropped);
}

/* --- of the process --- */

static unsigned int listed_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	/* ".", ".." and the descriptor of the directory itself. */
	return n > 3 ? n - 3 : 0;
}

static unsigned int open_fds(void)
{
	struct stat st;

	/* Linux 6.2 and later: the directory's size. To list thousands takes milliseconds. */
	if (!stat("/proc/self/fd", &st) && st.st_size > 0)
		return (unsigned int)st.st_size;
	return listed_fds();
}

/* The n-th number of /proc/self/statm, in bytes. */
static unsigned long statm_bytes(int n)
{
	char line[128], *at = line;
	unsigned long pages = 0;

	file_read_line("/proc/self/statm", "", line, sizeof(line));
	for (int i = 0; i <= n; i++)
		pages = strtoul(at, &at, 10);
	return pages * (unsigned long)sysconf(_SC_PAGESIZE);
}

static void print_process(FILE *f, const struct metrics_input *in)
{
	struct rlimit limit = { 0 };
	struct rusage usage = { 0 };

	getrusage(RUSAGE_SELF, &usage);
	getrlimit(RLIMIT_NOFILE, &limit);
	print_head(f, "process_cpu_seconds_total", "counter", "CPU time spent, user and system.");
	fprintf(f, "process_cpu_seconds_total %.6f\n",
		(double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
			(double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	print_head(f, "process_resident_memory_bytes", "gauge", "Resident memory.");
	fprintf(f, "process_resident_memory_bytes %lu\n", statm_bytes(1));
	print_head(f, "process_virtual_memory_bytes", "gauge", "Virtual memory.");
	fprintf(f, "process_virtual_memory_bytes %lu\n", statm_bytes(0));
	print_head(f, "process_open_fds", "gauge", "Open file descriptors.");
	fprintf(f, "process_open_fds %u\n", open_fds());
	print_head(f, "process_max_fds", "gauge", "Limit of open file descriptors.");
	fprintf(f, "process_max_fds %llu\n", (unsigned long long)limit.rlim_cur);
	print_head(f, "process_start_time_seconds", "gauge", "Start of the process, Unix time.");
	fprintf(f, "process_start_time_seconds %.3f\n", in->start_time);
	print_log(f, in);
}

static void print_build(FILE *f)
{
	print_head(f, "kubelb_build_info", "gauge", "1, with the version of the agent.");
	fprintf(f, "kubelb_build_info{version=\"%s\"} 1\n", KLB_VERSION);
}

char *metrics_format(const struct metrics_input *in, size_t *ret_length)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, ret_length);

	if (!f)
		return NULL;
	print_build(f);
	print_programs(f, in);
	print_trials(f, in);
	print_others(f, in);
	print_diverted(f, in);
	print_left_alone(f, in);
	print_features(f, in);
	print_heartbeat(f, in);
	print_maps(f, in);
	print_all_probes(f, in);
	print_ended(f, in);
	print_destroyed(f, in);
	print_certificates(f, in);
	print_own_certificate(f, in);
	print_discovery_state(f, in);
	print_discovery_heard(f, in);
	metrics_print_relay(f, in);
	print_discovery(f, in);
	print_reloads(f, in);
	print_process(f, in);
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}
