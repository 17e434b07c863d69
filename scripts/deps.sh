#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Installs the distribution's packages that KubeLB needs for building and testing. Ends quickly when
# all of them are installed.
#
#   scripts/deps.sh           everything (build, tests, lint, benchmark)
#   scripts/deps.sh --build   only what `make` needs
#   scripts/deps.sh --package what `make deb` needs
#   scripts/deps.sh --list    print the package names and stop
set -euo pipefail

build=(
	gcc make clang llvm pkg-config bpftool
	libbpf-dev libelf-dev zlib1g-dev
	libevent-dev libnghttp2-dev libssl-dev libyaml-dev libjansson-dev
)
# For `make deb` and `make rpm`. dpkg-checkbuilddeps always asks for build-essential.
package=(build-essential debhelper dpkg-dev lintian rpm rpmlint)
# nginx: TLS backends in tests, and a proxy to compare with in the benchmark. libnginx-mod-stream
# and haproxy: the local proxies that KubeLB replaces. buildah, runc, python3-yaml: the image and
# its manifests. prometheus: promtool, which tests the alert rules. python3-h2: HTTP/2 of the test
# apiserver and its clients. nftables, nghttp2-client, gnuplot-nox: a DNAT to compare with, HTTP/2
# load and the pictures of the benchmark's report. ansible-core to python3-apt: the Ansible role,
# and what its module apt needs on a node. chromium: the status page. The last line: scripts/vmtest.sh. npm, below: scripts/kube-tools.py.
tests=(
	libcmocka-dev python3-pytest python3-pytest-xdist python3 iproute2 iptables procps util-linux
	nginx-light libnginx-mod-stream haproxy openssl curl ca-certificates
	libclang-rt-dev systemd
	ansible-core ansible-lint yamllint python3-apt
	bash-completion zsh fish buildah runc python3-yaml prometheus python3-h2
	chromium fonts-dejavu-core
	nftables nghttp2-client gnuplot-nox
	qemu-system-x86 qemu-system-arm gcc-aarch64-linux-gnu busybox-static cpio kmod xz-utils zstd
)
# clang-tools: scan-build.
lint=(clang-format clang-tidy clang-tools valgrind cppcheck shellcheck mandoc)

# Another packager's may be there already, and does not go with Debian's.
command -v npm >/dev/null || tests+=(npm)

want=("${build[@]}")
case "${1:-}" in
--build) ;;
--package) want+=("${package[@]}") ;;
-h | --help) sed -n '3,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
--list) printf '%s\n' "${build[@]}" "${package[@]}" "${tests[@]}" "${lint[@]}"; exit 0 ;;
"") want+=("${package[@]}" "${tests[@]}" "${lint[@]}") ;;
*)
	echo "deps.sh: unknown argument '$1' (want --build, --package, --list or nothing)" >&2
	exit 2
	;;
esac

missing=()
installed=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "${want[@]}" 2>/dev/null |
	awk '$1 ~ /^[ih]i$/ { print $2 }') || true
for p in "${want[@]}"; do
	grep -qxF -- "$p" <<<"$installed" || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "deps.sh: not root, cannot install: ${missing[*]}" >&2
	exit 1
fi
echo "deps.sh: installing ${missing[*]}"

# Packages such as nginx would start a daemon on port 80, which a build host does not need.
# policy-rc.d tells the distribution not to start it. An existing one is not changed.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap 'rm -f $policy' EXIT
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
apt_get() { apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"; }
log=$(mktemp)
if ! { apt_get update && apt_get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	echo "deps.sh: apt-get failed (whole log: $log)" >&2
	exit 1
fi
rm -f "$log"
