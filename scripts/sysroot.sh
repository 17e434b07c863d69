#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Makes a folder with another architecture's libraries, to build for it on this machine: Debian's
# packages of the host's release, unpacked and never installed. The host's own packages stay as they
# are.
#
#   scripts/sysroot.sh ARCH [DIR]    ARCH: Debian's name, such as arm64; default: build/sysroot/ARCH
#
# DIR/var/lib/dpkg says what is in it, for dpkg-query --admindir. What is there stays: remove DIR to
# get newer packages.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/apt.sh
. scripts/apt.sh

case ${1:-} in
-h | --help) sed -n '3,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
[ $# -ge 1 ] || { echo "usage: scripts/sysroot.sh ARCH [DIR]" >&2; exit 2; }
arch=$1
dir=${2:-build/sysroot/$arch}
[ ! -e "$dir/complete" ] || exit 0

# The first two lines: what `make` links. The third: its tests, and what a virtual machine boots with.
packages=(
	libbpf-dev libelf-dev zlib1g-dev libevent-dev libnghttp2-dev libssl-dev libyaml-dev libjansson-dev
	libc6-dev linux-libc-dev
	libcmocka-dev busybox-static bpftool iproute2
)

die() {
	echo "sysroot.sh: $1" >&2
	exit 1
}

download() {
	local apt=$1 codename
	codename=$(apt_codename)
	apt_configure "$apt" "$arch" "$codename" "$codename-updates" "$codename-security" ||
		die "apt has no Debian mirror among its sources"
	apt-get -c "$apt/apt.conf" -q update >"$apt/log" 2>&1 || true
	apt-get -c "$apt/apt.conf" -q -y --no-install-recommends --download-only install "${packages[@]}" \
		>"$apt/log" 2>&1 || die "cannot download $arch packages: $(apt_complaint "$apt/log")"
}

# record DEB: as if dpkg had installed it, without its scripts.
record() {
	local deb=$1 info=$part/var/lib/dpkg/info name file control=$part/control
	rm -rf "$control"
	dpkg-deb -e "$deb" "$control"
	name=$(dpkg-deb -f "$deb" Package)
	[ "$(dpkg-deb -f "$deb" Multi-Arch)" != same ] || name=$name:$arch
	for file in symbols shlibs md5sums; do
		[ ! -e "$control/$file" ] || mv "$control/$file" "$info/$name.$file"
	done
	dpkg-deb --fsys-tarfile "$deb" | tar -t | sed 's,^\.,,; s,/$,,; s,^$,/.,' >"$info/$name.list"
	{ sed '1a Status: install ok installed' "$control/control"; echo; } >>"$part/var/lib/dpkg/status"
	rm -rf "$control"
}

mkdir -p "$(dirname "$dir")"
dir=$(cd "$(dirname "$dir")" && pwd)/$(basename "$dir")
part=$dir.part
rm -rf "$part" "$dir"
mkdir -p "$part"/var/lib/dpkg/{info,updates} "$part"/usr/{bin,sbin,lib}
: >"$part/var/lib/dpkg/status"
echo 1 >"$part/var/lib/dpkg/info/format"
echo "$arch" >"$part/var/lib/dpkg/arch"
# As on every Debian of today. The loader's path begins with /lib.
ln -s usr/bin usr/sbin usr/lib "$part"
download "$dir.apt"
for deb in "$dir.apt"/cache/archives/*.deb; do
	dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$part" --keep-directory-symlink
	record "$deb"
done
# Links that begin at the root would lead to the host's files.
find "$part" -type l -lname '/*' | while IFS= read -r link; do
	ln -sfn --relative "$part$(readlink "$link")" "$link"
done
touch "$part/complete"
mv "$part" "$dir"
rm -rf "$dir.apt"
echo "$dir: $(find "$dir/var/lib/dpkg/info" -name '*.list' | wc -l) packages of $arch"
