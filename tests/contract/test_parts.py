"""What every registered head, embedder, middleware, exploration, memory and optimizer has to do.

Run against parts of your own: pytest tests/contract --plugin path/to/parts.py
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from coach.core.batch import Batch
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.memory import Memory
from coach.core.optimizer import Optimizer
from coach.core.registry import entries, find
from coach.core.schema import Part, build_part, parameters
from coach.core.spec import Spec
from coach.environments.actions import to_environment
from coach.environments.serial import SerialEnvs
from coach.functional.distributions import Categorical, DiagonalGaussian
from coach.functional.values import EnsembleValues, ScalarValues
from gymnasium import spaces
from torch import Tensor, nn
from worlds import ACTIONS, OBSERVATIONS, World, ours


def names(kind: str) -> list[str]:
    return [entry.name for entry in entries(kind)]


def first_spec(kind: str, name: str) -> Spec:
    """A spec that the part serves."""
    for action in ACTIONS.values():
        spec = Spec(OBSERVATIONS["vector"], action)
        try:
            Part.of(kind, name)(features=6, spec=spec)
        except SettingError:
            continue
        return spec
    raise AssertionError(f"{kind} {name} serves no action space")


def tensors_of(output: Any, spec: Spec) -> list[Tensor]:
    """Everything in a head's output that has a row per observation."""
    if isinstance(output, Tensor):
        return [output]
    if callable(output):
        size = 1 if not spec.action.shape else spec.action.shape[0]
        return [output(torch.zeros(4, size)).t()]
    if hasattr(output, "log_prob"):
        return [output.log_prob(output.mode()), output.entropy()]
    return [output.mean]


@pytest.mark.parametrize("name", names("head"))
def test_heads_map_rows_to_rows(name: str) -> None:
    spec = first_spec("head", name)
    torch.manual_seed(0)
    head = Part.of("head", name)(features=6, spec=spec)
    features = torch.randn(4, 6)
    changed = features.clone()
    changed[1:] += 1
    for before, after in zip(tensors_of(head(features), spec), tensors_of(head(changed), spec)):
        assert before.shape[0] == 4
        assert torch.isfinite(before).all()
        torch.testing.assert_close(before[0], after[0])


@pytest.mark.parametrize("name", names("head"))
def test_gradients_reach_every_parameter_of_a_head(name: str) -> None:
    spec = first_spec("head", name)
    head: nn.Module = Part.of("head", name)(features=6, spec=spec)
    features = torch.randn(4, 6, requires_grad=True)
    output = head(features)
    if hasattr(output, "log_prob"):
        action = output.sample(Context(0, torch.Generator().manual_seed(0), torch.arange(4)))
        total = output.log_prob(action).sum()
    elif hasattr(output, "td_loss"):
        nothing = torch.zeros(4)
        total = output.td_loss(nothing.long(), nothing, nothing, output, output.best())[0].sum()
    else:
        total = sum(tensor.square().sum() for tensor in tensors_of(output, spec))
    total.backward()
    learned = [p for p in head.parameters() if p.requires_grad]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in learned)


@pytest.mark.parametrize("name", names("head"))
def test_heads_refuse_action_spaces_they_do_not_serve(name: str) -> None:
    for action in ACTIONS.values():
        spec = Spec(OBSERVATIONS["vector"], action)
        try:
            Part.of("head", name)(features=6, spec=spec)
        except SettingError as error:
            assert "serves" in str(error) or not ours("head", name)  # noqa: PT017


@pytest.mark.parametrize("name", names("embedder"))
def test_embedders_serve_an_observation_and_say_how_wide_they_are(name: str) -> None:
    served = 0
    for key, space in OBSERVATIONS.items():
        if isinstance(space, spaces.Dict):
            continue
        try:
            embedder = Part.of("embedder", name)(space=space)
        except SettingError:
            continue
        served += 1
        space.seed(0)
        obs = torch.stack([torch.as_tensor(space.sample()) for _ in range(4)])
        features = embedder(obs)
        assert features.shape == (4, embedder.features), key
        assert features.dtype == torch.float32
        torch.testing.assert_close(features[:1], embedder(obs[:1]), rtol=1e-4, atol=1e-5)
    assert served


