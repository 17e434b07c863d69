/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Everything that crosses between the kernel programs and user space: the keys
 * and values of the pinned maps. The maps are the only interface between
 * kubelb-load, kubelb-agent, kubelbctl and the data path.
 *
 * Conventions
 *   addresses  16 bytes as on the wire; IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2)
 *   ports      host byte order, so that `bpftool map dump` shows 6443
 *   times      nanoseconds of CLOCK_MONOTONIC (bpf_ktime_get_ns); 0 means never
 *   ids        1..KLB_MAX_IDS-1; 0 is never handed out, so an unfilled slot shows
 *   padding    explicit and zero, so that values compare with memcmp
 *
 * Evolution: a value only ever grows at its end, and KLB_ABI_VERSION goes up by
 * one. kubelb-load then carries an older map over by copying the shorter of the
 * two sizes; the new fields start at zero.
 *
 * Includes integer types only: bpf/ takes them from vmlinux.h.
 */
#ifndef KUBELB_ABI_H
#define KUBELB_ABI_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

/*
 * KLB_ABI_NEXT: what the next version will look like, for the tests of upgrades.
 * 1: whatever may grow has grown. 2: of the maps that hold the plan, only `lookup` has grown.
 */
#ifdef KLB_ABI_NEXT
#define KLB_ABI_VERSION 4
#define KLB_ABI_GROWTH __u64 grown[2];
#else
#define KLB_ABI_VERSION 3
#define KLB_ABI_GROWTH
#endif
#if defined(KLB_ABI_NEXT) && KLB_ABI_NEXT == 2
#define KLB_ABI_BACKEND_GROWTH
#else
#define KLB_ABI_BACKEND_GROWTH KLB_ABI_GROWTH
#endif

/* Limits. A frontend's candidates are walked on every connect: 64 is what the
 * budget of that walk was measured for. Ids outnumber them so that a removed
 * backend's id can rest while connections to it are still counted. */
#define KLB_MAX_FRONTENDS 16
/* One frontend, its tables and the last id are kept back for kubelb-load's test
 * connect, which must work when all others are in use. */
#define KLB_FRONTEND_SLOTS (KLB_MAX_FRONTENDS + 1)
#define KLB_MAX_BACKENDS 64
#define KLB_MAX_IDS 128

#define KLB_WEIGHT_MAX 1000
#define KLB_WEIGHT_DEFAULT 100
#define KLB_PORT_DEFAULT 6443

/* How a backend is chosen among those that may take a connection. */
enum klb_policy {
	KLB_POLICY_LEAST_CONN = 1, /* fewest active connections by weight */
	KLB_POLICY_RANDOM = 2, /* weighted random */
	KLB_POLICY_RENDEZVOUS = 3, /* highest weighted hash of node and backend */
	KLB_POLICY_LATENCY = 4, /* better of two by RTT x active connections */
};

/* Whose sockets a frontend is for. */
enum klb_scope {
	KLB_SCOPE_HOST = 1, /* the network namespace named in klb_control */
	KLB_SCOPE_ALL = 2, /* every network namespace below the cgroup */
	KLB_SCOPE_NETWORK = 3, /* as HOST; besides, the agent relays for other machines */
};

/* What the backends on this very node are to its connects. */
enum klb_local {
	KLB_LOCAL_UNKNOWN = 0, /* the maps are of a version that did not say */
	KLB_LOCAL_PREFER = 1, /* they take all connects while they serve */
	KLB_LOCAL_ONLY = 2, /* they alone take connects, whatever their state */
	KLB_LOCAL_IGNORE = 3, /* they are like all others */
};

/* What user space knows of a backend. The numbers are part of the ABI; klb_tier has the order of
 * preference. */
enum klb_state {
	KLB_STATE_UNKNOWN = 0, /* not probed yet: counts as ready */
	KLB_STATE_READY = 1, /* takes new connections */
	KLB_STATE_SUSPECT = 2, /* failed a probe, may be dead: others preferred */
	KLB_STATE_DRAINING = 3, /* alive but not ready: others preferred */
	KLB_STATE_DEAD = 4, /* unreachable */
};

/* Why a backend is in its state: the last probe's outcome. */
enum klb_reason {
	KLB_REASON_NONE = 0, /* not probed yet */
	KLB_REASON_OK = 1, /* 200 */
	KLB_REASON_NOT_READY = 2, /* answered something else than 200 */
	KLB_REASON_UNAUTHORIZED = 3, /* answered 401 or 403 */
	KLB_REASON_REFUSED = 4, /* ECONNREFUSED */
	KLB_REASON_UNREACHABLE = 5, /* no route, host down */
	KLB_REASON_CONNECT_TIMEOUT = 6, /* no answer to the SYN */
	KLB_REASON_TLS = 7, /* handshake failed */
	KLB_REASON_CERTIFICATE = 8, /* certificate does not verify */
	KLB_REASON_NO_ANSWER = 9, /* connected, but no HTTP answer in time */
	KLB_REASON_CLOSED = 10, /* connection closed or reset */
	KLB_REASON_PROTOCOL = 11, /* answered, but not HTTP */
};

