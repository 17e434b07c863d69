#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds KubeLB and measures what the agent does for others while somebody attacks it.
#
#   scripts/attacks.sh [--rounds N] [--only TEXT,...] [--json FILE]     four minutes
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case " $* " in
*" -h "* | *" --help "*) exec /usr/bin/python3 "$root/tests/bench/attacks.py" --help ;;
esac
if [ "$(id -u)" -ne 0 ]; then
	echo "attacks.sh: needs root (network namespaces, bpffs)" >&2
	exit 1
fi
"$root/scripts/deps.sh"
make -s -C "$root" all test-tools
exec /usr/bin/python3 "$root/tests/bench/attacks.py" "$@"