@pytest.mark.parametrize("name", names("middleware"))
def test_middlewares_say_how_wide_they_are(name: str) -> None:
    middleware = Part.of("middleware", name)(features=6)
    features, state = middleware(torch.randn(4, 6), middleware.initial_state(4))
    assert features.shape == (4, middleware.outputs)
    assert (state is None) == (middleware.initial_state(4) is None)


def ensemble(every: Tensor) -> EnsembleValues:
    return EnsembleValues(every.mean(0), every)


OUTPUTS: dict[str, tuple[str, Any]] = {
    "values": ("discrete", lambda n: ScalarValues(torch.randn(n, 3))),
    "distribution": ("discrete", lambda n: Categorical(torch.randn(n, 3))),
    "ensemble_values": ("discrete", lambda n: ensemble(torch.randn(5, n, 3))),
    "action": ("box", lambda n: torch.rand(n, 2)),
}
BOXED: dict[str, Any] = {
    "distribution": lambda n: DiagonalGaussian(torch.rand(n, 2), torch.zeros(2)),
    "action": lambda n: torch.rand(n, 2),
}


def explorations() -> list[tuple[str, str, str]]:
    found = []
    for name in names("exploration"):
        for action in ("discrete", "box"):
            spec = Spec(OBSERVATIONS["vector"], ACTIONS[action])
            try:
                built = build_part("exploration", name, spec=spec).value
            except SettingError:
                continue
            for provides in built.accepts():
                if (action == "box") == (provides in BOXED and provides != "values"):
                    found.append((name, action, provides))
    return found


@pytest.mark.parametrize(("name", "action", "provides"), explorations())
def test_explorations_choose_valid_actions_from_their_stream(
    name: str, action: str, provides: str
) -> None:
    space = ACTIONS[action]
    spec = Spec(OBSERVATIONS["vector"], space)
    exploration = build_part("exploration", name, spec=spec).value
    torch.manual_seed(0)
    output = (BOXED if action == "box" else {k: v[1] for k, v in OUTPUTS.items()})[provides](64)

    def chosen(seed: int, explore: bool = True) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        drawn: Tensor = exploration(output, Context(100, rng, torch.arange(64), explore))
        return drawn

    assert torch.equal(chosen(1), chosen(1))
    assert torch.equal(chosen(1, explore=False), chosen(2, explore=False))
    for move in to_environment(space)(chosen(1).numpy()):
        assert space.contains(move)
    assert all(isinstance(value, float) for value in exploration.monitor(100).values())


@pytest.mark.parametrize("name", names("exploration"))
def test_explorations_refuse_what_they_cannot_read(name: str) -> None:
    for action in ("discrete", "box"):
        try:
            built = build_part(
                "exploration", name, spec=Spec(OBSERVATIONS["vector"], ACTIONS[action])
            ).value
        except SettingError:
            continue
        with pytest.raises(SettingError, match=r"agent\.exploration"):
            built.require("some agent", "nonsense")


@pytest.mark.parametrize("name", names("schedule"))
def test_schedules_are_finite_functions_of_the_step(name: str) -> None:
    settings = {
        "constant": {"value": 0.5},
        "linear": {"start": 1, "end": 0, "steps": 10},
        "exponential": {"start": 1, "decay": 0.5, "steps": 10},
        "piecewise": {"points": [[0, 1.0], [10, 0.0]]},
    }.get(name)
    if settings is None:  # a schedule of a plugin: all its settings need defaults to be checked
        settings = {}
    schedule = build_part("schedule", {"type": name, **settings}).value
    for step in (0, 5, 10**9):
        assert 0 <= schedule(step) <= 1
        assert schedule(step) == schedule(step)


