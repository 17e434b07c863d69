#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds the simulation of a fleet and runs it: 10,000 nodes, whose agents and choices are the real
# code, and 3, 5 and 7 apiservers, for an hour of virtual time. Needs no root.
#
#   scripts/simulate.sh [--nodes N] [--apiservers N,...] [--only hour,probes,compare] [--write DIR]
#
# docs/scale.md says what comes of it; --write docs/scale makes its figures anew.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case " $* " in
*" -h "* | *" --help "*) exec /usr/bin/python3 "$root/tests/sim/simulate.py" --help ;;
esac
"$root/scripts/deps.sh"
b=$(realpath -m "${KUBELB_BUILD:-$root/build}")
export KUBELB_BUILD=$b
# The Makefile's targets have relative names below its own directory.
b=${b#"$root/"}
make -s -C "$root" B="$b" "$b/test/simulate"
exec nice /usr/bin/python3 "$root/tests/sim/simulate.py" "$@"