/* Where the list of backends comes from: klb_control.discovery. */
enum klb_discovery {
	KLB_DISCOVERY_OFF = 0, /* the configuration's own list */
	/* The same: until the cluster has been heard, or beside the cluster's list, while no
	 * backend of that takes connections. */
	KLB_DISCOVERY_SEEDS = 1,
	KLB_DISCOVERY_CACHE = 2, /* the list of an earlier time, from disk */
	KLB_DISCOVERY_CURRENT = 3, /* as the cluster says, and it is being watched */
	KLB_DISCOVERY_FAILING = 4, /* as the cluster said last; it cannot be asked now */
};

/*
 * An address and port. Key of `frontends`.
 * addr: IPv4 as ::ffff:a.b.c.d. port: host byte order, 1..65535.
 */
struct klb_endpoint {
	__u8 addr[16] __attribute__((aligned(4)));
	__u32 port;
};

/*
 * Value of `frontends`. Written by kubelb-load and kubelb-agent: what user space
 * wants, for people to read. The kernel goes by `lookup`.
 * table: index into `candidates` of what this frontend chooses from. Several entries
 *   take turns: the one that has been idle for longest is filled, then this value
 *   points to it, so that a connect sees one set or the next and nothing between.
 *   A connect that was preempted on its way keeps its table for as many changes.
 * ids: of those candidates, for people; the kernel reads the table.
 */
struct klb_frontend {
	enum klb_policy policy;
	enum klb_scope scope;
	__u32 table;
	__u32 n_backends;
	__u16 ids[KLB_MAX_BACKENDS];
};

/*
 * Value of `lookup`, one entry: every dialled address is compared with these. A few
 * comparisons of a port cost less than a hash, above all for connects that go elsewhere.
 * Written by kubelb-load and kubelb-agent.
 * slots: how many of `at` may be in use. A frontend keeps its place for as long as
 *   it exists, and an unused place has port 0: a write that a connect overtakes can
 *   then be half done only for a frontend that comes or goes.
 * table: see klb_frontend.
 */
struct klb_lookup_entry {
	struct klb_endpoint endpoint;
	enum klb_policy policy;
	enum klb_scope scope;
	__u32 table;
};

struct klb_lookup {
	__u32 slots;
	struct klb_lookup_entry at[KLB_FRONTEND_SLOTS];
	KLB_ABI_GROWTH
};

/*
 * One backend as a connect sees it: all that the kernel needs to choose it and
 * to go there, so that a change can never pair one backend's id with another's
 * address.
 * generation: of the `backends` entry of that id.
 * weight: 0..KLB_WEIGHT_MAX after user space's plan; an operator's override in
 *   `admin` goes before it.
 * rank: -ln(hash(node, backend)) in 1/2^20, computed by user space: rendezvous
 *   takes the smallest rank/weight, so the kernel needs no logarithm.
 * ipv4: 1 when the address is IPv4, 0 for IPv6: not every socket reaches both.
 * preferred: 1: while it takes connections, it takes them all (local: prefer or only).
 */
struct klb_candidate {
	struct klb_endpoint endpoint;
	__u16 id;
	__u16 weight;
	__u32 generation;
	enum klb_state state;
	__u32 rank;
	__u16 ipv4;
	__u16 preferred;
};

/*
 * Value of `candidates`. Written by kubelb-load and kubelb-agent.
 * n: how many are valid. Here and not in klb_frontend, so that number and
 *   candidates cannot come from two different changes.
 * local: 1: the address of one of them is this node's.
 */
struct klb_candidates {
	__u16 n;
	__u16 local;
	struct klb_candidate at[KLB_MAX_BACKENDS];
};

/* The tables of a frontend lie side by side; its slot is table / KLB_TABLE_TURNS. */
#define KLB_TABLE_TURNS 4
#define KLB_MAX_TABLES (KLB_TABLE_TURNS * KLB_FRONTEND_SLOTS)
#define KLB_TABLE_SELFTEST (KLB_TABLE_TURNS * KLB_MAX_FRONTENDS)
#define KLB_ID_SELFTEST (KLB_MAX_IDS - 1)

/*
 * Value of `backends`, key: id. Written by kubelb-load and kubelb-agent: what user
 * space knows and why. The kernel goes by `candidates`.
 * generation: counts up each time an id is handed to another address.
 * last_probe_ns: when the last probe ended. since_ns: when state changed.
 * http_status: of the last answer, 0 when there was none.
 * left_ns: when it left the list; 0: it is in the list. It stays here for a while, in no
 *   frontend, so that it is the same backend when it comes back (plan.h).
 */
