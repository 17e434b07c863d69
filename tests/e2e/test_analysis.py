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


def coverage(*args):
    return subprocess.run([COVERAGE, *args], capture_output=True, text=True, check=False)


@pytest.fixture(name="counted")
def counted_fixture(tmp_path):
    """user/base/hash.c with counters, and a program that uses it if it is told to."""
    folder = tmp_path / "user" / "base"
    folder.mkdir(parents=True)
    source, program = tmp_path / "main.c", tmp_path / "main"
    source.write_text("#include \"base/hash.h\"\nint main(int argc, char **argv)\n"
                      "{ return argc > 1 && !hash_bytes(0, argv[1], 1); }\n")
    flags = ["gcc", "-O0", "-g", "-D_GNU_SOURCE", "-Iuser", "-Iinclude"]
    subprocess.run([*flags, "--coverage", "-c", "user/base/hash.c", "-o", folder / "hash.o"],
                   cwd=ROOT, check=True)
    subprocess.run([*flags, source, folder / "hash.o", "--coverage", "-o", program], cwd=ROOT, check=True)
    return types.SimpleNamespace(build=str(tmp_path), program=str(program))


def test_lines_that_have_not_run_are_shown(counted):
    run_checked([counted.program])
    done = coverage(counted.build)
    assert done.returncode == 1 and "0.0 % of the lines have run, 85 % are wanted" in done.stderr
    assert coverage(counted.build, "--uncovered", "user/base/hash.c").stdout.strip()


def test_lines_that_have_run_count(counted):
    run_checked([counted.program, "x"])
    done = coverage(counted.build, "--files")
    assert done.returncode == 0, done
    assert "user/base/hash.c" in done.stdout and "100.0 %" in done.stdout


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
