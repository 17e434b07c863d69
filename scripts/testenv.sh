#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds KubeLB and opens a shell in a temporary cluster network: a node and a few control planes,
# each in its own network namespace. Removes them when the shell ends.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
	cat <<-'TEXT'
	usage: scripts/testenv.sh [-n N] [-- CMD...]

	Without CMD: a shell in a new world, which explains its names and addresses.
	With CMD: runs it there; its exit status is the script's.

	  -n N     number of control planes (default 3, at most 64)
	  --help   this text

	In the shell: `load` attaches KubeLB, `ctl status` shows it, `fault cp1 kill`
	makes a control plane fail, `node curl ...` runs something on the node.

	Examples:
	  scripts/testenv.sh
	  scripts/testenv.sh -n 5 -- sh -c 'load && node nbconnect -n 3000 127.0.0.1 6443'
	TEXT
}

number=(-n 3)
while [ $# -gt 0 ]; do
	case $1 in
	-h | --help) usage; exit 0 ;;
	-n)
		[ $# -ge 2 ] || { echo "testenv.sh: -n needs a number" >&2; exit 2; }
		number=(-n "$2")
		shift 2
		;;
	--)
		shift
		break
		;;
	*)
		echo "testenv.sh: unknown argument '$1'; see --help" >&2
		exit 2
		;;
	esac
done

if [ "$(id -u)" -ne 0 ]; then
	echo "testenv.sh: needs root (network namespaces, bpffs)" >&2
	exit 1
fi
"$root/scripts/deps.sh"
make -s -C "$root"
if [ $# -eq 0 ]; then
	exec /usr/bin/python3 "$root/tests/world/world.py" shell "${number[@]}"
fi
exec /usr/bin/python3 "$root/tests/world/world.py" run "${number[@]}" -- "$@"
