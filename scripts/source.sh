# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# The source as packages have it: this tree, including changes that are not committed. To be sourced
# at the top of the tree.

# In an export COMMIT, written by source_copy, says what git said: the commit, and its time in seconds
# since the epoch. No such file: nobody knows.
source_recorded() {
	[ ! -s COMMIT ] || cut -d ' ' -f "$1" COMMIT
}

# Not empty when this directory is the top of a git tree; empty in an export.
source_git=
[ "$(git rev-parse --show-toplevel 2>/dev/null)" != "$(pwd -P)" ] || source_git=yes

# The source files: those that git knows, or in an export all but what was built.
source_files() {
	if [ -n "$source_git" ]; then
		git ls-files -z --cached --others --exclude-standard --deduplicate |
			while IFS= read -r -d '' f; do
				[ ! -e "$f" ] || printf '%s\0' "$f"
			done
	else
		find . \( -path ./build -o -path ./dist -o -name .git -o -name __pycache__ -o -name .pytest_cache -o \
			-path ./compile_commands.json -o -path ./COMMIT \) -prune -o \
			\( -type f -o -type l \) -print0
	fi
}

# The commit that this tree is of: seven digits, and -dirty if something that git knows has changed
# since. Empty if nobody knows.
source_commit() {
	local commit
	if [ -z "$source_git" ]; then
		source_recorded 1
	elif commit=$(git rev-parse --verify --quiet HEAD); then
		git diff --quiet HEAD -- && echo "${commit:0:7}" || echo "${commit:0:7}-dirty"
	fi
}

# Copies them into a new directory, $1, with the commit.
source_copy() {
	local commit
	rm -rf "$1"
	mkdir -p "$1"
	source_files | tar --null -T - -cf - | tar -C "$1" -xf -
	commit=$(source_commit)
	[ -z "$commit" ] || echo "$commit $(source_time)" >"$1/COMMIT"
}

# The time of the last change, in seconds since the epoch. A package gets this time, so that it does
# not depend on when it is built.
source_time() {
	if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then
		echo "$SOURCE_DATE_EPOCH"
	elif [ -n "$source_git" ]; then
		git log -1 --format=%ct
	elif [ -s COMMIT ]; then
		source_recorded 2
	else
		stat -c %Y Makefile
	fi
}