struct klb_backend {
	struct klb_endpoint endpoint;
	__u32 generation;
	__u32 weight;
	enum klb_state state;
	enum klb_reason reason;
	__u32 http_status;
	__u64 since_ns;
	__u64 last_probe_ns;
	__u64 left_ns;
	KLB_ABI_BACKEND_GROWTH
};

/* How a connect failed. The order is part of the ABI: klb_stats.failed is indexed by it. */
enum klb_failure {
	KLB_FAILURE_REFUSED = 0, /* a reset answered the SYN */
	KLB_FAILURE_TIMED_OUT = 1, /* nothing answered within connectTimeout */
	KLB_FAILURE_UNREACHABLE = 2, /* ICMP said so, or no SYN could leave (no route, no port) */
	KLB_FAILURE_GAVE_UP = 3, /* the client closed before an answer, after a retransmission */
	KLB_FAILURE_OTHER = 4,
	KLB_FAILURES = 5,
};

/* Outlier detection, what the kernel itself has seen of a backend: klb_stats.evidence. */
enum klb_evidence {
	KLB_EVIDENCE_NONE = 0,
	KLB_EVIDENCE_SUSPECT = 1, /* a SYN had to be sent again */
	KLB_EVIDENCE_EJECTED = 2, /* a connect failed, a peer was lost, or closed early */
	KLB_EVIDENCE_TRIAL = 3, /* half-open: the ejection is over and one connect is trying */
};

/* An ejection takes so long, doubling with each that follows without a success. */
#define KLB_EJECT_MIN_NS 1000000000ULL
#define KLB_EJECT_MAX_NS 60000000000ULL

/*
 * Value of `stats`, index: id. Written by the kernel; user space zeroes an
 * entry only when it hands the id to another address. What a choice reads comes first.
 * active: connections established and not yet closed.
 * connecting: SYN sent, outcome open.
 * ejected_until_ns: others are preferred until then, for the reason in evidence.
 * ejected_ns: when the ejection in evidence began. held_ms: its ordinary period while it is held:
 *   it lasts for KLB_EJECT_MAX_NS unless the agent reaches the backend (KLB_ADJUST_REACHED); 0: it
 *   is not held.
 * srtt_us: smoothed round trip time over handshakes and ended connections.
 * streak: consecutive ejections by trusted reporters, since the last success; counted up to 6.
 * answered_until: until when last_answer_ns counts for the backend, in 2^KLB_ANSWERED_SHIFT
 *   ns; 0: not at all, as a connect has failed since.
 * opened: connections that were established. failed: connects that were not, by reason.
 * lost: established connections that ended because the peer stopped answering.
 * closed_early: established connections that the peer ended before it sent any data, since a
 *   client last had data. While it is not 0, a connect that succeeds is no proof that the
 *   backend works: data is.
 * silent: the same, of established connections that had no byte of data for a second although the
 *   client has sent some.
 * ejections, suspected: how often evidence became that.
 * connect_ns: sum of the time from SYN to established over `opened`.
 * last_success_ns, last_failure_ns: when a connect last ended so, or (failure) a peer was
 *   lost. The backend's kernel completes connects even while its process hangs.
 * last_answer_ns: when a client last had data from it, to about a tenth of a second, as
 *   far as the client then sent something itself or closed.
 * generation: of the backend that these counters are about. A socket of another generation
 *   changes none of them. Written by user space, with the zeroes.
 */
#define KLB_ANSWERED_SHIFT 30 /* about a second */

struct klb_stats {
	__u64 active;
	__u64 connecting;
	__u64 ejected_until_ns;
	__u32 srtt_us;
	enum klb_evidence evidence;
	__u32 streak;
	__u32 answered_until;
	__u64 opened;
	__u64 failed[KLB_FAILURES];
	__u64 lost;
	__u64 ejections;
	__u64 suspected;
	__u64 last_success_ns;
	__u64 last_failure_ns;
	__u64 connect_ns;
	__u64 last_answer_ns;
	__u32 generation;
	__u32 closed_early;
	__u64 ejected_ns;
	__u32 held_ms;
	__u32 silent;
	KLB_ABI_GROWTH
};

/*
 * Value of `admin`, index: id. Written by kubelbctl alone, but for what the agent
 * brings along from a time when it was the data path.
 * generation: of the backend that this is about; when it is not the one of the candidate,
 *   another backend has the id and this entry means nothing.
 */
struct klb_admin {
	__u32 generation;
	__u32 drained; /* 1: no new connections while another backend is left */
	__u32 weight_set; /* 1: weight below goes before the planned one */
	__u32 weight; /* 0..KLB_WEIGHT_MAX */
	KLB_ABI_GROWTH
};

/*
 * Features that a rewritten connect does not need, so that a kernel may refuse them.
 * The order is part of the ABI: klb_control.refused is indexed by it.
 */
