"""Every remedy that errors about observations, pictures and actions name: it is carried out."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import worlds
import yaml
from coach.core.errors import SettingError
from coach.runners.training import start
from gymnasium import spaces
from rich.console import Console

F, INF = np.float32, np.inf
UNIT = spaces.Box(0, 1, (2,), F)


class Mission(spaces.Space[str]):
    """A space that Gymnasium does not know, as MiniGrid's missions are."""

    def __init__(self) -> None:
        super().__init__((), None)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        return "go"


GRAPH = spaces.Graph(spaces.Box(-1, 1, (3,)), None)
OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "vector": UNIT,
    "camera": spaces.Box(0, 255, (20, 24, 3), np.uint8),
    "planes": spaces.Box(0, 255, (3, 20, 24), np.uint8),
    "board": spaces.Box(0, 1, (6, 6, 9), F),
    "flat picture": spaces.Box(0, 255, (40, 44), np.uint8),
    "voxels": spaces.Box(0, 255, (1, 5, 5, 5), np.uint8),
    "choice": spaces.Discrete(4),
    "tuple": spaces.Tuple([spaces.Discrete(3), UNIT]),
    "text beside": spaces.Dict(x=UNIT, note=spaces.Text(4)),
    "deep text": spaces.Dict(x=spaces.Dict(note=spaces.Text(4), y=UNIT), z=UNIT),
    "mission": spaces.Dict(image=UNIT, direction=spaces.Discrete(4), mission=Mission()),
    "graph beside": spaces.Dict(graph=GRAPH, x=UNIT),
    "sequence beside": spaces.Dict(s=spaces.Sequence(UNIT), x=spaces.MultiBinary(3)),
    "graph": GRAPH,
    "mission alone": Mission(),
}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "two": spaces.Discrete(2),
    "lever": spaces.Box(-1, 1, (1,), F),
    "half": spaces.Box(0, INF, (1,), F),
    "whole": spaces.Box(-INF, INF, (2,), F),
    "below": spaces.Box(-INF, -7, (1,), F),
    "float max": spaces.Box(np.finfo(F).min, np.finfo(F).max, (2, 2), F),
    "mixed": spaces.Box(np.array([-INF, 0, -3], F), np.array([INF, INF, 3], F)),
    "integers": spaces.Box(-INF, INF, (1,), np.int64),
    "bits": spaces.MultiBinary(2),
    "choices": spaces.MultiDiscrete([2, 3]),
    "nested": spaces.Dict(a=spaces.Discrete(2)),
}


class World(worlds.World):
    """Shows and takes samples of any two spaces of this file, by their names."""

    def __init__(self, shows: str, takes: str) -> None:
        given = copy.deepcopy(OBSERVATIONS[shows]), copy.deepcopy(ACTIONS[takes])
        super().__init__(*given, terminates=True)


HERE = Path(__file__)
REPLAY = {"type": "replay", "capacity": 200, "batch_size": 4, "warmup": 8, "updates_per_step": 0.25}
DQN = {"type": "dqn", "network": {"heads": {"q": "q"}}}
PPO = {"type": "ppo"}
ROLLOUT = {"type": "rollout", "horizon": 8, "epochs": 1, "batch_size": 8}


def settings_of(shows: str, takes: str, agent: dict[str, Any]) -> dict[str, Any]:
    return {
        "environment": {"id": f"{HERE}:World", "kwargs": {"shows": shows, "takes": takes}},
        "agent": agent,
        "memory": ROLLOUT if agent["type"] in ("ppo", "actor_critic") else REPLAY,
        "run": {"steps": 24},
        "evaluation": {"every": 0},
    }


def train(settings: dict[str, Any], folder: Path) -> None:
    """A whole run; its weights are finite afterwards."""
    run = start("remedy", copy.deepcopy(settings), folder, Console(quiet=True), [], quiet=True)
    run.train()
    assert run.experiment.learner.version > 0
    assert all(bool(p.isfinite().all()) for p in run.experiment.agent.parameters())


def refusal(settings: dict[str, Any], folder: Path) -> SettingError:
    with pytest.raises(SettingError) as raised:
        train(settings, folder)
    return raised.value


def remedied(settings: dict[str, Any], key: str, snippet: str) -> dict[str, Any]:
    """The settings with ``path: value`` set, a path of the preset or one beside ``key``."""
    ((path, value),) = yaml.safe_load(snippet).items()
    changed = copy.deepcopy(settings)
    parts = path.split(".")
    if parts[0] not in settings:
        parts = [*key.split(".")[:-1], *parts]
    section = changed
    for part in parts[:-1]:
        section = section.setdefault(part, {})
    section[parts[-1]] = value
    return changed


def embedded(embedder: Any, agent: str = "dqn") -> dict[str, Any]:
    return {"type": agent, "network": {"heads": {"q": "q"}, "embedder": embedder}}


