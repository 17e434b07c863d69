#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs all tests: installs missing packages, builds, runs the end-to-end tests, three at a time, and
# at the same time lint, the unit tests and the fuzzers; then other kernels. Ends with `N passed, N failed`.
#
#   scripts/test.sh              all
#   scripts/test.sh -k PATTERN   arguments go to pytest; without units and lint
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
if [ "$(id -u)" -ne 0 ]; then
	echo "test.sh: must run as root: the tests attach BPF programs in network namespaces" >&2
	exit 1
fi

passed=0 failed=0 skipped=0
logs=$(mktemp -d)

finish() {
	local line="$passed passed, $failed failed"
	[ "$skipped" -gt 0 ] && line="$line, $skipped skipped"
	echo "$line"
	[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
	exit $?
}

# step NAME COMMAND...: counts the command as passed or failed. Prints its output only on failure.
step() {
	local name=$1 out=$logs/step.$BASHPID
	shift
	if "$@" >"$out" 2>&1; then
		passed=$((passed + 1))
		echo "ok    $name"
	else
		failed=$((failed + 1))
		echo "FAIL  $name"
		sed 's/^/      /' "$out" | tail -n 60
		return 1
	fi
}

# Adds the counts of a cmocka run: "[  PASSED  ] 13 test(s)." and "[  FAILED  ] …".
count_cmocka() {
	local p f
	p=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$1" | tail -n 1)
	f=$(sed -n 's/^\[  FAILED  \] .*: *\([0-9]*\) test.*/\1/p' "$1" | tail -n 1)
	passed=$((passed + ${p:-0}))
	failed=$((failed + ${f:-0}))
	# A program without a summary has crashed, so it has failed whatever it has counted.
	[ -n "$p" ]
}

unit() {
	local name=$1 status
	timeout 300 "build/test/test_$name" >"$logs/unit" 2>&1
	status=$?
	if count_cmocka "$logs/unit" && [ $status -eq 0 ]; then
		echo "ok    unit $name"
		return
	fi
	[ $status -ne 0 ] && grep -q '^\[  FAILED  \]' "$logs/unit" || failed=$((failed + 1))
	echo "FAIL  unit $name (exit $status)"
	sed 's/^/      /' "$logs/unit" | tail -n 60
}

# Runs the end-to-end tests and adds the counts of pytest's report.
end_to_end() {
	local status line
	timeout 3600 /usr/bin/python3 -m pytest -q -p no:cacheprovider -rfEs \
		--junit-xml="$logs/junit.xml" "$@" tests/e2e | tee "$logs/e2e"
	status=${PIPESTATUS[0]}
	line=$(/usr/bin/python3 - "$logs/junit.xml" <<'PY'
import sys, xml.etree.ElementTree as E
try:
    suites = E.parse(sys.argv[1]).getroot().iter("testsuite")
    t = {k: 0 for k in ("tests", "failures", "errors", "skipped")}
    for s in suites:
        for k in t:
            t[k] += int(s.get(k, 0))
    bad = t["failures"] + t["errors"]
    print(max(t["tests"] - bad - t["skipped"], 0), bad, t["skipped"])
except (OSError, E.ParseError):
    print(0, 1, 0)
PY
)
	read -r p f s <<<"$line"
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	[ "$status" -ne 0 ] && [ "$f" -eq 0 ] && failed=$((failed + 1))
	return 0
}

# Counts kernels. A run that ends before it names one has failed.
other_kernels() {
	local status p f s
	timeout 1800 scripts/vmtest.sh 2>&1 | tee "$logs/vm"
	status=${PIPESTATUS[0]}
	p=$(grep -c '^ok vm ' "$logs/vm")
	f=$(grep -c '^FAIL vm ' "$logs/vm")
	s=$(grep -c '^SKIPPED vm ' "$logs/vm")
	case $status in
	0) [ "$p" -gt 0 ] && [ "$f" -eq 0 ] ;;
	1) [ "$f" -gt 0 ] ;;
	77) [ "$p" -eq 0 ] && [ "$f" -eq 0 ] && [ "$s" -gt 0 ] ;;
	*) false ;;
	esac || {
		f=$((f + 1))
		echo "FAIL  vmtest.sh (exit $status)"
	}
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

# Everything but the end-to-end tests, in two lanes of about the same length, each in a process of its
# own. The end-to-end tests mostly wait, and have priority when they want a processor.
begin_lane() {
	passed=0 failed=0 skipped=0
	trap - EXIT INT TERM
	renice -n 10 -p $BASHPID >/dev/null
}

# end_lane NAME
end_lane() {
	echo "$passed $failed $skipped" >"$logs/$1.counts"
}

code_lane() {
	begin_lane
	step "build with clang" make -s CC=clang B=build/clang
	# As deep as in quick runs: see the Makefile.
	step "lint" make -s lint TIDY_NODES=75000
	step "install" scripts/check-install.sh
	step "fuzz every input" make -s fuzz FUZZ_SECONDS=8
	end_lane code
}

unit_lane() {
	begin_lane
	for t in build/test/test_*; do
		case $t in
		*.o | *.d) ;;
		*) unit "${t#build/test/test_}" ;;
		esac
	done
	# Twice as many as there are processors: most of them wait.
	step "unit tests under sanitizers" make -s -j$((2 * jobs)) -Otarget SANITIZE=address,undefined units
	end_lane unit
}

# join_lane NAME: prints its output and adds its counts. Without counts it has crashed.
join_lane() {
	local p f s
	wait "${lanes[$1]}"
	unset "lanes[$1]"
	cat "$logs/$1.out"
	read -r p f s <"$logs/$1.counts" || { p=0 f=1 s=0; echo "FAIL  the checks beside the tests died: $1"; }
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

# shellcheck disable=SC2317 # by the trap
end() {
	for lane in "${lanes[@]}"; do
		kill -TERM -- "-$lane" 2>/dev/null
	done
	rm -rf "$logs"
}

# The process group of each lane that runs.
declare -A lanes=()
trap end EXIT
trap 'exit 130' INT TERM
scripts/deps.sh || { failed=1; finish; }
jobs=$(nproc)
step "build" make -s -j"$jobs" all test-tools || finish

if [ $# -gt 0 ]; then
	end_to_end "$@"
	finish
fi

set -m # process groups of their own, to be ended as a whole
(code_lane) >"$logs/code.out" 2>&1 </dev/null &
lanes[code]=$!
(unit_lane) >"$logs/unit.out" 2>&1 </dev/null &
lanes[unit]=$!
set +m
# Three workers, each with its own network. The tests of a file run in the same worker.
end_to_end -n 3 --dist loadfile
join_lane code
join_lane unit
# By themselves: what a kernel does within a second is part of their checks, and a machine in a machine
# that waits for a processor misses it.
other_kernels
finish
