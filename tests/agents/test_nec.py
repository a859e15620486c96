"""Neural episodic control: what is written and what is learned, by hand; ends; resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from coach.agents.nec import NEC
from coach.core.batch import Batch
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.learner import Learner
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.optimizers.sgd import SGD
from coach.runners.experiment import build_experiment
from gymnasium import spaces
from mode_runs import go_on, settings_for, states, trained
from small_loop import small_loop

SPEC = Spec(spaces.Discrete(6), spaces.Discrete(2))


def tabular(**head: Any) -> NEC:
    """States are one-hot and their own keys, so that with one neighbour the values are a table."""
    settings = {"key_size": None, "neighbours": 1, "capacity": 20, "alpha": 0.25, **head}
    network = {
        "embedder": {"type": "mlp", "hidden": []},
        "heads": {"q": {"type": "dnd_q", **settings}},
    }
    agent: NEC = build_part(
        "agent", {"type": "nec", "network": network, "discount": 0.5}, "agent", spec=SPEC
    ).value
    return agent


def dictionary_of(agent: NEC) -> Any:
    return agent.online.heads["q"].dictionary


def remember(agent: NEC, entries: dict[tuple[int, int], float]) -> None:
    state, action = torch.tensor(list(entries)).t()
    key = agent.online(state).q.key
    dictionary_of(agent).write(key, action, torch.tensor(list(entries.values())))


def value(agent: NEC, state: int, action: int) -> float:
    return agent.online(torch.tensor([state])).q.mean[0, action].item()


def fragment() -> Batch:
    """Two environments; one terminates behind its second step, one is cut off behind its first."""
    return Batch(
        obs=torch.tensor([[0, 0], [1, 3], [3, 4]]),
        action=torch.tensor([[0, 1], [1, 1], [0, 0]]),
        reward=torch.tensor([[1.0, 1.0], [2.0, 1.0], [3.0, 2.0]]),
        discount=torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]),
        next_obs=torch.tensor([[1, 5], [2, 4], [4, 5]]),
        boundary=torch.tensor([[False, True], [True, False], [False, False]]),
        env_ids=torch.arange(2),
    )


#: What the fragment leads to if the best of state 4 is worth 8 and that of state 5 is worth 4.
RETURNS = {
    (0, 0): 1 + 0.5 * 2,  # and then it terminates
    (1, 1): 2.0,
    (3, 0): 3 + 0.5 * 8,  # the fragment ends
    (0, 1): 1 + 0.5 * 4,  # a time limit, behind which state 5 lies
    (3, 1): 1 + 0.5 * (2 + 0.5 * 4),
    (4, 0): 2 + 0.5 * 4,
}


def test_a_fragment_is_written_with_the_returns_of_its_steps() -> None:
    agent = tabular()
    remember(agent, {(4, 1): 8.0, (5, 1): 4.0})
    agent.observe(fragment())
    for (state, action), wanted in RETURNS.items():
        assert value(agent, state, action) == pytest.approx(wanted), (state, action)
    assert dictionary_of(agent).count.tolist() == [3, 5]


def test_a_fragment_that_comes_again_moves_what_is_known() -> None:
    agent = tabular()
    before = {(4, 1): 8.0, (5, 1): 4.0, (0, 0): 3.0, (3, 1): -1.0}
    remember(agent, before)
    agent.observe(fragment())
    for (state, action), wanted in RETURNS.items():
        old = before.get((state, action), wanted)
        assert value(agent, state, action) == pytest.approx(old + 0.25 * (wanted - old))


def test_what_was_near_stays_longest() -> None:
    agent = tabular(capacity=3)
    remember(agent, {(2, 1): 9.0, (5, 1): 4.0, (4, 1): 8.0})
    agent.observe(fragment())  # passes state 4, and adds states 0, 1 and 3
    keys = dictionary_of(agent).keys[1]
    assert sorted(keys.argmax(-1).tolist()) == [0, 1, 3]
    agent = tabular(capacity=4)
    remember(agent, {(2, 1): 9.0, (5, 1): 4.0, (4, 1): 8.0})
    agent.observe(fragment())
    assert sorted(dictionary_of(agent).keys[1].argmax(-1).tolist()) == [0, 1, 3, 4]


def stored_targets(**head: Any) -> NEC:
    """`tabular`, whose network learns from what was found when a step came in."""
    fresh = tabular(**head)
    settings = {"type": "nec", "discount": 0.5, "targets": "stored"}
    agent: NEC = build_part("agent", settings, "agent", spec=SPEC).value
    agent.online = fresh.online
    return agent


def test_stored_targets_are_the_returns_of_when_a_step_came_in() -> None:
    agent = stored_targets(huber_delta=0.0)
    assert agent.kept_extras == ("target",)
    remember(agent, {(4, 1): 8.0, (5, 1): 4.0})
    given = fragment()
    received = agent.receive(given)
    assert given.extras == {}
    found = received.extras["target"]
    for t, env in np.ndindex(3, 2):
        place = int(given.obs[t, env]), int(given.action[t, env])
        assert float(found[t, env]) == pytest.approx(RETURNS[place])
    # What happens to the dictionaries afterwards changes nothing of it.
    agent.observe(received)
    remember(agent, {(4, 1): -50.0, (5, 1): 70.0, (5, 0): 90.0, (2, 0): 1.0, (2, 1): 3.0})
    batch = received.flatten()
    value_now = agent.online(batch.obs).q.mean.gather(1, batch.action[:, None]).squeeze(1)
    loss = agent.temporal_difference(batch)
    error = value_now - found.flatten()
    torch.testing.assert_close(loss.value, 0.5 * error.square())
    for (state, action), wanted in RETURNS.items():  # written once, as they were found
        assert value(agent, state, action) == pytest.approx(wanted), (state, action)


def test_a_run_with_stored_targets_resumes_and_refuses_other_returns(tmp_path: Path) -> None:
    """They are kept with the steps, also on disk."""
    network = {"heads": {"q": {"type": "dnd_q", "capacity": 60, "neighbours": 4, "key_size": 8}}}
    settings = settings_for({"type": "nec", "network": network, "targets": "stored"})
    wanted = states(trained(tmp_path / "whole", settings))
    short = settings | {"run": settings["run"] | {"steps": 128}}
    begun = trained(tmp_path / "part", short)
    targets = begun.experiment.memory.stripes.kept["target"]  # type: ignore[attr-defined]
    assert len(targets.unique()) > 20
    assert states(go_on(begun, steps=256)) == wanted
    with pytest.raises(SettingError, match=r"memory\.n_step.*never reads the rewards"):
        build_experiment(settings | {"memory": settings["memory"] | {"n_step": 3}})


def transitions() -> Batch:
    return Batch(
        obs=torch.tensor([0, 1, 3]),
        action=torch.tensor([0, 1, 0]),
        reward=torch.tensor([1.0, -1.0, 0.5]),
        discount=torch.tensor([0.25, 0.0, 0.5]),
        next_obs=torch.tensor([4, 5, 5]),
        boundary=torch.tensor([False, True, True]),
    )


@pytest.mark.parametrize(("huber_delta", "weight"), [(0.0, None), (1.0, [0.5, 1.0, 2.0])])
def test_what_was_read_learns_too_if_asked_to(huber_delta: float, weight: Any) -> None:
    agent = tabular(huber_delta=huber_delta, entry_lr=0.1)
    entries = {
        (0, 0): 2.0,
        (1, 1): 3.0,
        (3, 0): 1.0,
        (4, 0): 6.0,
        (4, 1): 8.0,
        (5, 0): 4.0,
        (5, 1): -1.0,
    }
    remember(agent, entries)
    batch = transitions()
    batch.weight = None if weight is None else torch.tensor(weight)
    Learner(agent, SGD(lr=1e-9)).step(batch, 0)
    errors = [2 - (1 + 0.25 * 8), 3 + 1.0, 1 - (0.5 + 0.5 * 4)]
    for row, place in enumerate([(0, 0), (1, 1), (3, 0)]):
        pull = min(max(errors[row], -1), 1) if huber_delta else errors[row]
        pull *= 1.0 if weight is None else weight[row]
        assert value(agent, *place) == pytest.approx(entries[place] - 0.1 * pull)
    for place in ((4, 0), (4, 1), (5, 0)):  # bootstrapped from, not read for a loss
        assert value(agent, *place) == pytest.approx(entries[place])


def test_entries_stay_as_they_were_written_by_default() -> None:
    agent = tabular()
    remember(agent, {(0, 0): 2.0, (1, 1): 3.0, (3, 0): 1.0, (4, 1): 8.0, (5, 0): 4.0})
    before = dictionary_of(agent).values.clone()
    Learner(agent, SGD(lr=0.1)).step(transitions(), 0)
    assert torch.equal(dictionary_of(agent).values, before)


def test_the_loss_is_the_distance_to_the_memorys_return() -> None:
    agent = tabular(huber_delta=0.0)
    remember(agent, {(0, 0): 2.0, (1, 1): 3.0, (3, 0): 1.0, (4, 0): 6.0, (4, 1): 8.0})
    remember(agent, {(5, 0): 4.0, (5, 1): -1.0})
    loss = agent.temporal_difference(transitions())
    errors = [2 - (1 + 0.25 * 8), 3 + 1.0, 1 - (0.5 + 0.5 * 4)]
    torch.testing.assert_close(loss.value, torch.tensor([0.5 * e * e for e in errors]))
    assert loss.priority is not None
    torch.testing.assert_close(loss.priority, torch.tensor(errors).abs())
    assert loss.metrics()["q/keys"] == 3.5


def test_learning_moves_the_network_and_leaves_the_dictionary() -> None:
    torch.manual_seed(0)
    agent = tabular(key_size=4, neighbours=5, delta=0.1)
    remember(agent, {(s, a): float(s - 3 * a) for s in range(6) for a in range(2)})
    before = {name: tensor.clone() for name, tensor in agent.state_dict().items()}
    Learner(agent, SGD(lr=0.1)).step(transitions(), 0)
    moved = {name for name, old in before.items() if not torch.equal(agent.state_dict()[name], old)}
    assert {name.rpartition("inner.0.")[2] for name in moved} == {"key.weight", "key.bias"}


def test_acts_on_what_is_written() -> None:
    agent = tabular()
    remember(agent, {(0, 0): 1.0, (0, 1): 2.0, (1, 0): 3.0, (1, 1): 0.0})
    ctx = Context(0, torch.Generator(), torch.arange(2), explore=False)
    assert agent.act(torch.tensor([0, 1]), None, ctx).action.tolist() == [1, 0]
    assert agent.policy is agent.online
    assert agent.monitor(5_000) == {"epsilon": pytest.approx(0.525)}


class Endless(gym.Env[Any, Any]):
    """Pays 1 a step; every third step ends the episode, by a time limit or by a terminal state."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, terminates: bool) -> None:
        self.terminates = terminates

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.steps = 0
        return np.ones(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        over = self.steps == 3
        return np.ones(1, np.float32), 1.0, over and self.terminates, over and not self.terminates, {}  # fmt: skip


@pytest.mark.parametrize("terminates", [False, True])
def test_a_time_limit_is_not_the_end(terminates: bool) -> None:
    """With a discount of 0.8 every state is worth 5, unless there is an end."""
    network = {
        "embedder": {"type": "mlp", "hidden": [8]},
        "heads": {"q": {"type": "dnd_q", "capacity": 200, "tolerance": 0.1, "alpha": 0.05}},
    }
    agent = {"type": "nec", "discount": 0.8, "network": network}
    agent["exploration"] = {"type": "epsilon_greedy", "epsilon": 1.0}  # both actions, equally often
    loop = small_loop(agent, lambda: Endless(terminates), discount=0.8)
    loop.train(1_200)
    worth = loop.agent.policy(torch.ones(1, 1)).q.mean.tolist()[0]
    # One state for all steps: the mean of what one, two and three steps bring.
    wanted = (1 + 1.8 + 2.44) / 3 if terminates else 5.0
    assert worth == pytest.approx([wanted, wanted], rel=0.1)


def test_an_interrupted_run_brings_its_dictionary_back_bit_for_bit(tmp_path: Path) -> None:
    head = {"type": "dnd_q", "capacity": 200, "neighbours": 5}  # not full when the run ends
    agent = {"type": "nec", "network": {"heads": {"q": head}}}
    whole = trained(tmp_path, settings_for(agent))
    half = trained(tmp_path, settings_for(agent, steps=128))
    rest = go_on(half, steps=256)
    assert states(rest) == states(whole)
    keys = rest.experiment.agent.policy.heads["q"].dictionary.count  # type: ignore[union-attr, operator, index]
    assert keys.sum() > 200  # of 256 steps


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"network": {"heads": {"value": "value"}}}, ["'q'", "value"]),
        ({"network": {"heads": {"q": "dueling_q"}}}, ["heads.q", "provides values", "dictionary"]),
        ({"exploration": "sample"}, ["agent.exploration", "'sample' reads distribution"]),
        ({"discount": 1.5}, ["agent.discount"]),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingError) as raised:
        build_part("agent", {"type": "nec", **settings}, "agent", spec=SPEC)
    for word in words:
        assert word in str(raised.value)


def test_serves_discrete_actions_alone() -> None:
    with pytest.raises(SettingError, match=r"agent nec serves Discrete actions"):
        NEC(Spec(SPEC.observation, spaces.Box(-1, 1, (2,))))
