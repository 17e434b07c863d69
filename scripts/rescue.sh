#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds KubeLB and measures what clients feel that connect while hosts of apiservers vanish.
#
#   scripts/rescue.sh [--rounds N] [--rates R,...] [--holes N,...] [--no-proxy]     six minutes
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case " $* " in
*" -h "* | *" --help "*) exec /usr/bin/python3 "$root/tests/bench/rescue.py" --help ;;
esac
if [ "$(id -u)" -ne 0 ]; then
	echo "rescue.sh: needs root (network namespaces, bpffs)" >&2
	exit 1
fi
"$root/scripts/deps.sh"
make -s -C "$root" all
exec /usr/bin/python3 "$root/tests/bench/rescue.py" "$@"
