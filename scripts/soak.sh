#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds KubeLB and makes many connects through it, in a temporary network, while it kills clients
# and servers at random. At the end the counts must be 0.
#
#   scripts/soak.sh [-n CONNECTS] [--seed N]     200,000 take about two minutes
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
make -s -C "$root" all
exec /usr/bin/python3 "$root/tests/bench/soak.py" "$@"