enum klb_feature {
	KLB_FEATURE_GETPEERNAME = 0, /* the programs klb_getpeer4 and klb_getpeer6 */
	KLB_FEATURE_SOCKOPS = 1, /* the program klb_sockops */
	KLB_FEATURE_WAKEUP = 2, /* the map `wakeup` */
	KLB_FEATURE_ADJUST = 3, /* the program klb_adjust */
	KLB_FEATURE_CASTS = 4, /* programs that call the kernel's own functions */
	KLB_FEATURES = 8,
};

/* How far a time that another CPU has written may be ahead of now: of a clock that counts jiffies.
 */
#define KLB_CLOCK_SLACK_NS 1000000000ULL

/* Why a part of the relay is off. */
enum klb_relay_off {
	KLB_RELAY_ON = 0,
	KLB_RELAY_OFF_CONFIG = 1, /* the configuration says so */
	KLB_RELAY_OFF_KERNEL = 2, /* it has no policy routing, or has refused klb_sockops */
	KLB_RELAY_OFF_TAKEN = 3, /* somebody else uses the mark or the table */
	KLB_RELAY_OFF_PRIVILEGE = 4, /* CAP_NET_ADMIN is missing */
	KLB_RELAY_OFF_LOCAL = 5, /* the ports of all backends are those of this node's own */
	KLB_RELAY_OFF_NETNS = 6, /* the agent is in another network namespace */
	KLB_RELAY_OFF_ADDRESS = 7, /* somebody listens on a backend's address, or loopback is off */
	KLB_RELAY_OFF_ALONE = 8, /* there is no other backend that could take a connect */
	KLB_RELAY_OFF_OTHER = 9, /* see the agent's log */
	KLB_RELAY_OFFS,
};

/*
 * What the agent's relay can take, all zero for none. It takes a connect only in the host's network
 * namespace, and only with an entry in `relayed`.
 * mark: SO_MARK for a socket whose backend leaves its SYN unanswered; 0: no rescue. Packets that
 *   have it are delivered on this host (ip rule, route `local default`).
 * port4, port6: of its listeners at 127.0.0.1 and ::1, for connects that cannot reach a backend
 *   themselves; 0: none.
 * stands_in: a bit for each id: the relay listens on the backend's own address, and the rule is
 *   there. Without it a marked SYN would be answered by a reset.
 * active, rescue_off, detour_off: for status: relayed connections; enum klb_relay_off.
 */
struct klb_relay {
	__u32 mark;
	__u16 port4;
	__u16 port6;
	__u64 stands_in[KLB_MAX_IDS / 64];
	__u32 active;
	__u16 rescue_off;
	__u16 detour_off;
};

/*
 * Value of `control`, one entry. Written by whoever holds the lock, field by field: the agent's own
 * fields (heartbeat_ns, heartbeat_max_age_ns, ends_ejections, discovery, discovery_heard_ns and
 * relay) are written by the agent alone, without the lock.
 * abi_version always stays first: it says how to read the rest.
 * connect4_prog: id of the program that links/connect4 runs once the load that made these
 *   maps the ones in use is complete; 0: not known. A process that may not ask the kernel for
 *   a program's maps (CAP_SYS_ADMIN) compares it to see whether these maps are still in use.
 * host_netns_cookie: SO_NETNS_COOKIE of the namespace that kubelb-load ran in, as the kernel
 *   says in klb_counters.selftest. host_netns: inode number of the same, for user space.
 * heartbeat_ns: when the agent last wrote it; 0 when no agent ever ran.
 * heartbeat_max_age_ns: with an older heartbeat the agent's states do not count, nor with one that
 *   is more than KLB_CLOCK_SLACK_NS ahead of the kernel's clock.
 * config_serial: counts up with every configuration applied, so that an agent
 *   notices that kubelb-load has changed what it runs on.
 * tick_ns, tick_offset_ns: tick_ns is the length of a jiffy, the kernel's clock tick (1/CONFIG_HZ
 *   s). CLOCK_MONOTONIC is jiffies64 * tick_ns + tick_offset_ns, to the jiffy: a clock that costs
 *   one load and not a call.
 * seed: random, one for each attachment, so that nodes that boot at the same time do not make
 *   the same choices.
 * connect_timeout_ms: how long one backend may leave a SYN unanswered; 0: as the host has it.
 * dead_peer_timeout_ms: TCP_USER_TIMEOUT and keepalive of established connections;
 *   0: they are left alone.
 * local: for people; the kernel goes by klb_candidate.preferred.
 * discovery, discovery_heard_ns: the agent's, for status; when the cluster last said
 *   something about its apiservers.
 * refused: by enum klb_feature: the errno with which the kernel has refused what the feature
 *   takes, at the last load; 0: it is in force.
 * ends_ejections: 1: the agent's heartbeat says that it can run klb_adjust: ejections last until
 *   it has reached the backend.
 * detached: 1: `kubelb-load --detach` removes this attachment. An agent that still holds the map
 *   tells it from pins that were lost, and does not attach again.
 * relay: counts only while the heartbeat does.
 */
