# SPDX-License-Identifier: BSD-2-Clause
"""Bad configurations: told by file, line and key, and nothing is changed.

The table is shared with the unit tests: tests/data/bad_config.json, a list of
{"name", "yaml", "line", "key"}.
"""

import json
import os

import pytest

import helpers
from helpers import fails, ok, raw_maps, served_set
from world import ROOT

TABLE = os.path.join(ROOT, "tests", "data", "bad_config.json")


def cases():
    if not os.path.exists(TABLE):
        return []
    with open(TABLE, encoding="utf-8") as f:
        return json.load(f)


@pytest.fixture(scope="module", name="settled")
def settled_fixture(world):
    """Attached once for the whole table, with the maps as they are then."""
    helpers.ok(world.load())
    yield world, raw_maps(world)
    world.reset()


def test_the_table_is_there():
    assert cases(), f"{TABLE} is missing or empty"


@pytest.mark.parametrize("case", cases(), ids=lambda c: c["name"])
def test_bad_configuration(settled, case, tmp_path):
    world, maps = settled
    path = world.configure(str(tmp_path / "bad.yaml"), text=case["yaml"])
    words = [f"{path}:{case['line']}" if case.get("line") else path]
    words += [case["key"]] if case.get("key") else []
    fails(world.load(config=path), 2, *words)
    assert raw_maps(world) == maps


def test_still_working_after_all_of_them(settled):
    world, maps = settled
    assert raw_maps(world) == maps
    assert served_set(world, 60) == {"cp1", "cp2", "cp3"}


def test_not_even_a_file(settled, tmp_path):
    world, maps = settled
    fails(world.load(config=str(tmp_path)), 2, str(tmp_path))
    huge = world.configure(str(tmp_path / "huge.yaml"), text="#" * (2 << 20))
    fails(world.load(config=huge), 2, huge)
    assert raw_maps(world) == maps


def test_minimal_configuration(settled, tmp_path):
    """Backends alone are enough; defaults are 127.0.0.1:6443 and [::1]:6443."""
    world, _maps = settled
    path = world.configure(str(tmp_path / "good.yaml"),
                           text=f"backends:\n  - {world.cp(2).v4}\n")
    ok(world.load(config=path))
    assert served_set(world) == {"cp2"}
    assert served_set(world, host="::1") == {"cp2"}
    ok(world.load())