CASES: dict[str, tuple[str, str, dict[str, Any], int]] = {
    # name: observation, action, agent, how many remedies there are
    "sac without bounds": ("vector", "whole", {"type": "sac"}, 1),
    "sac with half a bound": ("vector", "half", {"type": "sac"}, 1),
    "sac below a bound": ("vector", "below", {"type": "sac"}, 1),
    "sac with bounds of float max": ("vector", "float max", {"type": "sac"}, 1),
    "sac with some bounds": ("vector", "mixed", {"type": "sac"}, 1),
    "sac with integers": ("vector", "integers", {"type": "sac"}, 1),
    "naf without bounds": ("vector", "mixed", {"type": "naf"}, 1),
    "noise without bounds": ("vector", "half", {"type": "sac", "exploration": "gaussian"}, 1),
    "small camera": ("camera", "two", DQN, 3),
    "small planes": ("planes", "two", DQN, 2),
    "small board": ("board", "two", DQN, 2),
    "too large kernels": ("camera", "two", embedded({"type": "cnn", "layers": [[4, 25, 9]]}), 3),
    "nature_cnn for a vector": ("vector", "two", embedded("nature_cnn"), 1),
    "cnn for a choice": ("choice", "two", embedded("cnn"), 1),
    "impala_cnn for voxels": ("voxels", "two", embedded("impala_cnn"), 1),
    "cnn for a picture without channels": ("flat picture", "two", embedded("cnn"), 2),
    "tuple": ("tuple", "two", DQN, 1),
    "text beside": ("text beside", "two", DQN, 2),
    "deep text": ("deep text", "two", DQN, 2),
    "mission": ("mission", "two", DQN, 1),
    "graph beside": ("graph beside", "two", DQN, 1),
    "sequence beside": ("sequence beside", "two", DQN, 1),
}


@pytest.mark.parametrize("case", CASES)
def test_every_remedy_in_backticks_trains(case: str, tmp_path: Path) -> None:
    shows, takes, agent, count = CASES[case]
    settings = settings_of(shows, takes, agent)
    error = refusal(settings, tmp_path)
    snippets = re.findall(r"`([^`]+)`", error.remedy)
    assert len(snippets) == count, error.remedy
    for snippet in snippets:
        train(remedied(settings, error.key, snippet), tmp_path)


@pytest.mark.parametrize(
    ("shows", "takes"), [("graph", "two"), ("mission alone", "lever"), ("vector", "nested")]
)
def test_what_takes_a_wrapper_of_ones_own_says_so(shows: str, takes: str, tmp_path: Path) -> None:
    error = refusal(settings_of(shows, takes, PPO), tmp_path)
    assert "Wrapper of your own" in error.remedy


def test_the_wrapper_that_the_docs_show_trains(tmp_path: Path) -> None:
    docs = (HERE.parents[2] / "docs" / "environments.md").read_text()
    blocks = [text for text in re.findall(r"```python\n(.*?)```", docs, re.S) if "Nodes" in text]
    file = tmp_path / "my_wrappers.py"
    file.write_text(blocks[0])
    settings = settings_of("graph", "two", PPO)
    settings["environment"]["wrappers"] = [f"{file}:Nodes"]
    train(settings, tmp_path)


@pytest.mark.parametrize("takes", ["two", "lever", "whole", "float max", "bits", "choices"])
def test_an_agent_that_does_not_fit_names_those_that_do(takes: str, tmp_path: Path) -> None:
    wrong = "sac" if takes in ("two", "bits", "choices") else "dqn"
    error = refusal(settings_of("vector", takes, {"type": wrong}), tmp_path)
    named = re.search(r"Choose agent ([\w, ]+?)(?: or (\w+))?[.;]", error.remedy)
    assert named, error.remedy
    agents = [name for part in named.groups() if part for name in part.split(", ")]
    assert agents
    for agent in agents:
        train(settings_of("vector", takes, {"type": agent}), tmp_path)


@pytest.mark.parametrize("takes", ["float max", "mixed", "integers"])
def test_unbounded_actions_need_no_remedy_for_ppo(takes: str, tmp_path: Path) -> None:
    train(settings_of("vector", takes, PPO), tmp_path)


def test_without_a_backend_there_are_wrappers_and_every_environment(tmp_path: Path) -> None:
    for environment in (
        {"id": "CartPole-v1", "backend": "gymnasium", "wrappers": ["FlattenObservation"]},
        {"id": "Acrobot-v1", "backend": "gymnasium"},
        {"id": "corners", "backend": "gymnasium"},
    ):
        settings = settings_of("vector", "two", DQN) | {"environment": environment}
        error = refusal(settings, tmp_path)
        assert "Remove environment.backend" in error.remedy
        del environment["backend"]
        train(settings, tmp_path)


def test_measurements_are_added_by_the_wrapper_that_is_named(tmp_path: Path) -> None:
    settings = settings_of("vector", "two", {"type": "dfp"})
    error = refusal(settings, tmp_path)
    wrapper = re.search(r"wrapper (\S+:\w+)", error.remedy)
    assert wrapper
    settings["environment"]["wrappers"] = [wrapper[1]]
    settings["agent"] |= {"offsets": [1, 2], "offset_weights": [0.5, 1]}
    train(settings, tmp_path)