struct klb_control {
	__u32 abi_version;
	__u32 connect4_prog;
	__u64 host_netns_cookie;
	__u64 heartbeat_ns;
	__u64 heartbeat_max_age_ns;
	__u64 config_serial;
	__u64 config_applied_ns;
	__u64 tick_ns;
	__u64 tick_offset_ns;
	__u64 seed;
	__u32 connect_timeout_ms;
	__u32 dead_peer_timeout_ms;
	enum klb_discovery discovery;
	__u32 detached;
	__u64 discovery_heard_ns;
	__u64 host_netns;
	__u16 refused[KLB_FEATURES];
	enum klb_local local;
	__u32 ends_ejections;
	struct klb_relay relay;
	KLB_ABI_GROWTH
};

/*
 * Constants of one load, which kubelb-load sets before the kernel sees the programs (the
 * verifier drops what they rule out). They are in no pinned map: each version has its own.
 * sockops, wakeup: 1: that feature is in force.
 * version: of kubelb-load, with a NUL behind it; for people.
 */
#define KLB_OPTIONS_VERSION_MAX 56

struct klb_options {
	__u32 sockops;
	__u32 wakeup;
	char version[KLB_OPTIONS_VERSION_MAX];
};

/*
 * Value of `counters`, one entry. Written by the kernel: connects to a frontend
 * that went through untouched, by cause; and what concerns no single backend.
 * repaired: connections that the agent has added to or taken from `active` and `connecting`
 *   because the sockets' records said so (reconcile).
 * events: how many were ever written to `events`; the newest is number events - 1.
 * other_netns: sockets that are part of `active` or `connecting` and live outside of the
 *   host's network namespace.
 * selftest: of kubelb-load's last test connect.
 * diverted: connects whose SYN went elsewhere than to the chosen backend: another program had
 *   rewritten the address after KubeLB's. diverted_to: where the last of them went; for people,
 *   may be of two connects at the same time.
 * tests_left_alone: test connects (KLB_SOCKET_REPAIR) that a rule left alone, which count in none
 * of the first counters.
 */
struct klb_selftest {
	__u64 netns_cookie; /* of the namespace that it came from */
	__u64 jiffies; /* and the two clocks at that moment */
	__u64 now_ns;
};

struct klb_counters {
	__u64 skipped_loopback_source; /* bound to 127/8 or ::1: cannot leave */
	__u64 skipped_no_backend; /* no candidate that this socket can reach */
	__u64 skipped_other_netns; /* scope host, and a foreign namespace */
	__u64 repaired;
	__u64 events;
	__u64 skipped_own_listener; /* dialled by the server that listens there */
	__u64 other_netns;
	struct klb_selftest selftest;
	__u64 diverted;
	struct klb_endpoint diverted_to;
	__u32 tests_left_alone;
	KLB_ABI_GROWTH
};

/* The phase of a balanced socket. */
enum klb_phase {
	KLB_PHASE_NEW = 0, /* chosen, no SYN yet: counted nowhere */
	KLB_PHASE_CONNECTING = 1, /* part of stats[id].connecting */
	KLB_PHASE_ACTIVE = 2, /* part of stats[id].active */
	KLB_PHASE_ENDED = 3, /* counted nowhere */
	/* Goes to the relay: counted nowhere. The relay's own socket is, at the backend that
	   serves. */
	KLB_PHASE_RELAYED = 4,
};

/* klb_socket.flags, klb_route.flags */
/* Trusted reporter: its outcome counts. A socket of the host's network namespace without a
 * device, a mark, a source address or a port of its own, and when it fails without a filter; root's
 * while an agent runs, anybody's without. */
#define KLB_SOCKET_TRUSTED 1u
/* The record was made in the connect hook; its SYN leaves later. */
#define KLB_SOCKET_EARLY 2u
/* Its SYN was sent more than once. */
#define KLB_SOCKET_RETRANSMITTED 4u
/* KubeLB has set the number of SYNs and their timer. */
#define KLB_SOCKET_SYN_TIMER 8u
/* KubeLB has switched keepalive on. */
#define KLB_SOCKET_KEEPALIVE 16u
/* Untrusted reporter: as TRUSTED, but of another user, who can make a connect fail on purpose
 * (with a socket filter, say). It counts once in a while. */
#define KLB_SOCKET_UNTRUSTED 32u
/* The peer's window is shut: KubeLB's TCP_USER_TIMEOUT is lifted. */
#define KLB_SOCKET_SHUT 64u
/* Of another network namespace than the host's. */
#define KLB_SOCKET_OTHER_NETNS 128u
/* Counted in klb_stats.closed_early. */
#define KLB_SOCKET_CLOSED_EARLY 256u
/* Under TCP_REPAIR, which sends no packet. With this SO_PRIORITY it is a test connect of user
 * space; both take CAP_NET_ADMIN. A test is counted nowhere and says nothing about the backend; its
 * record (KLB_PHASE_ENDED) says which backend it got. */
