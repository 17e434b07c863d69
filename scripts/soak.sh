#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds KubeLB and has a node live through all that can happen to it, in a temporary network and
# under real clients. After each disturbance the counts must be exact, and nothing left behind.
#
#   scripts/soak.sh [--hours N] [--seed S] [--json FILE] [--write DIR]     without N: a minute
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case " $* " in
*" -h "* | *" --help "*) exec /usr/bin/python3 "$root/tests/bench/soak.py" --help ;;
esac
if [ "$(id -u)" -ne 0 ]; then
	echo "soak.sh: needs root (network namespaces, bpffs)" >&2
	exit 1
fi
"$root/scripts/deps.sh"
make -s -C "$root" all abi-next
exec /usr/bin/python3 "$root/tests/bench/soak.py" "$@"
