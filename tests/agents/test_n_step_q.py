"""N-step Q-learning: returns by hand and against a plain loop, targets, memory of networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from coach.agents.n_step_q import NStepQ
from coach.core.batch import Batch, map_tree
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.learner import Learner
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.optimizers.sgd import SGD
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from small_loop import Ladder, small_loop

SPEC = Spec(spaces.Discrete(4), spaces.Discrete(2))
#: Q of every state, online and target; they disagree about the best action of states 1 and 2.
ONLINE = torch.tensor([[1.0, 2.0], [5.0, 3.0], [0.0, 4.0], [7.0, 7.5]])
TARGET = torch.tensor([[0.5, 0.5], [2.0, 6.0], [8.0, 1.0], [9.0, 3.0]])
ENDS = st.sampled_from(["", "", "", "end", "cut"])


def table(values: torch.Tensor, network: Any) -> None:
    """Turn a linear network on one-hot states into a table."""
    with torch.no_grad():
        network.heads["q"].out.weight.copy_(values.t())
        network.heads["q"].out.bias.zero_()


def tabular(**options: Any) -> NStepQ:
    network = {
        "embedder": {"type": "mlp", "hidden": []},
        "heads": {"q": {"type": "q", "huber_delta": 0}},
    }
    built = build_part(
        "agent", {"type": "n_step_q", "network": network, **options}, "agent", spec=SPEC
    )
    agent: NStepQ = built.value
    table(ONLINE, agent.online)
    if agent.target is not None:
        table(TARGET, agent.target.network)
    return agent


def walk(ends: list[str], states: list[int], final: int = 3) -> Batch:
    """One environment through ``states``, one more than there are steps; a reward of 1 a step.

    At an end, the true next observation is ``final``, not the state that follows.
    """
    boundary = torch.tensor([end != "" for end in ends])[:, None]
    visited = torch.tensor(states)[:, None]
    steps = len(ends)
    return Batch(
        obs=visited[:-1],
        action=torch.ones(steps, 1, dtype=torch.int64),
        reward=torch.ones(steps, 1),
        discount=0.5 * torch.tensor([end != "end" for end in ends]).float()[:, None],
        next_obs=torch.where(boundary, final, visited[1:]),
        boundary=boundary,
    )


def returns(agent: NStepQ, batch: Batch) -> list[float]:
    with torch.no_grad():
        found: list[float] = agent.prepare(batch).extras["returns"][:, 0].tolist()
    return found


# The walk 0, 1, 2, 0 pays 1 a step; V of the target is 6 in state 1, 8 in 2, 0.5 in 0, 9 in 3.
BEHIND = 1 + 0.5 * 0.5


@pytest.mark.parametrize(
    ("trace_lambda", "wanted"),
    [
        (1.0, [1 + 0.5 * (1 + 0.5 * BEHIND), 1 + 0.5 * BEHIND, BEHIND]),
        (0.0, [1 + 0.5 * 6, 1 + 0.5 * 8, BEHIND]),
        (0.5, [1 + 0.25 * 6 + 0.25 * (1 + 0.25 * 8 + 0.25 * BEHIND), 1 + 0.25 * 8 + 0.25 * BEHIND, BEHIND]),
    ],
)  # fmt: skip
def test_returns_by_hand(trace_lambda: float, wanted: list[float]) -> None:
    agent = tabular(trace_lambda=trace_lambda)
    assert returns(agent, walk(["", "", ""], [0, 1, 2, 0])) == pytest.approx(wanted)


@pytest.mark.parametrize("trace_lambda", [0.0, 0.5, 1.0])
def test_a_time_limit_bootstraps_and_a_terminal_state_does_not(trace_lambda: float) -> None:
    agent = tabular(trace_lambda=trace_lambda)
    cut = returns(agent, walk(["cut", "end", ""], [0, 1, 2, 0]))
    assert cut == pytest.approx([1 + 0.5 * 9, 1, BEHIND])  # 9: of the final state, not of state 1
    last = returns(agent, walk(["", "cut"], [0, 1, 2]))
    assert last[1] == pytest.approx(1 + 0.5 * 9)
    ended = returns(agent, walk(["", "end"], [0, 1, 2]))
    assert ended[1] == 1


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({}, [6.0, 8.0]),  # the best of the target
        ({"double": True}, [2.0, 1.0]),  # the target's values of what the online network prefers
        ({"target_every": None}, [5.0, 4.0]),  # the best of the online network
    ],
)
def test_who_values_what_lies_behind(options: dict[str, Any], values: list[float]) -> None:
    agent = tabular(trace_lambda=0.0, **options)
    found = returns(agent, walk(["", ""], [0, 1, 2]))
    assert found == pytest.approx([1 + 0.5 * value for value in values])


def test_the_loss_is_the_heads_own_and_pulls_the_action_that_was_taken() -> None:
    agent = tabular()
    batch = walk(["", "", "end"], [0, 1, 2, 0])
    wanted = torch.tensor(returns(agent, batch))
    loss = agent.regress_on_returns(agent.prepare(batch).flatten())
    error = torch.tensor([2.0, 3.0, 4.0]) - wanted
    torch.testing.assert_close(loss.value, 0.5 * error.square())
    weight = agent.online.heads["q"].out.weight
    (gradient,) = torch.autograd.grad(loss.value.sum(), [weight])
    torch.testing.assert_close(gradient[1, :3], error)
    assert (gradient[0] == 0).all()


def a_plain_return(
    t: int,
    reward: list[float],
    ends: list[str],
    behind: list[float],
    gamma: float,
    lambda_: float,
) -> float:
    """Peng's Q(lambda) as it is defined: n-step returns, each weighed with its share.

    Args:
        behind: best value of the true next state of every step; the terminal one's is not used.
    """
    total, rewards, left = 0.0, 0.0, 1.0
    for n, k in enumerate(range(t, len(reward)), start=1):
        rewards += gamma ** (n - 1) * reward[k]
        n_step = rewards + (0.0 if ends[k] == "end" else gamma**n * behind[k])
        if ends[k] or k == len(reward) - 1:
            return total + left * n_step
        total += left * (1 - lambda_) * n_step
        left *= lambda_
    raise AssertionError("the rollout has a last step")


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3).flatmap(
        lambda envs: st.lists(st.lists(ENDS, min_size=envs, max_size=envs), min_size=1, max_size=8)
    ),
    st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    st.sampled_from([{}, {"double": True}, {"target_every": None}]),
    st.integers(0, 1_000),
)
def test_returns_equal_weighed_n_step_returns(
    ends: list[list[str]], lambda_: float, options: dict[str, Any], seed: int
) -> None:
    agent = tabular(trace_lambda=lambda_, **options)
    rng = torch.Generator().manual_seed(seed)
    steps, envs, gamma = len(ends), len(ends[0]), 0.9
    visited = torch.randint(4, (steps + 1, envs), generator=rng)
    final = torch.randint(4, (steps, envs), generator=rng)
    boundary = torch.tensor([[end != "" for end in row] for row in ends])
    batch = Batch(
        obs=visited[:-1],
        action=torch.randint(2, (steps, envs), generator=rng),
        reward=torch.randn(steps, envs, generator=rng),
        discount=gamma * torch.tensor([[float(end != "end") for end in row] for row in ends]),
        next_obs=torch.where(boundary, final, visited[1:]),
        boundary=boundary,
    )
    values = ONLINE if agent.target is None else TARGET
    chosen = (ONLINE if options.get("double") else values).argmax(-1)
    best = values[torch.arange(4), chosen]  # [states]
    with torch.no_grad():
        found = agent.prepare(batch).extras["returns"]
    for env in range(envs):
        reward, over = batch.reward[:, env].tolist(), [row[env] for row in ends]
        behind = best[batch.next_obs[:, env]].tolist()
        for t in range(steps):
            wanted = a_plain_return(t, reward, over, behind, gamma, lambda_)
            assert found[t, env].item() == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "follows"),
    [
        ({"target_every": 2}, [0, 1, 1, 2]),
        ({"target_every": 1, "target_tau": 0.5}, [1, 2, 3, 4]),
    ],
)
def test_the_target_follows_in_its_cadence(options: dict[str, Any], follows: list[int]) -> None:
    agent = tabular(**options)
    assert agent.target is not None
    learner = Learner(agent, SGD(lr=0.1))
    batch = learner.prepare(walk(["", "", "end"], [0, 1, 2, 0])).flatten()
    weight = agent.target.network.heads["q"].out.weight  # type: ignore[union-attr, operator]
    changes, seen = 0, []
    for _ in range(4):
        before = weight.clone()
        learner.step(batch, 0)
        changes += not torch.equal(before, weight)
        seen.append(changes)
    assert seen == follows


def recurrent(**options: Any) -> dict[str, Any]:
    return {
        "type": "n_step_q",
        "network": {
            "embedder": {"type": "mlp", "hidden": [8]},
            "middleware": {"type": "gru", "hidden": 8},
            "heads": {"q": "q"},
        },
        **options,
    }


@pytest.mark.parametrize("options", [{}, {"double": True}, {"target_every": None}], ids=str)
def test_recurrent_networks_train(options: dict[str, Any]) -> None:
    loop = small_loop(
        recurrent(trace_lambda=0.7, **options), lambda: Ladder(spaces.Discrete(2)), num_envs=4
    )
    loop.memory.sequences = True
    before = [p.clone() for p in loop.agent.policy.parameters()]
    assert loop.train(96).metrics
    assert all(torch.isfinite(p).all() for p in loop.agent.parameters())
    assert not all(torch.equal(a, b) for a, b in zip(before, loop.agent.policy.parameters()))


@pytest.mark.parametrize("options", [{}, {"double": True}, {"target_every": None}], ids=str)
def test_recurrent_values_are_those_of_walking_step_by_step(options: dict[str, Any]) -> None:
    """What a network remembers reaches the values behind time limits, and stops at boundaries."""
    spec = Spec(spaces.Box(-1, 1, (2,)), spaces.Discrete(3))
    torch.manual_seed(0)
    agent: NStepQ = build_part("agent", recurrent(trace_lambda=0.0, **options), spec=spec).value
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    obs, final = torch.randn(4, 1, 2), torch.randn(3, 1, 2)
    boundary = torch.tensor([[False], [True], [False]])
    start = map_tree(torch.randn_like, agent.initial_state(1))
    batch = Batch(
        obs=obs[:-1],
        action=torch.zeros(3, 1, dtype=torch.int64),
        reward=torch.zeros(3, 1),
        discount=torch.ones(3, 1),
        next_obs=torch.where(boundary[..., None], final, obs[1:]),
        boundary=boundary,
        state=start,
    )
    judge = agent.online if agent.target is None else agent.target.network
    chooser = agent.online if agent.decoupled else judge
    wanted = []
    with torch.no_grad():
        states = [start, start]
        for t in range(3):
            states = [n(obs[t], s).state for n, s in zip((judge, chooser), states)]
            worth, choice = (
                n(batch.next_obs[t], s).q.mean for n, s in zip((judge, chooser), states)
            )
            wanted.append(worth[0, choice[0].argmax()].item())
            if boundary[t, 0]:
                states = [agent.initial_state(1)] * 2
    assert returns(agent, batch) == pytest.approx(wanted, abs=1e-5)


def test_acts_on_the_online_network() -> None:
    agent = tabular()
    ctx = Context(0, torch.Generator(), torch.arange(4), explore=False)
    assert agent.act(torch.arange(4), None, ctx).action.tolist() == [1, 0, 1, 1]
    assert agent.policy is agent.online
    assert agent.max_policy_lag == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"network": {"heads": {"value": "value"}}}, ["'q'", "value"]),
        ({"exploration": "sample"}, ["agent.exploration", "'sample' reads distribution"]),
        ({"trace_lambda": 1.1}, ["agent.trace_lambda"]),
        ({"target_every": 0}, ["agent.target_every"]),
        ({"target_every": None, "double": True}, ["agent.double", "target_every is null"]),
        ({"target_every": None, "target_tau": 0.1}, ["agent.target_tau: 0.1", "target_every"]),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingError) as raised:
        build_part("agent", {"type": "n_step_q", **options}, "agent", spec=SPEC)
    for word in words:
        assert word in str(raised.value)