#define KLB_SOCKET_REPAIR 512u
#define KLB_TEST_PRIORITY 0x6b6c6274 /* "klbt" */
/* The record holds the sequence numbers with which the connection began. */
#define KLB_SOCKET_SEQUENCES 1024u
/* KubeLB has set the times of keepalive: until the first probe, and between two. */
#define KLB_SOCKET_KEEPIDLE 2048u
#define KLB_SOCKET_KEEPINTVL 4096u
/* KubeLB has set its mark, so that the relay answers its next SYN (klb_socket.mark). */
#define KLB_SOCKET_MARKED 8192u
/* It cannot reach a backend itself: it was sent to the relay's listener, which is `backend`. */
#define KLB_SOCKET_DETOURED 16384u
/* The relay's own, to the backend. The agent has made the record, before the connect, with the
 * owner of the client that it serves. */
#define KLB_SOCKET_UPSTREAM 32768u
/* What KubeLB has set on the socket, which stays set when it connects again. */
#define KLB_SOCKET_OPTIONS                                                   \
	(KLB_SOCKET_SYN_TIMER | KLB_SOCKET_KEEPALIVE | KLB_SOCKET_KEEPIDLE | \
	 KLB_SOCKET_KEEPINTVL | KLB_SOCKET_MARKED)

/*
 * Value of `sockets`, the record of a balanced socket. Written by the kernel. It ends with
 * the socket (BPF_MAP_TYPE_SK_STORAGE), so it cannot become stale as an entry of a table
 * keyed by address or cookie can.
 * frontend: what the client dialled; getpeername returns it.
 * user_timeout_ms: the TCP_USER_TIMEOUT that KubeLB has set, 0 for none. While the socket has
 *   this value, the application has not set its own.
 * pid, comm, cgroup_id: of the process that connected (in the host's pid namespace).
 * connect_ns: of the SYN. established_ns: 0 until then.
 * send_base: the sequence number of the SYN. receive_base: of the first byte of the peer's, once
 *   established. tcp_info's counts of bytes added to them are the numbers of this moment, with
 *   which a segment looks as the peer's own (KLB_SOCKET_SEQUENCES).
 * mark: that KubeLB has set (KLB_SOCKET_MARKED).
 * reserved: for later versions. This value alone must never change its size: the
 *   kernel has no way to carry the records of open sockets from one map to another.
 */
struct klb_socket {
	struct klb_endpoint frontend;
	struct klb_endpoint backend;
	__u32 id;
	__u32 generation;
	enum klb_phase phase;
	__u32 flags;
	__u32 user_timeout_ms;
	__u32 pid;
	__u64 connect_ns;
	__u64 established_ns;
	__u64 cgroup_id;
	char comm[16];
	__u32 send_base;
	__u32 receive_base;
	__u32 mark;
	__u32 reserved32;
	__u64 reserved[2];
};

/* Why a connect goes to the relay. */
enum klb_relayed_from {
	KLB_RELAYED_RETRANSMIT = 1, /* its backend left its SYN unanswered */
	KLB_RELAYED_UNREACHABLE = 2, /* the socket cannot reach any backend itself */
};

/*
 * Key of `relayed`: the two ends of a connection as the relay's accepted socket sees them, in the
 * host's network namespace. IPv4 as ::ffff:a.b.c.d, whatever the client's socket is.
 * local: the address of the relay's listener: the backend's own, or the loopback one.
 */
struct klb_relayed_key {
	struct klb_endpoint client;
	struct klb_endpoint local;
};

/*
 * Value of `relayed`: a client that the kernel programs have sent to the relay. Written by them
 * before the relay can accept it (its own handshake ends, or its SYN leaves, after that); taken out
 * by the relay. A connection without an entry was made by somebody else, and is refused. The
 * oldest give way when it is full.
 * frontend: what the client dialled.
 * backend, id, generation: that left the SYN unanswered; all zero for UNREACHABLE.
 * pid, comm, cgroup_id: see klb_socket. time_ns: when it was written.
 */
#define KLB_RELAYED_SLOTS 4096

struct klb_relayed {
	struct klb_endpoint frontend;
	struct klb_endpoint backend;
	__u32 id;
	__u32 generation;
	enum klb_relayed_from from;
	__u32 pid;
	__u64 cgroup_id;
	__u64 time_ns;
	char comm[16];
	KLB_ABI_GROWTH
};

/* A choice. chosen_ns: when, to the jiffy. */
struct klb_route {
	struct klb_endpoint frontend;
	struct klb_endpoint backend;
	__u32 id;
	__u32 generation;
	__u32 flags;
	__u32 pad;
	__u64 chosen_ns;
};

