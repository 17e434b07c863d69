#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Watches what clients of a real cluster feel while an operator makes a fault: k8s-check.py, which
# has to lie beside this file, with --help for all of it.
#
#   scripts/k8s-check.sh KUBECONFIG [--seconds S] [--rate N]
#
# Python, and not curl: a held watch, the time of each event and a 99th percentile are beyond a
# shell, and curl wants an inline client key in a file on the disk. Nodes that Ansible has set up
# have python3; it takes nothing but the standard library.
set -eu

if ! command -v python3 >/dev/null 2>&1; then
	echo "k8s-check.sh: python3 is not installed here: install it (apt install python3-minimal" \
		"is not enough, apt install python3 is), or run this on a node that has it" >&2
	exit 2
fi
exec python3 -I "$(dirname "$0")/k8s-check.py" "$@"
