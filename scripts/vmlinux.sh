#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Makes vmlinux/<arch>/vmlinux.h again from a kernel's type information, and records which kernel
# that was.
#
#   scripts/vmlinux.sh                default: /sys/kernel/btf/vmlinux of this machine
#   scripts/vmlinux.sh BTF            a file with BTF: a vmlinux, or a copy of the above
#   scripts/vmlinux.sh IMAGE ARCH     a kernel as it boots, not compressed, such as arm64's, and ARCH as
#                                     `uname -m` there: build/vm/6.12-arm64/vmlinuz aarch64
#
# Any recent kernel will do: CO-RE adapts the programs to the kernel that they run on.
set -euo pipefail
cd "$(dirname "$0")/.."
btf=${1:-/sys/kernel/btf/vmlinux}
arch=${2:-$(uname -m)}
if [ ! -r "$btf" ]; then
	echo "vmlinux.sh: $btf: not readable; name a file with BTF (a vmlinux, or /sys/kernel/btf/vmlinux)" >&2
	exit 1
fi
bpftool=$(PATH="$PATH:/usr/sbin:/sbin" command -v bpftool) || {
	echo "vmlinux.sh: bpftool is not installed; run scripts/deps.sh" >&2
	exit 1
}
kernel="$(uname -sr) $(uname -m)"
origin="the kernel running at the time"
[ "$btf" = /sys/kernel/btf/vmlinux ] || origin=$(basename "$btf")

# In an image the type information has no name. It begins with a header of a known form: magic, version,
# flags, length of the header, and where types and strings are. The largest one is the kernel's.
extract() {
	python3 - "$1" "$2" <<'PY'
import re, struct, sys
image = open(sys.argv[1], "rb").read()
found = b""
for match in re.finditer(b"\x9f\xeb\x01\x00\x18\x00\x00\x00", image):
    types, size, strings, length = struct.unpack_from("<4I", image, match.start() + 8)
    end = match.start() + 24 + strings + length
    if types == 0 and strings == size and end <= len(image) and end - match.start() > len(found):
        found = image[match.start():end]
if not found:
    sys.exit(f"vmlinux.sh: {sys.argv[1]}: no type information in it; is it compressed?")
open(sys.argv[2], "wb").write(found)
PY
}

raw=$(mktemp)
trap 'rm -f "$raw"' EXIT
if [ $# -eq 2 ]; then
	extract "$btf" "$raw"
	kernel=$(grep -m 1 -ao 'Linux version [^ ]*' "$btf" | sed 's/ version//')" $arch"
	btf=$raw
fi
dir=vmlinux/$arch
mkdir -p "$dir"
"$bpftool" btf dump file "$btf" format c >"$dir/vmlinux.h.new"
mv "$dir/vmlinux.h.new" "$dir/vmlinux.h"
cat >"$dir/ORIGIN" <<END
Made by scripts/vmlinux.sh, not written by hand.
kernel:  $kernel ($origin)
tool:    $("$bpftool" version | head -n 1)
sha256:  $(sha256sum "$dir/vmlinux.h" | cut -d' ' -f1)
END
cat "$dir/ORIGIN"