/*
 * Value of `pending`: a choice on its way from the connect program to the sock_ops
 * program, which runs for the same socket when the SYN leaves, and makes the record.
 * Index: the socket's number modulo KLB_PENDING_SLOTS. Kernel only.
 * number: the inode number of the socket's file; 0: free; KLB_PENDING_CLAIMED: being filled.
 * turn: counts the connects that used this entry, so that a socket that tries again gets
 *   other random bits.
 * left: room for the record of an abandoned route, which the stack does not have. Before
 *   Linux 5.11 it also holds the owner (pid, comm, cgroup_id), which klb_sockops cannot read
 *   there; later, only the socket itself, when it connects again, says whose the route was.
 */
#define KLB_PENDING_SLOTS 64
#define KLB_PENDING_CLAIMED (~0ULL)

struct klb_pending {
	__u64 number;
	__u32 turn;
	__u32 pad;
	struct klb_route route;
	struct klb_socket left;
};

/*
 * Value of `ending`, index: cookie modulo KLB_ENDING_SLOTS: the cookie of a socket to which user
 * space is about to send a reset in its backend's name, so that klb_sockops holds that against
 * nobody. Written by the agent and kubelbctl; a place that two need at once keeps the later one.
 */
#define KLB_ENDING_SLOTS 1024

enum klb_event_kind {
	KLB_EVENT_CONNECT_FAILED = 1,
	KLB_EVENT_SUSPECT = 2, /* a SYN had to be sent again */
	KLB_EVENT_EJECTED = 3,
	KLB_EVENT_RESTORED = 4, /* a connect succeeded; after CLOSED_EARLY: data came */
	KLB_EVENT_PEER_LOST = 5, /* an established connection: the peer stopped answering */
	KLB_EVENT_CLOSED_EARLY = 6, /* an established connection: ended by the peer without data */
	KLB_EVENT_STALLED = 7, /* an established connection: data had to be sent again */
	KLB_EVENT_SILENT = 8, /* an established connection: no data for a second, says the agent */
	/* A SYN had to be sent again, and the relay does not stand in for the backend yet. Any
	 * user's, once a second for each backend; without klb_relay.mark none. */
	KLB_EVENT_UNANSWERED = 9,
};

/*
 * Value of `events`, index: number modulo KLB_EVENTS. Written by the kernel. Any number of
 * readers can follow it, each at its own position, and a new reader sees the last ones. A
 * BPF ring buffer has one reader, which takes the events away from all others.
 * number: of the event, plus 1; 0 while the entry is being written. A reader copies,
 *   and looks at the number once more.
 * ejected_ns: for how long (KLB_EVENT_EJECTED).
 * latency_ns: since the SYN. pid, comm, cgroup_id: see klb_socket.
 */
#define KLB_EVENTS 256

struct klb_event {
	__u64 number;
	__u64 time_ns;
	__u64 latency_ns;
	__u64 ejected_ns;
	__u64 cgroup_id;
	struct klb_endpoint backend;
	__u32 id;
	enum klb_event_kind kind;
	enum klb_failure failure;
	__u32 pid;
	char comm[16];
	__u32 pad;
	KLB_ABI_GROWTH
};

/*
 * The programs' own memory (.bss), zero after each load.
 * listens_known: 1: `listens` is complete; until then any port may have a listener. Written
 *   by kubelb-load, once klb_sockops sees every new listener and the old ones are listed;
 *   cleared by the next load, before it replaces the first program.
 * has_early, has_marked: 1: there have been records that were made in the connect hook, sockets
 *   that KubeLB has marked. has_leftovers: either, for a connect to look at in one load.
 * chosen_ns: when a choice was last stored in `pending`, to the jiffy: older ones were not left
 *   behind just now. Written once in a jiffy.
 * listens: 1: a server listens, or has listened, on one of the TCP ports n with this index,
 *   n % KLB_LISTEN_SLOTS. Written by klb_sockops and kubelb-load; never cleared, so that neither
 *   can undo what the other has just written.
 * stalled_ns, unanswered_ns: by id: when the last KLB_EVENT_STALLED, KLB_EVENT_UNANSWERED was
 *   written. Written by klb_sockops.
 * reporters: by key % KLB_REPORTERS; two that share a place take it from each other. Written by
 *   klb_sockops and the connect programs.
 */
#define KLB_LISTEN_SLOTS 4096
#define KLB_REPORTERS 256

/*
 * How the connects of one cgroup fare: a policy of that cgroup makes all of them fail, and says
 * nothing about any backend.
 * key: the id of the cgroup; in the root cgroup the process, KLB_REPORTER_PROCESS + its pid.
 * blamed_ns: when a failure of it last ejected a backend. blamed: which (KLB_WHICH).
 * failures: since its last success, up to KLB_REPORTER_SURE; 0: its last connect succeeded.
 * failed: the backend that they were at (KLB_WHICH); KLB_REPORTER_SEVERAL: at more than one.
 */
