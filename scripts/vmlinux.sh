#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Makes vmlinux/<arch>/vmlinux.h again from a kernel's type information, and records which kernel
# that was.
#
#   scripts/vmlinux.sh [BTF]   default: /sys/kernel/btf/vmlinux of this machine
#
# Any recent kernel will do: CO-RE adapts the programs to the kernel that they run on.
set -euo pipefail
cd "$(dirname "$0")/.."
btf=${1:-/sys/kernel/btf/vmlinux}
if [ ! -r "$btf" ]; then
	echo "vmlinux.sh: $btf: not readable; name a file with BTF (a vmlinux, or /sys/kernel/btf/vmlinux)" >&2
	exit 1
fi
bpftool=$(PATH="$PATH:/usr/sbin:/sbin" command -v bpftool) || {
	echo "vmlinux.sh: bpftool is not installed; run scripts/deps.sh" >&2
	exit 1
}
dir=vmlinux/$(uname -m)
mkdir -p "$dir"
"$bpftool" btf dump file "$btf" format c >"$dir/vmlinux.h.new"
mv "$dir/vmlinux.h.new" "$dir/vmlinux.h"
origin="the kernel running at the time"
[ "$btf" = /sys/kernel/btf/vmlinux ] || origin=$(basename "$btf")
cat >"$dir/ORIGIN" <<END
Made by scripts/vmlinux.sh, not written by hand.
kernel:  $(uname -sr) $(uname -m) ($origin)
tool:    $("$bpftool" version | head -n 1)
sha256:  $(sha256sum "$dir/vmlinux.h" | cut -d' ' -f1)
END
cat "$dir/ORIGIN"
