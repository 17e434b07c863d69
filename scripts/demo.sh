#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Shows the main job in half a minute, in temporary network namespaces: a node, three control
# planes, traffic, and what happens to it when an apiserver dies and when the agent dies. Removes
# everything at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
-h | --help)
	echo "Usage: scripts/demo.sh [--relay]"
	echo "As root; installs what is missing, builds, runs for 25 s. --relay: without a program in the"
	echo "kernel (dataPath: relay)."
	exit 0
	;;
esac
if [ "$(id -u)" -ne 0 ]; then
	echo "demo.sh: must run as root: it attaches BPF programs in network namespaces" >&2
	exit 1
fi
scripts/deps.sh
make -s -j"$(nproc)" all build/test/nbconnect
exec /usr/bin/python3 tests/world/demo.py "$@"
