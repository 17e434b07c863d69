#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds KubeLB and runs its programs under valgrind's memcheck, in a temporary network, through what
# an agent does in its life. One error, or one block that is lost, is a failure.
#
#   scripts/valgrind.sh [--only kernel|relay]     some three minutes
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case " $* " in
*" -h "* | *" --help "*) exec /usr/bin/python3 "$root/tests/bench/memcheck.py" --help ;;
esac
if [ "$(id -u)" -ne 0 ]; then
	echo "valgrind.sh: needs root (network namespaces, bpffs)" >&2
	exit 1
fi
"$root/scripts/deps.sh"
make -s -C "$root" all
exec /usr/bin/python3 "$root/tests/bench/memcheck.py" "$@"
