#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds KubeLB and measures what it costs, in a temporary network.
#
#   scripts/bench.sh [--quick] [--only GROUP,...] [--json FILE]
#   scripts/bench.sh [--quick] --beside DIR    compare this build with the one in DIR
#   scripts/bench.sh --report [--quick] [--out DIR]    KubeLB beside nginx, HAProxy and a DNAT
#
# KUBELB_BUILD names a build directory in place of build/. --help explains more.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

program=bench.py
arguments=()
for argument in "$@"; do
	case $argument in
	--report) program=report.py ;;
	*) arguments+=("$argument") ;;
	esac
done
for argument in "$@"; do
	case $argument in
	-h | --help) exec /usr/bin/python3 "$root/tests/bench/$program" --help ;;
	esac
done
if [ "$(id -u)" -ne 0 ]; then
	echo "bench.sh: needs root (network namespaces, bpffs)" >&2
	exit 1
fi
"$root/scripts/deps.sh"
KUBELB_BUILD=$(realpath -m "${KUBELB_BUILD:-$root/build}")
# The Makefile's targets have relative names below its own directory.
b=${KUBELB_BUILD#"$root/"}
make -s -C "$root" B="$b" all "$b/test/bench_client" "$b/test/relaytest" "$b/test/pingpong"
export KUBELB_BUILD
exec /usr/bin/python3 "$root/tests/bench/$program" "${arguments[@]}"
