#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds the RPM package from this tree, including changes that are not committed, and prints its
# path. Needs rpmbuild, no network and no root. On a host whose packages are not RPMs it takes the
# build dependencies for granted: scripts/deps.sh --package installs them.
#
#   scripts/rpm.sh [VERSION [DIR [ARCH]]]   default: the Makefile's VERSION, build/rpm, this machine's
#
# For another architecture, such as aarch64, it takes Debian's libraries from SYSROOT (default:
# build/sysroot/ARCH by Debian's name, by scripts/sysroot.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/source.sh
. scripts/source.sh

case ${1:-} in
-h | --help) sed -n '3,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
version=${1:-$(sed -n 's/^VERSION := //p' Makefile)}
dir=${2:-build/rpm}
if ! [[ $version =~ ^[0-9][0-9A-Za-z.+~]*$ ]]; then
	echo "rpm.sh: '$version' is no RPM version: it begins with a digit and takes letters, digits and . + ~" >&2
	exit 2
fi
if ! command -v rpmbuild >/dev/null; then
	echo "rpm.sh: rpmbuild is not installed; run scripts/deps.sh --package" >&2
	exit 1
fi
arch=${3:-$(uname -m)}
cross=()
if [ "$arch" != "$(uname -m)" ]; then
	sysroot=$(realpath "${SYSROOT:-build/sysroot/${arch/aarch64/arm64}}")
	[ -e "$sysroot/complete" ] || { echo "rpm.sh: no libraries of $arch: run scripts/sysroot.sh ${arch/aarch64/arm64}" >&2; exit 1; }
	cross=(--target "$arch" --define "kubelb_sysroot $sysroot" --define "__strip $arch-linux-gnu-strip")
fi
# No database of RPMs, no packages to look for.
nodeps=()
rpm -q rpm >/dev/null 2>&1 || nodeps=(--nodeps)

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
rm -rf "$dir/top"
mkdir -p "$dir/top/SOURCES" "$dir/top/SPECS"
SOURCE_DATE_EPOCH=$(source_time)
export SOURCE_DATE_EPOCH
source_copy "$dir/top/kubelb-$version"
tar -C "$dir/top" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
	-cf - "kubelb-$version" | gzip -n >"$dir/top/SOURCES/kubelb-$version.tar.gz"
{
	cat deploy/rpm/kubelb.spec
	echo "* $(LC_ALL=C date -u -d "@$SOURCE_DATE_EPOCH" '+%a %b %d %Y') $(sed -n 's/^Maintainer: //p' deploy/debian/control) - $version-1"
	# % begins a macro.
	scripts/changelog.sh "$version" '- ' | sed 's/%/%%/g'
} >"$dir/top/SPECS/kubelb.spec"

log=$dir/build.log
if ! env -u MAKEFLAGS -u MAKELEVEL rpmbuild -bb "${nodeps[@]}" "${cross[@]}" \
	--define "_topdir $dir/top" --define "kubelb_version $version" \
	--define "debug_package %{nil}" --define "_build_id_links none" \
	--define "use_source_date_epoch_as_buildtime 1" --define "clamp_mtime_to_source_date_epoch 1" \
	--define "_buildhost kubelb" "$dir/top/SPECS/kubelb.spec" >"$log" 2>&1; then
	tail -n 30 "$log" >&2
	echo "rpm.sh: the package was not built (whole log: $log)" >&2
	exit 1
fi
mv "$dir"/top/RPMS/*/kubelb-"$version"-*.rpm "$dir"
rm -rf "$dir/top"
ls "$dir/kubelb-$version"-*".$arch.rpm"
