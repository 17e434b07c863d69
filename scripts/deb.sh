#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds the Debian package from this tree, including changes that are not committed, and prints its
# path. Needs no network and no root. The same tree always gives the same package, byte for byte.
#
#   scripts/deb.sh [VERSION [DIR [ARCH]]]   default: the Makefile's VERSION, build/deb, this machine's
#
# `scripts/deps.sh --package` installs what it needs. For another architecture, such as arm64, it takes
# the libraries from SYSROOT (default: build/sysroot/ARCH, by scripts/sysroot.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/source.sh
. scripts/source.sh

case ${1:-} in
-h | --help) sed -n '3,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
version=${1:-$(sed -n 's/^VERSION := //p' Makefile)}
dir=${2:-build/deb}
if ! [[ $version =~ ^[0-9][0-9A-Za-z.+~]*$ ]]; then
	echo "deb.sh: '$version' is no Debian version: it begins with a digit and takes letters, digits and . + ~" >&2
	exit 2
fi
if ! command -v dpkg-buildpackage >/dev/null || ! command -v dh >/dev/null; then
	echo "deb.sh: dpkg-buildpackage and debhelper are not installed; run scripts/deps.sh --package" >&2
	exit 1
fi

options=()
arch=${3:-$(dpkg --print-architecture)}
if [ "$arch" != "$(dpkg --print-architecture)" ]; then
	KUBELB_SYSROOT=$(realpath "${SYSROOT:-build/sysroot/$arch}")
	[ -e "$KUBELB_SYSROOT/complete" ] || { echo "deb.sh: no libraries of $arch: run scripts/sysroot.sh $arch" >&2; exit 1; }
	# dpkg-shlibdeps asks for the files by the names that they have on this machine.
	mkdir -p "$dir"
	KUBELB_ADMINDIR=$(realpath "$dir")/dpkg
	rm -rf "$KUBELB_ADMINDIR"
	cp -r "$KUBELB_SYSROOT/var/lib/dpkg" "$KUBELB_ADMINDIR"
	sed -i "s,^/lib/,/usr/lib/,; s,^,$KUBELB_SYSROOT," "$KUBELB_ADMINDIR"/info/*.list
	export KUBELB_SYSROOT KUBELB_ADMINDIR
	# -d: the build dependencies are in there, and not on this machine.
	options=(-a "$arch" -d)
fi

tree=$dir/kubelb-$version
source_copy "$tree"
cp -r deploy/debian "$tree/debian"
date=$(LC_ALL=C date -u -R -d "@$(source_time)")
changes=$(scripts/changelog.sh "$version" '  * ')
cat >"$tree/debian/changelog" <<END
kubelb ($version) unstable; urgency=medium

${changes:-  * Version $version.}

 -- $(sed -n 's/^Maintainer: //p' deploy/debian/control)  $date
END

log=$dir/build.log
if ! (cd "$tree" && env -u MAKEFLAGS -u MAKELEVEL \
	DEB_BUILD_OPTIONS="${DEB_BUILD_OPTIONS:-parallel=$(nproc)}" dpkg-buildpackage "${options[@]}" -b -us -uc) >"$log" 2>&1; then
	tail -n 30 "$log" >&2
	echo "deb.sh: the package was not built (whole log: $log)" >&2
	exit 1
fi
rm -rf "$tree" "$dir/dpkg"
ls "$dir/kubelb_${version}_$arch.deb"
