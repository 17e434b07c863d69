# SPDX-License-Identifier: BSD-2-Clause
"""The tools that look at the code as it runs, scripts/coverage.py and scripts/valgrind.sh: they see
what is there to be seen."""

import os
import shutil
import subprocess
import sys
import types

import pytest

from system import run_checked
from world import ROOT

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bench"))
import memcheck  # noqa: E402  (after sys.path)

COVERAGE = os.path.join(ROOT, "scripts", "coverage.py")
GOOD = "int main(void) { free(malloc(4)); return 0; }"
LEAK = "int main(void) { return !malloc(4); }"
# Volatile: no compiler is to see what valgrind should.
UNSET = "int main(void) { volatile int *p = malloc(4); int r = *p ? 1 : 2; free((void *)p); return r & 4; }"


def run(argv, env=None):
    return subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT, env=env)


def coverage(*args):
    return subprocess.run([COVERAGE, *args], capture_output=True, text=True, check=False)


@pytest.fixture(name="counted")
def counted_fixture(tmp_path):
    """user/base/hash.c with counters, and a program that uses it if it is told to. make() builds them
    anew."""
    folder = tmp_path / "user" / "base"
    folder.mkdir(parents=True)
    source, program = tmp_path / "main.c", tmp_path / "main"
    flags = ["gcc", "-O0", "-g", "-D_GNU_SOURCE", "-Iuser", "-Iinclude", "--coverage"]

    def make(text="int main(int argc, char **argv) { return argc > 1 && !hash_bytes(0, argv[1], 1); }",
             *more):
        source.write_text(f'#include "base/hash.h"\n{text}\n')
        run([*flags, "-c", "user/base/hash.c", "-o", folder / "hash.o"])
        run([*flags, *more, source, folder / "hash.o", "-o", program])

    make()
    return types.SimpleNamespace(build=str(tmp_path), program=str(program), make=make)


def test_lines_that_have_not_run_are_shown(counted):
    run([counted.program])
    done = coverage(counted.build)
    assert done.returncode == 1 and "0.0 % of the lines have run, 85 % are wanted" in done.stderr
    assert coverage(counted.build, "--uncovered", "user/base/hash.c").stdout.strip()


def test_lines_that_have_run_count(counted):
    run([counted.program, "x"])
    done = coverage(counted.build, "--files")
    assert done.returncode == 0, done
    assert "user/base/hash.c" in done.stdout and "100.0 %" in done.stdout


def test_what_is_wanted_can_be_said(counted):
    run([counted.program])
    assert coverage(counted.build, "--at-least", "0").returncode == 0
    done = coverage(counted.build, "--at-least", "0.5")
    assert done.returncode == 1 and "0.5 % are wanted" in done.stderr


def in_part(counted, name):
    strip = len(counted.build.strip("/").split("/"))
    return {**os.environ, "GCOV_PREFIX": f"{counted.build}/parts/{name}", "GCOV_PREFIX_STRIP": str(strip)}


def test_counters_of_parts_add_up(counted):
    """Each part has run some lines; a part that has run all makes the total whole."""
    run([counted.program], env=in_part(counted, "little"))
    run([counted.program, "x"], env=in_part(counted, "all"))
    done = coverage(counted.build, "--parts", "--functions")
    assert done.returncode == 0 and "100.0 %" in done.stdout
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line}
    assert rows["all"][0] == rows["all"][1] != "0" and "little" not in rows


def test_lines_of_an_older_build_do_not_count(counted):
    run([counted.program, "x"], env=in_part(counted, "before"))
    counted.make()
    done = coverage(counted.build)
    assert done.returncode == 1 and " 0.0 % of the lines" in done.stderr
    assert "up to 1 objects have been built since" in done.stderr and "count: before\n" in done.stderr


def test_a_child_counts_what_its_last_call_runs(counted):
    """It ends by _exit, and has a limit on files for which its counters are too large."""
    counted.make("""#include <signal.h>
                 #include <sys/resource.h>
                 #include <sys/wait.h>
                 int main(int argc, char **argv) {
                 const struct rlimit small = { 64, RLIM_INFINITY };
                 int status;
                 if (!fork()) {
                 signal(SIGXFSZ, SIG_IGN);
                 setrlimit(RLIMIT_FSIZE, &small);
                 _exit(hash_bytes(0, argv[0], 1) ? 0 : 1);
                 }
                 return wait(&status) < 0 || status || argc > 1; }""", "-include", "tests/coverage.h")
    for _ in range(2):
        done = run([counted.program])
        assert not done.stderr, done
    assert "100.0 %" in coverage(counted.build).stdout


def test_a_build_without_counters_is_told(tmp_path):
    done = coverage(str(tmp_path))
    assert done.returncode == 1 and done.stderr.startswith(f"coverage.py: {tmp_path} has no notes")


@pytest.mark.parametrize("text, word", [(GOOD, None), (LEAK, "definitely lost"),
                                        (UNSET, "uninitialised value")])
def test_memcheck_finds_what_is_wrong(tmp_path, text, word):
    if not shutil.which("valgrind"):
        pytest.skip("valgrind is not installed")
    world = types.SimpleNamespace(dir=str(tmp_path))
    (tmp_path / "p.c").write_text(f"#include <stdlib.h>\n{text}\n")
    run_checked(["gcc", "-O0", "-g", "-o", f"{tmp_path}/p", f"{tmp_path}/p.c"])
    run_checked([*memcheck.valgrind(world, "p"), f"{tmp_path}/p"])
    problems = memcheck.judge(world)
    assert (len(problems), word is None or word in problems[0]) == (0 if word is None else 1, True)


def test_a_process_that_was_killed_is_no_clean_one(tmp_path):
    (tmp_path / "memcheck-agent.1").write_text("==1== Memcheck, a memory error detector\n")
    assert "no summary" in memcheck.judge(types.SimpleNamespace(dir=str(tmp_path)))[0]


def test_nothing_run_is_no_success(tmp_path):
    assert memcheck.judge(types.SimpleNamespace(dir=str(tmp_path))) == ["valgrind has written no log"]
