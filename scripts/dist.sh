#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Makes what a release consists of, for amd64 and arm64: the source, the Debian packages, the RPMs, the
# container image with its bills of materials, the Helm chart, what it was built with, and SHA256SUMS.
# Built in a copy of the source. The same commit and packages give the same files, byte for byte.
#
#   scripts/dist.sh [DIR]     default: build/dist
#
# DIRTY=yes       also of a tree with changes that are not committed; --version says so
# PARTS="..."     of: source deb rpm image chart        ARCHES="..."  of: amd64 arm64
# SYSROOTS=DIR    where scripts/sysroot.sh has put the libraries of other architectures; default: build/sysroot
#
# `scripts/deps.sh --package` installs what it needs; it downloads only what a sysroot takes.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/source.sh
. scripts/source.sh

die() {
	echo "dist.sh: $1" >&2
	exit 1
}

# Why this tree is no commit, if it is none.
uncommitted() {
	if [ -n "$source_git" ]; then
		[ -z "$(git status --porcelain)" ] || echo "changes that are not committed (git status)"
	else
		case $(source_commit) in
		*-dirty) echo "been copied from one with changes" ;;
		"") echo "no commit that anybody knows" ;;
		esac
	fi
}

# uname_of ARCH: what the kernel and RPM call it.
uname_of() {
	case $1 in
	amd64) echo x86_64 ;;
	arm64) echo aarch64 ;;
	*) die "ARCHES: '$1' is neither amd64 nor arm64" ;;
	esac
}

has() {
	[[ " $parts " == *" $1 "* ]]
}

# sysroot_for ARCH: sets SYSROOT, to nothing for this machine's own.
sysroot_for() {
	export SYSROOT=
	[ "$(uname_of "$1")" != "$(uname -m)" ] || return 0
	SYSROOT=$sysroots/$1
	scripts/sysroot.sh "$1" "$SYSROOT" >&2
}

# Of all files one time and order, no owner and no mode but executable or not.
pack() {
	tar -C "$1" --format=ustar --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
		--mtime="@$SOURCE_DATE_EPOCH" -cf - "$2" | gzip -9n
}

make_source() {
	pack "$work" "$name" >"$out/$name.tar.gz"
}

# As helm package does, with what links lead to; helm would write its own times.
make_chart() {
	local chart=$work/chart
	mkdir -p "$chart"
	cp -rL "$tree/deploy/helm/kubelb" "$chart"
	pack "$chart" kubelb >"$out/kubelb-$version.tgz"
}

# in_copy COMMAND...: its output is shown only if it fails.
in_copy() {
	if ! (cd "$tree" && env -u MAKEFLAGS -u MAKELEVEL -u DIRTY "$@") >"$work/log" 2>&1; then
		tail -n 30 "$work/log" >&2
		die "failed: $*"
	fi
}

make_packages() {
	local arch
	for arch in $arches; do
		sysroot_for "$arch"
		if has deb; then
			in_copy scripts/deb.sh "$version" "$work/deb-$arch" "$arch"
			mv "$work/deb-$arch"/*.deb "$out"
		fi
		if has rpm; then
			in_copy scripts/rpm.sh "$version" "$work/rpm-$arch" "$(uname_of "$arch")"
			mv "$work/rpm-$arch"/*.rpm "$out"
		fi
	done
}

# The programs of an image keep no path of this build in their identity.
make_image() {
	local arch roots=()
	for arch in $arches; do
		sysroot_for "$arch"
		in_copy make -s -j"$(nproc)" VERSION="$version" ARCH="$(uname_of "$arch")" ${SYSROOT:+SYSROOT="$SYSROOT"} \
			B="build/$arch" CFLAGS="-O2 -g -ffile-prefix-map=$tree=." image-root
		roots+=("$tree/build/$arch/image")
		cp "${roots[-1]}/usr/share/doc/kubelb/kubelb.spdx.json" "$out/kubelb-$version-$arch.spdx.json"
	done
	KUBELB_IMAGE_TOOL=none in_copy scripts/image.sh "$(IFS=: && echo "${roots[*]}")" "$out/kubelb-$version.oci.tar" "$version"
}

# What decides the bytes: who has the same gets the same.
make_buildinfo() {
	local arch
	echo "kubelb $version"
	echo "commit $(cut -d ' ' -f 1 "$tree/COMMIT" 2>/dev/null || echo unknown)"
	echo "time $(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)"
	for tool in gcc clang bpftool libc6-dev libbpf-dev dpkg-dev debhelper rpm gcc-aarch64-linux-gnu; do
		dpkg-query -W -f 'tool ${Package} ${Version}\n' "$tool" 2>/dev/null || true
	done
	for arch in $arches; do
		[ ! -e "$sysroots/$arch/complete" ] || [ "$(uname_of "$arch")" = "$(uname -m)" ] ||
			dpkg-query --admindir="$sysroots/$arch/var/lib/dpkg" -W -f 'library ${Package}:${Architecture} ${Version}\n'
	done
}

case ${1:-} in
-h | --help) sed -n '3,14s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
why=$(uncommitted)
[ -z "$why" ] || [ "${DIRTY:-}" = yes ] || die "this tree has $why; commit, or set DIRTY=yes"
parts=${PARTS:-source deb rpm image chart} arches=${ARCHES:-amd64 arm64}
version=$(sed -n 's/^VERSION := //p' Makefile)
SOURCE_DATE_EPOCH=$(source_time)
export SOURCE_DATE_EPOCH
umask 022

mkdir -p "${1:-build/dist}" "${SYSROOTS:-build/sysroot}"
dir=$(realpath "${1:-build/dist}") sysroots=$(realpath "${SYSROOTS:-build/sysroot}")
work=$dir.work out=$dir.new name=kubelb-$version tree=$dir.work/kubelb-$version
trap 'rm -rf "$work" "$out"' EXIT
rm -rf "$work" "$out"
mkdir -p "$work" "$out"
source_copy "$tree"

if has source; then make_source; fi
if has chart; then make_chart; fi
if has deb || has rpm; then make_packages; fi
if has image; then make_image; fi
make_buildinfo >"$out/BUILDINFO"
(cd "$out" && LC_ALL=C sha256sum -- * >SHA256SUMS)
rm -rf "$dir"
mv "$out" "$dir"
ls -l "$dir"
