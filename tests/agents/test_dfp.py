"""Direct future prediction: targets, goals and streams by hand, ends of episodes, whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coach.agents.dfp import DFP
from coach.architectures.heads.futures import FutureMeasurements
from coach.architectures.outputs import Outputs
from coach.core.batch import Batch
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.learner import Learner
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.environments.measured import AddMeasurements
from coach.environments.serial import SerialEnvs
from coach.functional.futures import Futures
from coach.memories.replay import Replay
from coach.optimizers.adam import Adam
from coach.runners.actor import Actor
from coach.runners.experiment import build_experiment
from gymnasium import spaces
from mode_runs import WORLD, outcome
from small_loop import Ladder, equal, global_streams_untouched

WRAPPER = "coach.environments.measured:AddMeasurements"
VECTOR = spaces.Box(-1, 1, (3,))


def spec(measured: int = 2, actions: int = 3, **entries: spaces.Space[Any]) -> Spec:
    box = spaces.Box(-np.inf, np.inf, (measured,))
    return Spec(
        spaces.Dict({"observation": VECTOR, "measurements": box, **entries}),
        spaces.Discrete(actions),
    )


def make(given: Spec | None = None, **settings: Any) -> DFP:
    torch.manual_seed(0)
    small = {"offsets": [1, 2, 4], "offset_weights": [0.0, 0.5, 1.0]}
    agent: DFP = build_part(
        "agent", {"type": "dfp", **small, **settings}, "agent", spec=given or spec()
    ).value
    return agent


def observe(rows: int, given: Spec | None = None, seed: int = 0) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(seed)
    found = {}
    assert isinstance((given or spec()).observation, spaces.Dict)
    for key, space in (given or spec()).observation.spaces.items():  # type: ignore[attr-defined]
        found[key] = torch.randn(rows, *space.shape, generator=rng)
    return found


def context(explore: bool = False, rows: int = 1) -> Context:
    return Context(0, torch.Generator().manual_seed(0), torch.arange(rows), explore)


def minibatch(obs: dict[str, Any], action: list[int], **extras: Any) -> Batch:
    rows = len(action)
    return Batch(
        obs=obs,
        action=torch.tensor(action),
        reward=torch.zeros(rows),
        discount=torch.ones(rows),
        next_obs=obs,
        boundary=torch.zeros(rows, dtype=torch.bool),
        extras={name: torch.as_tensor(value) for name, value in extras.items()},
    )


def predicts(agent: DFP, mean: Any) -> None:
    """Let the agent's network say ``mean`` ``[B, A, O, M]``, whatever it sees."""
    futures = Futures(torch.as_tensor(mean, dtype=torch.float32))
    agent.online.forward = lambda *_: Outputs({"futures": futures}, None)  # type: ignore[assignment]


# What is to be predicted, by hand


def example(agent: DFP) -> Batch:
    """One row two steps from its episode's end, one that goes on."""
    obs = {
        "observation": torch.zeros(2, 3),
        "measurements": torch.tensor([[1.0, 10.0], [0.0, 0.0]]),
    }
    return minibatch(
        obs,
        [0, 2],
        future=[[[2.0, 20.0], [3.0, 10.0], [3.0, 10.0]], [[1.0, 0.0], [2.0, 0.0], [4.0, 5.0]]],
        future_known=[[True, True, False], [True, True, True]],
        future_over=[[False, False, True], [False, False, False]],
    )


def test_targets_are_changes_in_units_of_their_scales() -> None:
    agent = make(scales=[1, 10])
    change, counts = agent.targets(example(agent))
    assert change.tolist() == [[[1, 1], [2, 0], [2, 0]], [[1, 0], [2, 0], [4, 0.5]]]
    assert counts.squeeze(-1).tolist() == [[1, 1, 1], [1, 1, 1]]  # the terminal state lasts


