/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host's network namespace: the one that kubelb-load has run in. Its connects are balanced, and
 * those of other namespaces (scope host) are not.
 */
#include "datapath/load.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "net/netns.h"

#define WHAT_TO_DO                                                                      \
	"run it there (a pod: with hostNetwork: true), or move the balancer here with " \
	"--this-netns"

bool datapath_is_host_netns(const struct klb_control *c)
{
	const struct netns_id host = { c->host_netns, c->host_netns_cookie }, own = netns_self();

	/* A first load that was killed has noted nothing; without /proc nothing can be compared. */
	return (!host.inode && !host.cookie) || (!own.inode && !own.cookie) ||
	       netns_same(&host, &own);
}

int datapath_describe_netns(const struct klb_control *c, char *ret, unsigned long size)
{
	return snprintf(ret, size, "net:[%llu] is balanced, and this is net:[%llu]", c->host_netns,
			netns_self().inode);
}

void control_read(int fd, const struct bpf_map_info *info, struct klb_control *ret)
{
	char value[4096];
	__u32 zero = 0;

	memset(ret, 0, sizeof(*ret));
	if (fd < 0 || info->value_size > sizeof(value) || bpf_map_lookup_elem(fd, &zero, value))
		return;
	memcpy(ret, value, info->value_size < sizeof(*ret) ? info->value_size : sizeof(*ret));
}

/* " (that of PID 812, kubelet)", or "". */
static void describe_process(__u32 pid, char *ret, size_t size)
{
	char path[64], name[32];

	ret[0] = '\0';
	snprintf(path, sizeof(path), "/proc/%u/comm", pid);
	if (pid && file_read_line(path, "", name, sizeof(name)))
		snprintf(ret, size, " (that of PID %u, %s)", pid, name);
}

static int refuse(const struct datapath_load *l, const struct klb_control *c,
		  enum netns_presence presence, __u32 pid, struct err *e)
{
	char who[96];

	describe_process(pid, who, sizeof(who));
	return err_set(
		e, EXDEV,
		"%s: the balancer belongs to another network namespace, net:[%llu]%s; this one is "
		"net:[%llu], and loading here would leave that one's connects "
		"unbalanced%s: " WHAT_TO_DO,
		l->pin_dir, c->host_netns, who, netns_self().inode,
		presence == NETNS_UNSEEN ? " (if it still exists: that cannot be seen from here)"
					 : "");
}

/*
 * The machine's own namespace may take the balancer from one that cannot be found: pods without
 * hostNetwork leave such records behind.
 */
int load_check_netns(struct datapath_load *l, bool take, struct err *e)
{
	enum netns_presence presence;
	struct klb_control control;
	struct netns_id host;
	__u32 pid = 0;

	control_read(l->old_fds[MAP_CONTROL], &l->old[MAP_CONTROL], &control);
	if (datapath_is_host_netns(&control))
		return 0;
	host = (struct netns_id){ control.host_netns, control.host_netns_cookie };
	presence = netns_find(&host, &pid);
	if (!take && (presence == NETNS_FOUND || (presence == NETNS_UNSEEN && !netns_is_initial())))
		return refuse(l, &control, presence, pid, e);
	snprintf(l->moved, sizeof(l->moved),
		 "the balancer moves here, to net:[%llu], from the network namespace net:[%llu]%s",
		 netns_self().inode, control.host_netns,
		 presence == NETNS_GONE	    ? ", which is gone"
		 : presence == NETNS_UNSEEN ? ", which nothing here leads to"
					    : ": connects there are not balanced any more");
	return 0;
}
