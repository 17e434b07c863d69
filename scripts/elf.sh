# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# What programs load, read from their files: also those of another architecture. To be sourced.

# elf_loader PROGRAM: the loader that it names; nothing if it is static.
elf_loader() {
	LC_ALL=C readelf -lW "$1" | sed -n 's/.*Requesting program interpreter: \(.*\)\]/\1/p'
}

# elf_find ROOT NAME: where the loader finds a library, in its own folders.
elf_find() {
	local folder
	for folder in "$1"/lib/*-linux-gnu "$1"/usr/lib/*-linux-gnu "$1"/lib64 "$1"/usr/lib64 "$1"/lib "$1"/usr/lib; do
		if [ -e "$folder/$2" ]; then
			echo "${folder#"$1"}/$2"
			return
		fi
	done
	echo "$2: in none of the loader's own folders below ${1:-/}" >&2
	return 1
}

# elf_libraries ROOT PROGRAM...: what they load, and what that loads, of the libraries below ROOT: one
# path without ROOT on each line. The loader itself is not among them.
elf_libraries() {
	local root=$1 name path
	local -A seen=()
	shift
	while [ $# -gt 0 ]; do
		for name in $(LC_ALL=C readelf -dW "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
			[[ $name != ld-linux* && -z ${seen[$name]:-} ]] || continue
			path=$(elf_find "$root" "$name") || return
			seen[$name]=$path
			set -- "$@" "$root$path"
		done
		shift
	done
	[ ${#seen[@]} -eq 0 ] || printf '%s\n' "${seen[@]}" | LC_ALL=C sort
}