def fragments(steps: list[int]) -> list[Batch]:
    envs = SerialEnvs(lambda: World(OBSERVATIONS["vector"], ACTIONS["discrete"]), 2, seed=0)
    obs, found = envs.reset().copy(), []
    for length in steps:
        rows = []
        for _ in range(length):
            step = envs.step(torch.zeros(2, dtype=torch.int64).numpy())
            rows.append(
                Batch(
                    torch.from_numpy(obs),
                    torch.zeros(2, dtype=torch.int64),
                    torch.from_numpy(step.reward.copy()),
                    torch.from_numpy(1.0 - step.terminated).float(),
                    torch.from_numpy(step.next_obs.copy()),
                    torch.from_numpy(step.truncated | step.terminated),
                )
            )
            obs = step.obs.copy()
        batch = Batch.stack(rows)
        batch.env_ids = torch.arange(2)
        found.append(batch)
    return found


def memory(name: str) -> Memory:
    settings: dict[str, Any] = {"type": name}
    known = parameters(find("memory", name))
    small = {"warmup": 4, "batch_size": 4, "horizon": 8, "epochs": 2, "capacity": 50}
    settings |= {key: value for key, value in small.items() if key in known}
    spec = Spec(OBSERVATIONS["vector"], ACTIONS["discrete"])
    built: Memory = build_part("memory", settings, spec=spec, num_envs=2, seed=0).value
    return built


@pytest.mark.parametrize("name", names("memory"))
def test_memories_know_their_size_and_owe_by_steps_alone(name: str) -> None:
    owed = []
    for split in ([1] * 16, [8, 8], [2, 6, 4, 4]):
        held = memory(name)
        assert held.nbytes > 0
        count = 0
        for fragment in fragments(split):
            held.write(fragment)
            count += sum(1 for _ in held.batches(lambda batch: batch))
        owed.append(count)
    assert owed[0] > 0
    assert len(set(owed)) == 1


@pytest.mark.parametrize("name", names("memory"))
def test_memories_copy_what_they_are_given(name: str) -> None:
    drawn = []
    for spoil in (False, True):
        held, seen = memory(name), []
        for fragment in fragments([4] * 4):
            held.write(fragment)
            if spoil:
                fragment.map(lambda tensor: tensor.zero_())
            seen += [batch.reward.clone() for batch in held.batches(lambda batch: batch)]
        drawn.append(torch.cat(seen))
    assert torch.equal(*drawn)


@pytest.mark.parametrize("name", names("memory"))
def test_memory_state_is_tensors_and_json(name: str) -> None:
    held = memory(name)
    for fragment in fragments([4, 2]):
        held.write(fragment)
    for value in [*held.state_dict().values(), *held.rows([])[0].values()]:
        assert isinstance(value, Tensor | int | float | str | bool | list | dict | None)


@pytest.mark.parametrize("name", names("optimizer"))
def test_optimizers_descend_and_survive_a_reload(name: str) -> None:
    settings: Optimizer = build_part("optimizer", {"type": name, "lr": 0.05}).value

    def fresh() -> nn.Parameter:
        parameter = nn.Parameter(torch.full((20,), 3.0))
        parameter.grad = torch.zeros(20)
        return parameter

    def step(parameter: nn.Parameter, stepper: Any) -> None:
        assert parameter.grad is not None
        parameter.grad.copy_(parameter.data)
        stepper.step(0.05)

    first = fresh()
    stepper = settings.build(first)
    for _ in range(5):
        step(first, stepper)
    assert (first < 3).all()
    second = fresh()
    second.data.copy_(first.data)
    other = settings.build(second)
    other.load_state_dict({k: copy.deepcopy(v) for k, v in stepper.state_dict().items()})
    step(first, stepper), step(second, other)
    assert torch.equal(first, second)


_DESCRIBED = ("agent", "head", "embedder", "middleware", "memory", "exploration")


# Found now, before other tests register parts of their own.
@pytest.mark.parametrize(("kind", "name"), [(k, n) for k in _DESCRIBED for n in names(k)])
def test_every_setting_is_described(kind: str, name: str) -> None:
    cls = find(kind, name)
    text = inspect.getdoc(cls) or ""
    for setting in parameters(cls):
        assert f"{setting}:" in text, f"{kind} {name} does not describe {setting}"
