#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds with gcc's counters into build/coverage, runs the unit tests and the end-to-end tests, and
# prints how many lines of user/ have run. Slow: without optimization, on top of the test command's time.
#
#   scripts/coverage.sh                 all parts, from zero: the unit tests, and each file of tests/e2e
#   scripts/coverage.sh --for SECONDS   parts that have not run yet; starts none when the time is over
#   scripts/coverage.sh PART...         these again: `units`, or files such as tests/e2e/test_live.py
#
# Each part has its own counters, in build/coverage/parts; `scripts/coverage.py build/coverage` adds them
# up. JOBS parts run at a time (3). A test that fails is named, and its lines count all the same. Exit
# status: 0 the target of scripts/coverage.py is reached, 1 it is not, or a test has failed, 3 parts are left.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

build=$PWD/build/coverage
parts=$build/parts
# They test builds of their own, no program, or clocks that have no time for counters.
without=(test_package test_image test_chart test_rpm test_dist test_docs test_layers test_bench
	test_security test_scripts test_fleet test_alerts test_world test_world_h2 test_simulate
	test_ansible test_k8s_check test_analysis test_apiserver test_figures test_release test_report)

all_parts() {
	local file
	echo units
	for file in tests/e2e/test_*.py; do
		file=$(basename "$file" .py)
		[[ " ${without[*]} " == *" $file "* ]] || echo "$file"
	done
}

units() {
	local program failed=0
	for program in "$build"/test/test_*; do
		[[ $program == *.[od] || $program == *.gc* || ! -x $program ]] && continue
		timeout 300 "$program" && continue
		failed=1
		echo "FAILED unit ${program##*/test_}"
	done
	return $failed
}

# part NAME: runs it, unless the time is over.
part() {
	local name=$1 dir=$parts/$1 begin=$SECONDS strip status=0
	[ "$(date +%s)" -lt "${COVERAGE_UNTIL:-9999999999}" ] || return 0
	rm -rf "$dir" "$dir".uid*
	mkdir -p "$dir"
	# Another user's process has a folder beside it: tests/coverage.c.
	chmod 1777 "$parts"
	: >"$dir/errors"
	chmod 666 "$dir/errors"
	# Counters go there, below the objects' names, and what libgcov has to say to a file, also
	# of another user's process: programs' standard error is what tests read. Agents end by SIGTERM, or their counters are lost.
	strip=$(tr -cd / <<<"$build" | wc -c)
	export GCOV_PREFIX=$dir GCOV_PREFIX_STRIP=$strip GCOV_ERROR_FILE=$dir/errors
	export KUBELB_BUILD=$build KUBELB_END=TERM
	if [ "$name" = units ]; then
		units >"$dir/log" 2>&1 || status=1
	else
		timeout 1200 /usr/bin/python3 -m pytest -q -p no:cacheprovider \
			"tests/e2e/$name.py" >"$dir/log" 2>&1 || status=1
	fi
	# Counters that libgcov could not add to: some are missing.
	grep -qs mismatch "$dir/errors" && status=1
	echo "$status $((SECONDS - begin))" >"$dir/result"
	[ $status -eq 0 ] && echo "ok    $name, $((SECONDS - begin)) s" && return
	echo "FAIL  $name: see ${dir#"$PWD"/}/log"
	grep -hs -e '^FAILED' -e '^ERROR' -e mismatch "$dir/log" "$dir/errors" | head -n 20
	return 0
}

case ${1:-} in
-h | --help)
	sed -n '3,12s/^# \{0,1\}//p' "$0"
	exit 0
	;;
--part) # by this script
	part "$2"
	exit
	;;
esac
if [ "$(id -u)" -ne 0 ]; then
	echo "coverage.sh: must run as root: the tests attach BPF programs in network namespaces" >&2
	exit 1
fi
scripts/deps.sh || exit 1
# tests/coverage.h: the counters of children. A new commit is no reason to make an object anew, to which
# older counters would no longer fit.
keep=()
[ -e build/coverage/commit ] && keep=(-o build/coverage/commit)
mkdir -p build/coverage
gcc -O2 -D_GNU_SOURCE -fPIC -c tests/coverage.c -o build/coverage/place.o || exit 1
make "${keep[@]}" -s -j"$(nproc)" B=build/coverage CFLAGS='-O0 -g --coverage -fprofile-update=atomic' CPPFLAGS='-include tests/coverage.h' \
	LDFLAGS='--coverage build/coverage/place.o' all test-tools || exit 1

wanted=()
case ${1:-} in
--for)
	export COVERAGE_UNTIL=$(($(date +%s) + ${2:?seconds}))
	while read -r name; do
		[ -e "$parts/$name/result" ] || wanted+=("$name")
	done < <(all_parts)
	;;
'')
	rm -rf "$parts"
	find "$build" -name '*.gcda' -delete
	mapfile -t wanted < <(all_parts)
	;;
*)
	for name in "$@"; do
		wanted+=("$(basename "$name" .py)")
	done
	;;
esac
[ ${#wanted[@]} -eq 0 ] || printf '%s\n' "${wanted[@]}" | xargs -P "${JOBS:-3}" -n 1 scripts/coverage.sh --part

left=0
for name in "${wanted[@]}"; do
	[ -e "$parts/$name/result" ] || left=$((left + 1))
done
scripts/coverage.py "$build"
status=$?
[ $left -eq 0 ] || { echo "$left parts are left: run the same again"; exit 3; }
grep -qs '^1' "$parts"/*/result && status=1
exit $status
