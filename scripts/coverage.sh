#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds with gcc's counters into build/coverage, runs the unit tests and the end-to-end tests, and
# prints how many lines of user/ have run. Slow: without optimization, on top of the test command's time.
#
#   scripts/coverage.sh            all tests, from zero
#   scripts/coverage.sh ARG...     without the unit tests; arguments go to pytest, and the counters go on
#
# A test that fails is named, and its lines count all the same. Exit status: 0 the target of
# scripts/coverage.py is reached, 1 it is not, or a test has failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

build=$PWD/build/coverage
# They test builds of their own, no program, or clocks that have no time for counters.
without=(test_package test_image test_chart test_rpm test_dist test_docs test_layers test_bench
	test_security test_scripts test_fleet test_alerts test_world test_world_h2 test_simulate)

case ${1:-} in
-h | --help)
	sed -n '3,11s/^# \{0,1\}//p' "$0"
	exit 0
	;;
esac
if [ "$(id -u)" -ne 0 ]; then
	echo "coverage.sh: must run as root: the tests attach BPF programs in network namespaces" >&2
	exit 1
fi
scripts/deps.sh || exit 1
# tests/coverage.h: the counters of children.
make -s -j"$(nproc)" B=build/coverage CFLAGS='-O0 -g --coverage -fprofile-update=atomic' \
	CPPFLAGS='-include tests/coverage.h' LDFLAGS=--coverage all test-tools || exit 1

failed=0
skip=()
for test in "${without[@]}"; do
	skip+=(--ignore "tests/e2e/$test.py")
done
if [ $# -eq 0 ]; then
	find "$build" -name '*.gcda' -delete
	for test in "$build"/test/test_*; do
		[[ $test == *.[od] || $test == *.gc* || ! -x $test ]] && continue
		timeout 300 "$test" >"$build/unit.log" 2>&1 && continue
		failed=1
		echo "FAIL  unit ${test##*/test_}: see below"
		tail -n 20 "$build/unit.log"
	done
	set -- -n 3 --dist loadfile tests/e2e
fi
# Agents end by SIGTERM, or their counters are lost.
KUBELB_BUILD=$build KUBELB_END=TERM \
	timeout 7200 /usr/bin/python3 -m pytest -q -p no:cacheprovider "${skip[@]}" "$@" || failed=1
scripts/coverage.py "$build" || failed=1
exit $failed
