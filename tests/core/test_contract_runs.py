"""`pytest tests/contract --plugin FILE` runs the tests of the plugin's parts, and of no others."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from forked import Forked

ROOT = Path(__file__).parents[2]

LAZY_SAMPLER = '''
from coach.core.registry import register
from coach.memories.samplers.uniform import Uniform


@register("sampler", "first_env")
class FirstEnv(Uniform):
    """Draws rows of environment 0."""

    def draw(self, stripes, count, step, rng):
        index, weight = super().draw(stripes, count, step, rng)
        return index % stripes.rows, weight
'''

CHOOSY = '''
from coach.agents.dqn import DQN
from coach.architectures.heads.q import Q
from coach.core.errors import SettingError
from coach.core.registry import register
from gymnasium import spaces


@register("head", "choosy_q")
class ChoosyQ(Q):
    """Values of three actions.

    Args:
        huber_delta: as of q.
        noisy: as of q.
    """

    def __init__(self, features, spec, huber_delta=1.0, noisy=False):
        if spec.action != spaces.Discrete(3):
            raise SettingError("", "three choices, please")
        super().__init__(features, spec, huber_delta, noisy)


@register("agent", "choosy")
class Choosy(DQN):
    """Learns from vectors with three choices alone."""

    def __init__(self, spec):
        if not isinstance(spec.observation, spaces.Box) or len(spec.observation.shape) != 1:
            raise SettingError("", "vectors, please")
        if spec.action != spaces.Discrete(3):
            raise SettingError("", "three choices, please")
        super().__init__(spec, target_every=5)
'''


def contract(plugin: Path, *options: str) -> tuple[int, str]:
    command = ["tests/contract", "--plugin", str(plugin), *options, "-p", "no:cacheprovider"]
    process = Forked(_pytest, command, output=plugin.with_name("printed.txt"))
    return process.wait(), process.printed()


def _pytest(command: list[str]) -> int:
    os.chdir(ROOT)
    return int(pytest.main(command))


def test_a_sampler_that_reads_one_environment_fails_its_own_tests_alone(tmp_path: Path) -> None:
    plugin = tmp_path / "lazy.py"
    plugin.write_text(LAZY_SAMPLER)
    status, said = contract(plugin, "-rA")
    assert status == 1, said
    outcomes = re.findall(r"^(PASSED|FAILED) .*\[(.*)\]", said, re.MULTILINE)
    assert outcomes
    assert all("first_env" in parameters for _, parameters in outcomes), said
    assert any(outcome == "FAILED" for outcome, _ in outcomes)
    assert "rows that were never drawn" in said


def test_parts_that_decline_spaces_in_their_own_words_pass(tmp_path: Path) -> None:
    plugin = tmp_path / "choosy.py"
    plugin.write_text(CHOOSY)
    status, said = contract(plugin, "-rA", "-k", "refus or serves or acts_and or rows_to_rows")
    assert status == 0, said[-4000:]
    for words in ("test_acts_and_learns[choosy-vector-discrete]", "choosy_q", "deselected"):
        assert words in said
    assert "[dqn" not in said


def test_a_plugin_without_parts_is_an_error(tmp_path: Path) -> None:
    plugin = tmp_path / "empty.py"
    plugin.write_text("x = 1\n")
    status, said = contract(plugin)
    assert status == 4
    assert "registers no parts" in said
