/* SPDX-License-Identifier: BSD-2-Clause */
/* Which version of kubelb-load has loaded the programs: it is among their constants. */
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "base/err.h"
#include "datapath/internal.h"

void datapath_version(const char *pin_dir, char ret[DATAPATH_VERSION_MAX])
{
	struct klb_options options = { 0 };
	struct bpf_map_info info = { 0 };
	int fd = links_live_constants(pin_dir, &info);
	__u32 zero = 0;

	ret[0] = '\0';
	if (fd < 0)
		return;
	/* Those of an older version are shorter. */
	if (info.value_size == sizeof(options) && !bpf_map_lookup_elem(fd, &zero, &options)) {
		memcpy(ret, options.version, DATAPATH_VERSION_MAX);
		ret[DATAPATH_VERSION_MAX - 1] = '\0';
		err_make_printable(ret);
	}
	close(fd);
}