def test_behind_a_terminal_state_nothing_counts_if_masked() -> None:
    agent = make(past_end="mask")
    _, counts = agent.targets(example(agent))
    assert counts.squeeze(-1).tolist() == [[1, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize("past_end", ["repeat", "mask"])
def test_behind_a_time_limit_nothing_counts_ever(past_end: str) -> None:
    agent = make(past_end=past_end)
    batch = example(agent)
    batch.extras["future_over"] = torch.zeros(2, 3, dtype=torch.bool)
    _, counts = agent.targets(batch)
    assert counts.squeeze(-1).tolist() == [[1, 1, 0], [1, 1, 1]]


def test_the_loss_by_hand() -> None:
    """Of the action taken, over three offsets and two measurements."""
    for past_end, first in (("repeat", 1 + 1 + 4 + 0 + 4 + 0), ("mask", 1 + 1 + 4 + 0)):
        agent = make(scales=[1, 10], past_end=past_end)
        mean = torch.full((2, 3, 3, 2), 7.0)
        mean[0, 0] = 0.0
        mean[1, 2] = torch.tensor([[1.0, 0.0], [2.0, 0.0], [4.0, 2.5]])
        predicts(agent, mean)
        loss = agent.predict_futures(example(agent))
        assert loss.value.tolist() == pytest.approx([first / 6, 4 / 6])
        assert loss.priority is not None
        distance = (1 + 1 + 2 + (2 if past_end == "repeat" else 0)) / 6
        assert loss.priority.tolist() == pytest.approx([distance, 2 / 6])


def test_unknown_futures_leave_no_gradient() -> None:
    agent = make(past_end="mask")
    batch = example(agent)
    changed = example(agent)
    changed.extras["future"][0, 2] = 1e6
    losses = [agent.predict_futures(b).value for b in (batch, changed)]
    assert torch.equal(*losses)
    batch.extras["future_known"][:] = False
    assert agent.predict_futures(batch).value.tolist() == [0, 0]


# Goals


def test_the_greedy_action_is_the_one_that_the_goal_likes_best() -> None:
    mean = np.zeros((1, 3, 3, 2))
    mean[0, 0, 2] = [4, 0]  # late, of the first measurement
    mean[0, 1, 1] = [0, 6]  # earlier, of the second
    mean[0, 2, 0] = [99, 99]  # at once, which does not count
    for goal, best, values in (
        ([1, 0], 0, [4, 0, 0]),
        ([0, 1], 1, [0, 3, 0]),
        ([1, 2], 1, [4, 6, 0]),
        ([-1, 0], 1, [-4, 0, 0]),
        ([0.1, 0, 0, 0, 0, 0], 2, [0, 0, 9.9]),  # one weight per offset and measurement
    ):
        agent = make(goal=goal)
        predicts(agent, mean)
        worth = Futures(torch.tensor(mean).float()).towards(agent.goal({}))
        assert worth.mean[0].tolist() == pytest.approx(values)
        assert agent.act({}, None, context()).action.tolist() == [best]


def test_without_a_goal_all_measurements_count_alike() -> None:
    assert make().goal({}).tolist() == [[0, 0], [0.5, 0.5], [1, 1]]


@pytest.mark.parametrize(
    ("size", "goals", "best"),
    [
        (2, [[1.0, 0.0], [0.0, 1.0]], [0, 1]),
        (6, [[0.0, 0, 0, 0, 0, -1], [1.0, 0, 0, 0, 0, 0]], [0, 2]),
    ],
)
def test_observations_may_bring_goals_of_their_own(
    size: int, goals: list[list[float]], best: list[int]
) -> None:
    agent = make(spec(goal=spaces.Box(-1, 1, (size,))))
    mean = np.zeros((2, 3, 3, 2))
    mean[:, 0, 2], mean[:, 1, 1], mean[:, 2, 0] = [4, -1], [0, 6], [99, 99]
    predicts(agent, mean)
    obs = {"goal": torch.tensor(goals)}
    assert agent.act(obs, None, context(rows=2)).action.tolist() == best


def test_goals_and_measurements_are_seen_by_the_network() -> None:
    given = spec(goal=spaces.Box(-1, 1, (2,)))
    agent = make(given)
    obs = observe(1, given)
    before = agent.online(obs).futures.mean
    for key in ("observation", "measurements", "goal"):
        changed = obs | {key: obs[key] + 1}
        assert not torch.equal(agent.online(changed).futures.mean, before), key


def test_actions_that_are_not_allowed_are_never_taken() -> None:
    given = spec(action_mask=spaces.MultiBinary(3))
    agent = make(given, exploration={"type": "epsilon_greedy", "epsilon": 0.5})
    obs = observe(20_000, given)
    obs["action_mask"] = torch.tensor([[0, 1, 1], [1, 0, 0]]).repeat(10_000, 1)
    for number in range(10):  # 200,000 decisions
        action = agent.act(obs, None, context(number % 5 > 0, 20_000)).action
        assert obs["action_mask"].gather(1, action[:, None]).all()


# Streams


def test_what_actions_change_is_zero_on_average() -> None:
    torch.manual_seed(0)
    head = FutureMeasurements(5, spec(), offsets=3, hidden=[7])
    features = torch.randn(4, 5)
    mean = head(features).mean
    assert mean.shape == (4, 3, 3, 2)
    expected = head.streams.value(features).view(4, 3, 2)  # type: ignore[misc]
    torch.testing.assert_close(mean.mean(1), expected)
    with torch.no_grad():  # the same for all actions: the streams' share of it does not change
        advantage: Any = head.streams.advantage
        bias = advantage[-1].bias.view(3, -1)
        bias += torch.tensor([1.0, -2.0, 3.0, 0.5, 5.0, 0.1])
    torch.testing.assert_close(head(features).mean, mean)


def test_offsets_come_before_measurements() -> None:
    head = FutureMeasurements(1, spec(measured=2, actions=1), offsets=3, hidden=[])
    with torch.no_grad():
        value: Any = head.streams.value
        value[-1].weight.zero_()
        value[-1].bias.copy_(torch.arange(6.0))
    wanted = torch.tensor([[[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]]])
    torch.testing.assert_close(head(torch.zeros(1, 1)).mean, wanted)


# Settings


@pytest.mark.parametrize(
    ("given", "changed", "key", "words"),
    [
        (Spec(VECTOR, spaces.Discrete(2)), {}, "agent", "serves Dict observations"),
        (
            Spec(spaces.Dict({"speed": VECTOR}), spaces.Discrete(2)),
            {},
            "agent",
            "an entry 'measurements'",
        ),
        (
            Spec(spaces.Dict({"measurements": spaces.Discrete(3)}), spaces.Discrete(2)),
            {},
            "environment",
            "no vector of floats",
        ),
        (Spec(spec().observation, VECTOR), {}, "agent", "agent dfp serves Discrete"),
        (spec(), {"offsets": [1, 1, 2]}, "agent.offsets", "ascending"),
        (spec(), {"offsets": []}, "agent.offsets", "ascending"),
        (spec(), {"offsets": [0, 1, 2]}, "agent.offsets", "greater than 0"),
        (spec(), {"offset_weights": [1]}, "agent.offset_weights", "1 weights .* 3 offsets"),
        (spec(), {"goal": [1]}, "agent.goal", "1 numbers .* 2 measurements"),
        (spec(), {"scales": [1, 2, 3]}, "agent.scales", "3 numbers .* 2 measurements"),
        (spec(), {"past_end": "forget"}, "agent.past_end", "repeat"),
        (spec(goal=VECTOR), {}, "environment", "'goal' has 3 numbers"),
        (spec(goal=spaces.Discrete(2)), {}, "environment", "'goal' is Discrete"),
        (spec(goal=spaces.Box(-1, 1, (2,))), {"goal": [1, 1]}, "agent.goal", "never be read"),
        (
            spec(),
            {"network": {"heads": {"futures": "futures"}}},
            "agent.network.heads.futures.offsets",
            "predicts 6 later steps, but the agent has 3",
        ),
        (
            spec(),
            {"network": {"heads": {"futures": "q"}}},
            "agent.network.heads.futures",
            "provides futures",
        ),
        (spec(), {"exploration": "bootstrapped"}, "agent.exploration", "dfp provides values"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    given: Spec, changed: dict[str, Any], key: str, words: str
) -> None:
    with pytest.raises(SettingError, match=words) as raised:
        make(given, **changed)
    assert raised.value.key == key


def test_an_environment_without_measurements_is_pointed_to_the_wrapper() -> None:
    with pytest.raises(SettingError) as raised:
        make(Spec(VECTOR, spaces.Discrete(2)))
    assert WRAPPER in raised.value.remedy


class Shortsighted(Replay):
    """A memory that does not look ahead."""

    def __init__(self, spec: Spec, num_envs: int, seed: int = 0) -> None:
        super().__init__(spec, num_envs, seed, capacity=100)


def preset(**changed: Any) -> dict[str, Any]:
    """A small run on a task with rewards that depend on what is done."""
    return {
        "environment": {"id": WORLD, "wrappers": [{WRAPPER: {"entries": [1]}}]},
        "agent": {"type": "dfp", "offsets": [1, 3, 6], "offset_weights": [0, 0.5, 1]},
        "memory": {"type": "replay", "capacity": 400, "batch_size": 16, "warmup": 24},
        "optimizer": {"type": "adam", "lr": 1e-3},
        "run": {"steps": 256, "envs": 4, "fragment_length": 4, "log_every": 64},
        "evaluation": {"every": 0},
        **changed,
    }


@pytest.mark.parametrize("memory", ["rollout", f"{__file__}:Shortsighted"])
def test_a_memory_that_does_not_look_ahead_is_refused(memory: str) -> None:
    with pytest.raises(SettingError, match=r"memory\.type.*\n?.*replay"):
        build_experiment(preset(memory={"type": memory}))


# In whole runs


def test_sync_and_async_in_lockstep_equal_single(tmp_path: Path) -> None:
    """Mode by mode the same weights, memory, streams and progress, byte by byte."""

    def found(source: bool = True, **run: Any) -> dict[str, object]:
        settings = preset()
        settings["run"] |= run
        return outcome(tmp_path, settings, source)

    wanted = found()
    assert found(mode="sync", workers=2, worker_kind="thread") == wanted
    lockstep = {"mode": "async", "workers": 1, "slots": 1, "worker_kind": "thread"}
    assert found(False, **lockstep) == found(False)


class Rig:
    """An agent with all around it, on a task that pays 1 per step and ends after three."""

    def __init__(self, **settings: Any) -> None:
        envs = SerialEnvs(lambda: AddMeasurements(Ladder(spaces.Discrete(2))), 2, seed=3)
        self.agent = make(envs.spec, **settings)
        ahead = {"future_offsets": self.agent.future_offsets, "future_key": self.agent.future_key}
        self.memory = Replay(envs.spec, 2, 0, 200, 32, 32, 0.5, **ahead)  # type: ignore[arg-type]
        self.learner = Learner(self.agent, Adam(lr=5e-3), seed=1)
        self.actor = Actor(self.agent, envs, 4, seed=2)

    def train(self, fragments: int) -> Batch:
        for _ in range(fragments):
            self.memory.write(self.actor.collect())
            for batch in self.memory.batches(self.learner.prepare):
                update = self.learner.step(batch, 0)
                assert all(torch.isfinite(metric) for metric in update.metrics.values())
                self.memory.feedback(batch, update.priority)
        return batch


def test_it_learns_what_will_have_been_earned() -> None:
    rig = Rig()
    rig.train(150)
    assert rig.learner.recorder.recordings, rig.learner.recorder.refused
    # Steps taken, and whether the end will be terminal; behind a time limit nobody knows.
    obs = {
        "observation": torch.tensor([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [0.0, 0.0]]),
        "measurements": torch.tensor([[0.0], [1.0], [2.0], [0.0]]),
    }
    with torch.no_grad():
        mean = rig.agent.online(obs).futures.mean.mean(1).squeeze(-1)  # [4, O]
    wanted = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
    torch.testing.assert_close(mean[:3], wanted, atol=0.1, rtol=0)
    torch.testing.assert_close(mean[3, :2], wanted[0, :2], atol=0.1, rtol=0)


def test_the_memory_tells_terminal_states_from_time_limits() -> None:
    """Every observation says how many steps were taken, and whether the end will be terminal."""
    rig = Rig()
    batch = rig.train(12)
    steps, ends = batch.obs["observation"].unbind(-1)
    later = steps[:, None] + torch.tensor(rig.agent.future_offsets)  # [B, O]
    value, known = batch.extras["future"][..., 0], batch.extras["future_known"]
    assert torch.equal(value[known], later[known])
    assert (later[known] <= 3).all()
    ended = ~known & (value == 3)  # the others wait for the newest episodes to go on
    assert torch.equal(batch.extras["future_over"], ended & (ends > 0)[:, None])
    assert batch.extras["future_over"].any()
    assert (ended & (ends == 0)[:, None]).any()


def test_the_objective_is_pure_and_moves_only_the_network() -> None:
    rig = Rig()
    batch = rig.train(12)
    before = {name: value.clone() for name, value in rig.agent.state_dict().items()}
    with global_streams_untouched():
        values = [rig.agent.predict_futures(batch).value for _ in range(2)]
    assert torch.equal(*values)
    assert values[0].shape == (32,)
    assert equal(before, rig.agent.state_dict())
    rig.learner.step(batch, 0)
    moved = {n for n, v in rig.agent.state_dict().items() if not torch.equal(v, before[n])}
    assert moved == set(before)
    assert {name.split(".")[0] for name in moved} == {"online"}


def test_a_learner_restored_from_its_state_goes_on_alike() -> None:
    first, second = Rig(), Rig()
    batch = first.train(12)
    second.learner.load_state_dict(first.learner.state_dict())
    for rig in (first, second):
        rig.learner.step(batch, 0)
    assert equal(first.learner.state_dict(), second.learner.state_dict())


def test_it_acts_alike_from_its_policys_state_alone() -> None:
    rig = Rig()
    rig.train(12)
    twin = Rig()
    twin.agent.policy.load_state_dict(rig.agent.policy.state_dict())
    obs = {"observation": torch.rand(64, 2), "measurements": torch.rand(64, 1)}
    for explore in (False, True):
        with torch.inference_mode():
            actions = [r.agent.act(obs, None, context(explore, 64)).action for r in (rig, twin)]
        assert torch.equal(*actions)
