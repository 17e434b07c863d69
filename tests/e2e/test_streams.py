# SPDX-License-Identifier: BSD-2-Clause
"""Twenty open streams and a hundred connects a second, whatever is done to KubeLB: none
fails and none breaks. (Packages and images: test_package.py, test_image.py.)"""

import pytest

from helpers import Held, Traffic, next_version, ok, wait_states


def load_again(stage):
    ok(stage.load())


def load_with_changes(stage):
    stage.configure(policy="random", backends=[b.endpoint for b in stage.backends[:2]])
    ok(stage.load())


def upgrade_and_back(stage):
    following = next_version(stage)
    ok(stage.exec([following, "-c", stage.config, "--pin", stage.pin]))
    ok(stage.load())


def agent_killed_and_started(stage):
    for end in ("kill9", "stop"):
        agent = stage.agent()
        wait_states(stage, "ready", stage.backends)
        getattr(agent, end)()


@pytest.mark.parametrize("act", [load_again, load_with_changes, upgrade_and_back,
                                 agent_killed_and_started], ids=lambda f: f.__name__)
def test_streams_and_connects_go_on(attached, act):
    with Held(attached, 20) as held, Traffic(attached, rate=100):
        act(attached)
        assert held.close()["closed"] == 0
