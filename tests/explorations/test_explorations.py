"""How often what is done: frequencies, bounds, schedules, evaluation, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.exploration import Exploration
from coach.core.registry import entries
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.functional.distributions import (
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
    SquashedGaussian,
)
from coach.functional.values import ScalarValues
from gymnasium import spaces

DRAWS = 20_000
BOX = spaces.Box(np.array([-1, 0], np.float32), np.array([1, 4], np.float32))
ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(3, start=5),
    "box": BOX,
    "multi_discrete": spaces.MultiDiscrete([2, 4]),
    "multi_binary": spaces.MultiBinary(3),
}
VALUES = ScalarValues(torch.tensor([[0.0, 2.0, 1.0]]).expand(DRAWS, 3))


def spec(action: str = "discrete") -> Spec:
    return Spec(spaces.Box(-1, 1, (3,)), ACTIONS[action])


def exploration(settings: Any, action: str = "discrete") -> Exploration:
    built: Exploration = build_part("exploration", settings, "e", spec=spec(action)).value
    return built


def context(step: int = 0, seed: int = 0, explore: bool = True, count: int = DRAWS) -> Context:
    return Context(step, torch.Generator().manual_seed(seed), torch.arange(count), explore)


def shares(action: torch.Tensor, size: int = 3) -> list[float]:
    return (torch.bincount(action, minlength=size) / len(action)).tolist()


#: What a head may hand to an exploration, by kind of output and action space.
OUTPUTS: dict[tuple[str, str], Callable[[int], Any]] = {
    ("values", "discrete"): lambda n: ScalarValues(torch.randn(n, 3)),
    ("distribution", "discrete"): lambda n: Categorical(torch.randn(n, 3)),
    ("distribution", "multi_discrete"): lambda n: MultiCategorical(torch.randn(n, 6), (2, 4)),
    ("distribution", "multi_binary"): lambda n: MultiCategorical(torch.randn(n, 6), (2, 2, 2)),
    ("distribution", "box"): lambda n: SquashedGaussian(torch.randn(n, 2), torch.zeros(2)),
    ("action", "box"): lambda n: torch.rand(n, 2),
}


def readable() -> list[tuple[str, str, str]]:
    """Every registered exploration with every output that it can read."""
    found = []
    for entry in entries("exploration"):
        for provides, action in OUTPUTS:
            try:
                if provides in exploration(entry.name, action).accepts():
                    found.append((entry.name, provides, action))
            except SettingError:
                continue
    return found


@pytest.mark.parametrize(("name", "provides", "action"), readable())
def test_actions_have_the_form_that_is_stored(name: str, provides: str, action: str) -> None:
    torch.manual_seed(0)
    output = OUTPUTS[provides, action](7)
    for explore in (True, False):
        chosen = exploration(name, action)(output, context(count=7, explore=explore))
        space = ACTIONS[action]
        shape = () if isinstance(space, spaces.Discrete) else space.shape
        assert chosen.shape == (7, *shape)  # type: ignore[misc]
        assert chosen.is_floating_point() == (action == "box")


@pytest.mark.parametrize(("name", "provides", "action"), readable())
def test_the_actors_stream_is_the_only_source_of_chance(
    name: str, provides: str, action: str
) -> None:
    output = OUTPUTS[provides, action](64)
    torch.manual_seed(0)
    first = exploration(name, action)(output, context(seed=1, count=64))
    torch.manual_seed(1)
    assert torch.equal(first, exploration(name, action)(output, context(seed=1, count=64)))
    greedy = exploration("greedy", action)(output, context(count=64))
    for seed in (1, 2):
        ctx = context(seed=seed, explore=False, count=64)
        assert torch.equal(exploration(name, action)(output, ctx), greedy)


@pytest.mark.parametrize("name", [entry.name for entry in entries("exploration")])
def test_outputs_that_it_cannot_read_are_refused(name: str) -> None:
    try:
        built = exploration(name, "discrete")
    except SettingError:  # noise needs a range
        built = exploration(name, "box")
    for provides in ("values", "distribution", "action", "value", "action_values"):
        if provides in built.accepts():
            assert built.require("my agent", provides, disturb=True) is built
        else:
            with pytest.raises(
                SettingError, match=f"'{name}' reads .* my agent provides {provides}"
            ):
                built.require("my agent", provides)


def test_epsilon_is_the_share_of_random_actions() -> None:
    chosen = exploration({"type": "epsilon_greedy", "epsilon": 0.3})(VALUES, context())
    assert shares(chosen) == pytest.approx([0.1, 0.8, 0.1], abs=0.01)


def test_epsilon_follows_the_step() -> None:
    settings = {"type": "epsilon_greedy", "epsilon": {"start": 1.0, "end": 0.0, "steps": 100}}
    built = exploration(settings)
    for step, best in ((0, 1 / 3), (50, 2 / 3), (100, 1.0)):
        assert shares(built(VALUES, context(step)))[1] == pytest.approx(best, abs=0.015)
        assert built.monitor(step) == {"epsilon": pytest.approx(1 - step / 100)}


def test_evaluation_has_an_epsilon_of_its_own() -> None:
    settings = {"type": "epsilon_greedy", "epsilon": 1.0, "evaluation_epsilon": 0.15}
    chosen = exploration(settings)(VALUES, context(explore=False))
    assert shares(chosen) == pytest.approx([0.05, 0.9, 0.05], abs=0.01)


@pytest.mark.parametrize(
    "epsilon",
    [
        1.5,
        -0.1,
        {"start": 2.0, "end": 0.1, "steps": 10},
        {"type": "piecewise", "points": [[0, 1.0], [50, 3.0], [100, 0.1]]},
    ],
)
def test_an_epsilon_that_is_no_probability_is_refused(epsilon: Any) -> None:
    with pytest.raises(SettingError, match="epsilon"):
        exploration({"type": "epsilon_greedy", "epsilon": epsilon})


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_boltzmann_draws_in_proportion(temperature: float) -> None:
    chosen = exploration({"type": "boltzmann", "temperature": temperature})(VALUES, context())
    wanted = torch.softmax(VALUES.mean[0] / temperature, -1)
    assert shares(chosen) == pytest.approx(wanted.tolist(), abs=0.012)


def test_boltzmann_without_temperature_is_greedy() -> None:
    settings = {"type": "boltzmann", "temperature": {"start": 1.0, "end": 0.0, "steps": 10}}
    assert shares(exploration(settings)(VALUES, context(10))) == [0, 1, 0]


def test_gaussian_noise_is_in_the_agents_unit() -> None:
    centre = torch.tensor([0.0, 0.4]).expand(DRAWS, 2)
    built = exploration(
        {"type": "gaussian", "scale": {"start": 0.1, "end": 0.0, "steps": 10}}, "box"
    )
    noise = built(centre, context()) - centre
    assert noise.mean(0).tolist() == pytest.approx([0, 0], abs=0.01)
    assert noise.std(0).tolist() == pytest.approx([0.1, 0.1], rel=0.03)
    assert torch.equal(built(centre, context(10)), centre)


def test_gaussian_noise_stays_in_bounds() -> None:
    edge = torch.tensor([1.0, -1.0]).expand(DRAWS, 2)
    chosen = exploration({"type": "gaussian", "scale": 2.0}, "box")(edge, context())
    assert chosen.amin(0).tolist() == [-1, -1]
    assert chosen.amax(0).tolist() == [1, 1]


def test_gaussian_noise_surrounds_the_mode_of_a_distribution() -> None:
    policy = DiagonalGaussian(torch.tensor([[0.5, -0.3]]).expand(DRAWS, 2), torch.full((2,), 3.0))
    chosen = exploration({"type": "gaussian", "scale": 0.01}, "box")(policy, context())
    assert chosen.mean(0).tolist() == pytest.approx([0.5, -0.3], abs=0.01)


@pytest.mark.parametrize("name", ["gaussian", "uniform"])
def test_noise_needs_bounds(name: str) -> None:
    unbounded = Spec(spaces.Discrete(2), spaces.Box(-np.inf, np.inf, (2,)))
    with pytest.raises(SettingError, match=r"bounded actions(.|\n)*BoundActions"):
        build_part("exploration", name, "e", spec=unbounded)


@pytest.mark.parametrize("action", ACTIONS)
def test_uniform_covers_the_space_evenly(action: str) -> None:
    chosen = exploration("uniform", action)(None, context())
    if action == "discrete":
        assert shares(chosen) == pytest.approx([1 / 3] * 3, abs=0.015)
    elif action == "box":
        assert chosen.mean(0).tolist() == pytest.approx([0, 0], abs=0.02)
        assert chosen.var(0).tolist() == pytest.approx([4 / 12, 4 / 12], rel=0.03)
        assert (chosen.abs() <= 1).all()
    else:
        sizes = [2, 4] if action == "multi_discrete" else [2, 2, 2]
        for column, size in zip(chosen.unbind(-1), sizes):
            assert shares(column, size) == pytest.approx([1 / size] * size, abs=0.015)


def test_uniform_hands_over_after_its_steps() -> None:
    settings = {"type": "uniform", "steps": 100, "then": {"type": "epsilon_greedy", "epsilon": 0.3}}
    built = exploration(settings)
    assert built.accepts() == ("values",)
    assert shares(built(VALUES, context(99))) == pytest.approx([1 / 3] * 3, abs=0.015)
    assert shares(built(VALUES, context(100))) == pytest.approx([0.1, 0.8, 0.1], abs=0.01)
    assert shares(built(VALUES, context(0, explore=False))) == [0, 1, 0]
    assert built.monitor(99) == {}
    assert built.monitor(100) == {"epsilon": 0.3}


def test_sampling_may_go_on_while_evaluating() -> None:
    policy = Categorical(torch.log(torch.tensor([[0.2, 0.5, 0.3]])).expand(DRAWS, 3))
    drawing = exploration({"type": "sample", "evaluation_mode": False})
    for built, explore in ((drawing, False), (drawing, True), (exploration("sample"), True)):
        chosen = built(policy, context(explore=explore))
        assert shares(chosen) == pytest.approx([0.2, 0.5, 0.3], abs=0.012)
    assert shares(exploration("sample")(policy, context(explore=False))) == [0, 1, 0]