#define KLB_REPORTER_SURE 5
#define KLB_REPORTER_SEVERAL (~0u)
/* A backend for good, not the one that has its id by now. */
#define KLB_WHICH(id, generation) ((generation) << 8 | (id))
#define KLB_REPORTER_PROCESS (1ULL << 63)

struct klb_reporter {
	__u64 key;
	__u64 blamed_ns;
	__u32 blamed;
	__u32 failed;
	__u32 failures;
	__u32 pad;
};

struct klb_memory {
	__u32 listens_known;
	union {
		struct {
			__u16 has_early;
			__u16 has_marked;
		};
		__u32 has_leftovers;
	};
	__u64 chosen_ns;
	__u8 listens[KLB_LISTEN_SLOTS];
	__u64 stalled_ns[KLB_MAX_IDS];
	__u64 unanswered_ns[KLB_MAX_IDS];
	struct klb_reporter reporters[KLB_REPORTERS];
};

/* What klb_adjust changes of what the kernel itself writes. */
enum klb_adjust_what {
	/* Adds to counters, atomically. kubelb-load adds, after an upgrade that had to copy
	 * `stats`, what the old copy has changed since. The agent adds what counters and records
	 * differ by (reconcile; repair: 1). */
	KLB_ADJUST_COUNTS = 0,
	/* The agent's new connection, begun at reached_ns, was answered: an ejection that began
	 * earlier and is held lasts for its ordinary period. */
	KLB_ADJUST_REACHED = 1,
	/* A client's connection is silent, says the agent: see klb_stats.silent. Of its record. */
	KLB_ADJUST_SILENT = 2,
};

/* Argument of the program klb_adjust. Its size stays: a program wants all of it. */
struct klb_adjustment {
	__u32 id;
	__u32 generation;
	__u32 repair;
	enum klb_adjust_what what;
	union {
		struct {
			__s64 active;
			__s64 connecting;
			__u64 opened;
			__s64 other_netns; /* of klb_counters */
		};
		__u64 reached_ns;
		struct {
			__u64 cgroup_id;
			__u32 pid;
			__u32 flags;
			char comm[16];
		} silent;
	};
};

/*
 * What the program klb_release writes for each balanced socket of a network namespace: this letter,
 * plus the bits of what is so.
 */
#define KLB_RELEASED 0x60
#define KLB_RELEASED_OTHER_NETNS 2 /* part of klb_counters.other_netns */
#define KLB_RELEASED_FAILED 4 /* something could not be given back */

#define KLB_ASSERT_SIZE(type, size) \
	_Static_assert(sizeof(struct type) == (size), #type " changed: raise KLB_ABI_VERSION")
#define KLB_ASSERT_AT(type, field, off)                                 \
	_Static_assert(__builtin_offsetof(struct type, field) == (off), \
		       #type "." #field " moved: raise KLB_ABI_VERSION")

#ifndef KLB_ABI_NEXT
KLB_ASSERT_SIZE(klb_endpoint, 20);
KLB_ASSERT_SIZE(klb_candidate, 40);
KLB_ASSERT_SIZE(klb_candidates, 4 + 40 * KLB_MAX_BACKENDS);
KLB_ASSERT_SIZE(klb_frontend, 16 + 2 * KLB_MAX_BACKENDS);
KLB_ASSERT_SIZE(klb_lookup, 4 + 32 * KLB_FRONTEND_SLOTS);
KLB_ASSERT_SIZE(klb_backend, 64);
KLB_ASSERT_SIZE(klb_stats, 168);
KLB_ASSERT_SIZE(klb_admin, 16);
KLB_ASSERT_SIZE(klb_control, 160);
KLB_ASSERT_SIZE(klb_counters, 112);
KLB_ASSERT_SIZE(klb_event, 96);
KLB_ASSERT_SIZE(klb_relayed, 88);
#endif
KLB_ASSERT_SIZE(klb_relay, 32);
KLB_ASSERT_SIZE(klb_relayed_key, 40);
KLB_ASSERT_SIZE(klb_socket, 136);
KLB_ASSERT_SIZE(klb_pending, 216);
KLB_ASSERT_SIZE(klb_route, 64);
KLB_ASSERT_SIZE(klb_adjustment, 48);
KLB_ASSERT_AT(klb_frontend, ids, 16);
KLB_ASSERT_AT(klb_candidate, id, 20);
KLB_ASSERT_AT(klb_backend, generation, 20);
KLB_ASSERT_AT(klb_backend, since_ns, 40);
KLB_ASSERT_AT(klb_stats, ejected_until_ns, 16);
KLB_ASSERT_AT(klb_stats, opened, 40);
KLB_ASSERT_AT(klb_control, abi_version, 0);
KLB_ASSERT_AT(klb_control, host_netns_cookie, 8);
KLB_ASSERT_AT(klb_event, backend, 40);

#endif
