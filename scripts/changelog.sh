#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Prints what CHANGELOG.md says of a version as a package's changelog has it: one item a line, without
# Markdown. What is in "Unreleased" is part of whatever is built.
#
#   scripts/changelog.sh VERSION BULLET     BULLET: what stands before an item, such as "  * " or "- "
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-} in
-h | --help) sed -n '3,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
if [ $# -ne 2 ]; then
	echo "changelog.sh: want VERSION and BULLET" >&2
	exit 2
fi
# The items of the two sections, each as one line.
awk -v version="$1" '
	/^## / { inside = $2 == version || $2 == "Unreleased" }
	!inside { next }
	/^- / { if (item) print item; item = substr($0, 3); next }
	/^  / && item { sub(/^ +/, ""); item = item " " $0; next }
	/^$/ || /^#/ { if (item) print item; item = "" }
	item { item = item " " $0 }
	END { if (item) print item }
' CHANGELOG.md | sed -E 's/`//g; s/\*\*//g; s/\[([^]]*)\]\([^)]*\)/\1/g' |
	while IFS= read -r item; do
		fold -s -w $((78 - ${#2})) <<<"$item" |
			sed -e "1s/^/$2/" -e "2,\$s/^/$(printf '%*s' "${#2}" '')/" -e 's/ *$//'
	done
