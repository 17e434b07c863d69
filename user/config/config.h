/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The configuration: turns bytes into a validated snapshot. It uses no maps and no sockets. A
 * snapshot is complete (all defaults are filled in) and never changes; a reload makes a new one.
 */
#ifndef KUBELB_CONFIG_H
#define KUBELB_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include <kubelb/abi.h>

#include "base/err.h"
#include "base/file.h"
#include "net/cidr.h"

#define CONFIG_PATH_DEFAULT "/etc/kubelb/kubelb.yaml"
/* Where the agent takes orders while it is the data path, if http names no Unix socket. */
#define CONFIG_HTTP_SOCKET_DEFAULT "/run/kubelb/agent.sock"
/* A configuration has a few hundred bytes. A larger file is something else. */
#define CONFIG_BYTES_MAX (1024 * 1024)

struct config_frontend {
	struct klb_endpoint endpoint;
	enum klb_scope scope;
};

/* Who may connect from another machine, to a frontend of KLB_SCOPE_NETWORK. */
#define CONFIG_ALLOW_MAX 32
struct config_access {
	unsigned int n_allow; /* not 0 */
	struct cidr allow[CONFIG_ALLOW_MAX];
};

/* Who carries connects to a backend. */
enum config_data_path {
	CONFIG_DATA_PATH_AUTO = 1, /* the kernel; the agent where the kernel refuses to */
	CONFIG_DATA_PATH_KERNEL = 2, /* the kernel or nobody */
	CONFIG_DATA_PATH_RELAY = 3, /* the agent */
};

struct config_backend {
	struct klb_endpoint endpoint;
	unsigned int weight; /* 0..KLB_WEIGHT_MAX */
};

struct config_probe {
	char *path; /* begins with '/' */
	char *live_path;
	unsigned int interval_ms;
	unsigned int timeout_ms;
	unsigned int ping_ms, ping_timeout_ms; /* of HTTP/2 PINGs */
	unsigned int
		connect_timeout_ms; /* config.connect_timeout_ms, for the probe's own connect */
	unsigned int rise; /* successes in a row that make a backend ready */
	unsigned int fall; /* failures in a row that make it dead */
	char *ca; /* file; NULL: the system's trust store */
	bool insecure_skip_verify;
	char *server_name; /* NULL: the backend's address */
	char *client_cert; /* file, or NULL; always together with client_key */
	char *client_key;
	bool anonymous_auth; /* false: the apiservers run with --anonymous-auth=false */
	struct file_identity ca_seen, client_cert_seen, client_key_seen; /* by config_load */
};

/* What the agent relays: connects that cannot go straight. */
struct config_relay {
	unsigned int drain_ms; /* what is relayed may finish for so long when the agent ends */
	unsigned int connections; /* at most, at the same time */
	unsigned int per_source; /* of one address on another machine; 0: no limit */
	bool rescue; /* connects whose backend does not answer the SYN */
	bool detour; /* connects of sockets that can reach no backend */
	__u32 mark, mask; /* of rescued sockets, as in ip-rule(8): fwmark MARK/MASK */
	__u32 table; /* the routing table that delivers them locally */
};

struct config {
	char *source; /* file name, or "command line" */
	struct file_identity source_seen; /* by config_load */
	unsigned int n_frontends;
	struct config_frontend frontends[KLB_MAX_FRONTENDS];
	struct config_access access[KLB_MAX_FRONTENDS]; /* by index of frontends */
	unsigned int n_backends;
	struct config_backend backends[KLB_MAX_BACKENDS];
	enum klb_policy policy;
	enum klb_local local;
	enum config_data_path data_path;
	unsigned int connect_timeout_ms;
	unsigned int dead_peer_timeout_ms; /* 0: the client's socket is left as it is */
	unsigned int
		slow_start_ms; /* 0: a backend that has come back gets its full weight at once */
	bool rebalance;
	struct config_probe probe;
	struct config_relay relay;
	bool discovery; /* the section exists */
	char *discovery_kubeconfig; /* NULL: in-cluster credentials */
	char *discovery_cache; /* file, or NULL */
	bool http_enabled;
	struct klb_endpoint http;
	char *http_socket; /* path of a Unix socket, or NULL */
	char *cgroup; /* NULL: the root of the cgroup2 mount */
};

/*
 * Reads and validates a file. host_has_ipv6 decides whether [::1]:6443 is a default frontend.
 * Returns 0 with a snapshot, which the caller frees with config_free. On failure returns a negative
 * errno with e as `FILE:LINE: KEY: what is wrong; what next`: -EINVAL for the content, -ENOENT,
 * -EACCES and the like for the file itself. *ret is unchanged on failure. The identities (..._seen)
 * of the files are older than what was read, by this function or by those who read the named files.
 */
int config_load(const char *path, bool host_has_ipv6, struct config **ret, struct err *e);

/* The same from memory. source is the file's name in messages. */
int config_parse(const char *text, size_t length, const char *source, bool host_has_ipv6,
		 struct config **ret, struct err *e);

/*
 * The same from the arguments of -f and -b: `ADDR:PORT`, `ADDR[:PORT][,weight=N]`. n_frontends 0
 * means the default frontends. No agent reads them, so the data path is the kernel's.
 */
int config_from_args(const char *const *frontends, size_t n_frontends, const char *const *backends,
		     size_t n_backends, bool host_has_ipv6, struct config **ret, struct err *e);

/*
 * Makes a copy of c whose backends are the n of list (n 0: those of c). Backends that c has too
 * keep their weight; the others get the default. Returns 0, or -ENOMEM with e.
 */
int config_with_backends(const struct config *c, const struct klb_endpoint *list, unsigned int n,
			 struct config **ret, struct err *e);

/*
 * Whether everything that the persistent probe connection depends on is the same, apart from the
 * files' contents.
 */
bool config_same_connection(const struct config *x, const struct config *y);
/* Whether also everything else is that probes depend on. */
bool config_same_probe(const struct config *x, const struct config *y);
/* Whether everything that discovery depends on is the same, apart from the files' contents. */
bool config_same_discovery(const struct config *x, const struct config *y);

/*
 * Prints c as a document that makes the same snapshot: every key with its value, a comment behind
 * each that is a default. Of files the names alone. host_has_ipv6: as for config_load. Returns 0
 * with a text that the caller frees, or a negative errno with e.
 */
int config_print(const struct config *c, bool host_has_ipv6, char **ret, struct err *e);

/* NULL is allowed. */
void config_free(struct config *c);

/*
 * Converts a duration in Go's syntax ("500ms", "5s", "1m30s", "1.5s", "0") to milliseconds. Returns
 * 0, or -EINVAL for a text that is no duration, is negative, is finer than a millisecond or exceeds
 * UINT_MAX.
 */
int config_duration_ms(const char *text, unsigned int *ret);

/* Copies the backends' addresses, in their order. ret has KLB_MAX_BACKENDS elements. */
void config_endpoints(const struct config *c, struct klb_endpoint *ret);

/* Whether one of the backends has this address. */
bool config_has_backend(const struct config *c, const struct klb_endpoint *endpoint);

/* The names in the configuration; "invalid" for an invalid value. */
const char *config_policy_name(enum klb_policy policy);
const char *config_scope_name(enum klb_scope scope);
const char *config_local_name(enum klb_local local);
const char *config_data_path_name(enum config_data_path data_path);

#endif
