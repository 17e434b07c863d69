#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds KubeLB and measures what faults of an apiserver cost its clients: when their connections
# are ended and how, when an informer hears the next event, how many lists that takes.
#
#   scripts/faults.sh [--rounds N] [--only FAULT,...] [--json FILE]     ten minutes
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case " $* " in
*" -h "* | *" --help "*) exec /usr/bin/python3 "$root/tests/bench/faults.py" --help ;;
esac
if [ "$(id -u)" -ne 0 ]; then
	echo "faults.sh: needs root (network namespaces, bpffs)" >&2
	exit 1
fi
"$root/scripts/deps.sh"
make -s -C "$root" all
exec /usr/bin/python3 "$root/tests/bench/faults.py" "$@"
