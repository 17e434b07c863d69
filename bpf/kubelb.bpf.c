/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * All programs as one object. Not linked from several: a kernel function that two
 * objects call is more than the linker of libbpf 1.1 can merge ("failed to resolve size
 * of underlying type").
 */
#include "connect.bpf.c"
#include "lifecycle.bpf.c"
#include "adjust.bpf.c"
#include "release.bpf.c"

char klb_license[] SEC("license") = "Dual BSD/GPL";
