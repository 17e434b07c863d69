/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A preload for tests/bench/memcheck.py: tells valgrind 3.19 what the kernel writes in a command of
 * bpf(2) that valgrind does not know. Without it, every value of such a read counts as
 * uninitialised.
 */
#include <bpf/bpf.h>
#include <dlfcn.h>
#include <valgrind/memcheck.h>

int bpf_map_lookup_batch(int fd, void *in_batch, void *out_batch, void *keys, void *values,
			 __u32 *count, const struct bpf_map_batch_opts *opts)
{
	int (*real)(int, void *, void *, void *, void *, __u32 *,
		    const struct bpf_map_batch_opts *) = dlsym(RTLD_NEXT, "bpf_map_lookup_batch");
	struct bpf_map_info info = { 0 };
	__u32 length = sizeof(info);
	int r = real(fd, in_batch, out_batch, keys, values, count, opts);

	if (!r && !bpf_obj_get_info_by_fd(fd, &info, &length)) {
		VALGRIND_MAKE_MEM_DEFINED(values, (size_t)*count * info.value_size);
		VALGRIND_MAKE_MEM_DEFINED(keys, (size_t)*count * info.key_size);
	}
	return r;
}
