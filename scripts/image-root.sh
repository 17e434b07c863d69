#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Collects the files of the container image: the three programs, stripped, the libraries that they
# load, the dynamic loader, the licences of all of them, and the bill of materials. Nothing else.
#
#   scripts/image-root.sh [BUILD [DEST [VERSION]]]   default: build, BUILD/image, the Makefile's VERSION
#
# Uses what is built and installed on this machine and downloads nothing. The same input always
# gives the same files, of the time that the commit has. For another architecture SYSROOT is where its
# libraries are (scripts/sysroot.sh), and STRIP its strip.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/source.sh
. scripts/source.sh
# shellcheck source=scripts/elf.sh
. scripts/elf.sh

sysroot=${SYSROOT:-}
build=${1:-build}
dest=${2:-$build/image}
version=${3:-$(sed -n 's/^VERSION := //p' Makefile)}
SOURCE_DATE_EPOCH=$(source_time)
export SOURCE_DATE_EPOCH
programs=(kubelb-load kubelb-agent kubelbctl)

for p in "${programs[@]}"; do
	[ -x "$build/$p" ] || { echo "image-root.sh: $build/$p is not there: run make first" >&2; exit 1; }
done
umask 022

# The loader that a program names. It may differ from this shell's.
loader=$(elf_loader "$build/kubelb-agent")
[ -n "$loader" ] || { echo "image-root.sh: $build/kubelb-agent names no dynamic loader" >&2; exit 1; }

# The path of each library. Asks the loader where it runs. Ignores its cache, because the image has none:
# the loader then finds the libraries in the image in the same places.
libraries() {
	local p
	if [ -n "$sysroot" ]; then
		elf_libraries "$sysroot" "${programs[@]/#/$build/}"
		return
	fi
	for p in "${programs[@]}"; do
		"$loader" --inhibit-cache --list "$build/$p"
	done | awk '/not found/ { print "image-root.sh: " $1 " is in none of the loader'"'"'s own folders" > "/dev/stderr"; bad = 1 }
		$2 == "=>" && $3 ~ /^\// { print $3 } END { exit bad }' | LC_ALL=C sort -u
}
libs=$(libraries)

rm -rf "$dest.new"
for p in "${programs[@]}"; do
	install -D -m 755 "$build/$p" "$dest.new/usr/sbin/$p"
	"${STRIP:-strip}" "$dest.new/usr/sbin/$p"
done
for lib in "$loader" $libs; do
	install -D -m 755 "$sysroot$lib" "$dest.new$lib" # the name that is asked for; not the link
done

# Finds the packages of the files. Debian has a copyright file for each package.
licences=$dest.new/usr/share/doc
install -D -m 644 LICENSE "$licences/kubelb/copyright"
install -m 644 LICENSES/*.txt "$licences/kubelb"
if command -v dpkg-query >/dev/null; then
	[ -z "$sysroot" ] || export DPKG_ADMINDIR=$sysroot/var/lib/dpkg
	for lib in "$loader" $libs; do
		real=$(realpath "$sysroot$lib")
		real=${real#"$sysroot"}
		package=$(dpkg-query -S "$real" "${real#/usr}" 2>/dev/null | sed -n '1s/[:,].*//p') || true
		file=/usr/share/doc/$package/copyright
		[ -n "$package" ] && [ -r "$sysroot$file" ] && install -D -m 644 "$sysroot$file" "$dest.new$file"
	done
	unset DPKG_ADMINDIR
fi

# The mount points of the manifests: the root is read-only, so a runtime cannot make them.
install -d -m 755 "$dest.new"/{dev,proc,sys,run,etc/kubelb,host/cgroup,var/lib/kubelb} \
	"$dest.new/var/run/secrets/kubernetes.io/serviceaccount"
: >"$dest.new/etc/machine-id"

scripts/sbom.py "$dest.new" "$build" "$version" >"$build/sbom.new"
install -m 644 "$build/sbom.new" "$licences/kubelb/kubelb.spdx.json"
rm "$build/sbom.new"

find "$dest.new" -exec touch --no-dereference --date=@"$SOURCE_DATE_EPOCH" {} +
rm -rf "$dest"
mv "$dest.new" "$dest"
echo "$dest: $(find "$dest" -type f | wc -l) files, $(du -s --apparent-size -B1 "$dest" | cut -f1) bytes"
