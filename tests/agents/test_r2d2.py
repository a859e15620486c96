"""R2D2: targets by hand and step by step, burn-in, boundaries, priorities, modes, resuming."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from coach.agents.r2d2 import R2D2
from coach.core.batch import Batch, flat, map_tree, refilled
from coach.core.context import Context
from coach.core.errors import SettingError
from coach.core.learner import Learner
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.optimizers.sgd import SGD
from gymnasium import spaces
from mode_runs import go_on, outcome, settings_for, states, trained
from small_loop import Ladder, Loop, small_loop

SPEC = Spec(spaces.Discrete(4), spaces.Discrete(2))
#: Q of every state, online and target; they disagree about the best action of states 1 and 2.
ONLINE = torch.tensor([[1.0, 2.0], [5.0, 3.0], [0.0, 4.0], [7.0, 7.5]])
TARGET = torch.tensor([[0.5, 0.5], [2.0, 6.0], [8.0, 1.0], [9.0, 3.0]])
GAMMA = 0.5


def table(values: torch.Tensor, network: Any) -> None:
    """Turn a linear network on one-hot states into a table."""
    with torch.no_grad():
        network.heads["q"].out.weight.copy_(values.t())
        network.heads["q"].out.bias.zero_()


def tabular(**options: Any) -> R2D2:
    network = {
        "embedder": {"type": "mlp", "hidden": []},
        "heads": {"q": {"type": "q", "huber_delta": 0}},
    }
    settings = {"type": "r2d2", "network": network, "rescaling": None, "double": False, **options}
    agent: R2D2 = build_part("agent", settings, "agent", spec=SPEC).value
    table(ONLINE, agent.online)
    table(TARGET, agent.target.network)
    return agent


def walk(ends: list[str], visited: list[int], final: int = 3) -> Batch:
    """One environment through ``visited``, one more than there are steps; a reward of 1 a step.

    At an end, the true next observation is ``final``, not the state that follows.
    """
    boundary = torch.tensor([end != "" for end in ends])
    seen = torch.tensor(visited)
    return Batch(
        obs=seen[:-1],
        action=torch.ones(len(ends), dtype=torch.int64),
        reward=torch.ones(len(ends)),
        discount=GAMMA * torch.tensor([end != "end" for end in ends]).float(),
        next_obs=torch.where(boundary, final, seen[1:]),
        boundary=boundary,
        length=len(ends),
    )


def errors(agent: R2D2, batch: Batch) -> list[float]:
    """What the targets are away from the values, by the priorities."""
    found = agent.temporal_difference(agent.prepare(batch)).priority
    assert found is not None
    return found.tolist()  # type: ignore[no-any-return]


# The walk 0, 1, 2, 0 pays 1 a step; the target's best is 6 in state 1, 8 in 2, 0.5 in 0, 9 in 3,
# and the online network says 2, 3 and 4 of what is done in 0, 1 and 2.
@pytest.mark.parametrize(
    ("options", "aims"),
    [
        ({"n_step": 1}, [1 + 3, 1 + 4, 1.25]),
        ({"n_step": 2}, [1.5 + 2, 1.5 + 0.125, 1.25]),
        ({"n_step": 5}, [1.75 + 0.0625, 1.5 + 0.125, 1.25]),
        ({"n_step": 1, "double": True}, [1 + 0.5 * 2, 1 + 0.5 * 1, 1.25]),
        ({"n_step": 2, "double": True}, [1.5 + 0.25 * 1, 1.5 + 0.125, 1.25]),
    ],
)
def test_targets_by_hand(options: dict[str, Any], aims: list[float]) -> None:
    batch = walk(["", "", ""], [0, 1, 2, 0])
    wanted = [abs(q - aim) for q, aim in zip([2, 3, 4], aims)]
    assert errors(tabular(**options), batch) == pytest.approx(wanted)
    loss = tabular(**options).temporal_difference(batch)
    torch.testing.assert_close(loss.value, 0.5 * torch.tensor(wanted).square())


@pytest.mark.parametrize("n", [1, 3])
def test_a_time_limit_bootstraps_and_a_terminal_state_does_not(n: int) -> None:
    agent = tabular(n_step=n)
    cut = errors(agent, walk(["cut", "end", ""], [0, 1, 2, 0]))
    assert cut == pytest.approx([5.5 - 2, 3 - 1, 4 - 1.25])  # 9: of state 3, not of state 1


def test_returns_are_learned_through_the_rescaling() -> None:
    agent = tabular(n_step=1, rescaling=0.1)

    def h(x: float) -> float:
        return (x + 1) ** 0.5 - 1 + 0.1 * x

    # 6 of state 1 stands for x where h(x) = 6, and so on; found here by trying.
    behind = [next(x / 1000 for x in range(10**6) if h(x / 1000) >= q) for q in (6, 8, 0.5)]
    wanted = [abs(q - h(1 + 0.5 * x)) for q, x in zip([2, 3, 4], behind)]
    found = errors(agent, walk(["", "", ""], [0, 1, 2, 0]))
    assert found == pytest.approx(wanted, abs=2e-3)


def test_single_transitions_are_sequences_of_one_step() -> None:
    agent = tabular(n_step=3)
    single = replace(walk(["", "", ""], [0, 1, 2, 0]), length=1)
    assert errors(agent, single) == pytest.approx([2 - 4 + 4, 5 - 3, 4 - 1.25])


def recurrent(cell: str = "gru", **options: Any) -> dict[str, Any]:
    return {
        "type": "r2d2",
        "network": {
            "embedder": {"type": "mlp", "hidden": [8]},
            "middleware": {"type": cell, "hidden": 6},
            "heads": {"q": "q"},
        },
        **options,
    }


WIDE = Spec(spaces.Box(-1, 1, (2,)), spaces.Discrete(3))


def remembering(cell: str = "gru", **options: Any) -> R2D2:
    """Networks with weights of their own, far from 0."""
    torch.manual_seed(0)
    agent: R2D2 = build_part("agent", recurrent(cell, **options), "agent", spec=WIDE).value
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return agent


def sequences(agent: R2D2, length: int = 7, columns: int = 3, idle: int = 0) -> Batch:
    """A flat batch ``[length * columns]`` with ends everywhere, some of them terminal."""
    rng = torch.Generator().manual_seed(length)
    size = length * columns
    boundary = torch.rand(size, generator=rng) < 0.25
    obs = torch.rand(length + 1, columns, 2, generator=rng)
    final = torch.rand(size, 2, generator=rng)
    weight = torch.ones(length, columns)
    weight[:idle] = 0
    return Batch(
        obs=obs[:-1].flatten(0, 1),
        action=torch.randint(3, (size,), generator=rng),
        reward=torch.randn(size, generator=rng),
        discount=0.9 * ~(boundary & (torch.rand(size, generator=rng) < 0.5)),
        next_obs=torch.where(boundary[:, None], final, obs[1:].flatten(0, 1)),
        boundary=boundary,
        weight=weight.flatten() if idle else None,
        burn_in=idle,
        state=map_tree(lambda s: torch.randn(s.shape, generator=rng), agent.initial_state(columns)),
        length=length,
        index=torch.arange(columns).repeat(length),
    )


def step_by_step(agent: R2D2, batch: Batch, m: int, idle: int) -> list[float]:
    """Errors of a column, found by walking both networks through it one observation at a time."""
    columns = len(batch) // batch.length
    rows = batch[m::columns]
    before = map_tree(lambda s: s[m : m + 1], batch.state)
    walking = {"online": before, "target": before}
    now, behind = [], []
    for t in range(batch.length):
        found = {}
        for name in walking:
            network = getattr(agent, name)
            seen = network(rows.obs[t : t + 1], walking[name])
            later = network(rows.next_obs[t : t + 1], seen.state).q.mean[0]
            found[name] = (seen.q.mean[0, rows.action[t]], later)
            ended = bool(rows.boundary[t])
            walking[name] = agent.initial_state(1) if ended else seen.state
        chooser = found["online" if agent.decoupled else "target"][1]
        value = found["target"][1][chooser.argmax()].item()
        if agent.rescaling is not None:
            e = agent.rescaling
            root = ((1 + 4 * e * (abs(value) + 1 + e)) ** 0.5 - 1) / (2 * e)
            value = (root**2 - 1) * (1 if value > 0 else -1)
        now.append(found["online"][0].item())
        behind.append(value)
    wanted = []
    for t in range(idle, batch.length):
        total, factor = 0.0, 1.0
        for k in range(t, min(t + agent.n_step, batch.length)):
            total += factor * rows.reward[k].item()
            factor *= rows.discount[k].item()
            if rows.boundary[k] or k == min(t + agent.n_step, batch.length) - 1:
                total += factor * behind[k]
                break
        if agent.rescaling is not None:
            size = (abs(total) + 1) ** 0.5 - 1
            total = (size if total > 0 else -size) + agent.rescaling * total
        wanted.append(abs(now[t] - total))
    return wanted


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("idle", [0, 1, 4])
@pytest.mark.parametrize(
    "options",
    [
        {"n_step": 1},
        {"n_step": 3},
        {"n_step": 20, "double": False},
        {"n_step": 1, "rescaling": None, "double": False},  # DRQN
        {"n_step": 2, "rescaling": 0.05},
    ],
    ids=str,
)
def test_errors_are_those_of_walking_step_by_step(
    options: dict[str, Any], idle: int, cell: str
) -> None:
    agent = remembering(cell, **options)
    batch = sequences(agent, idle=idle)
    with torch.no_grad():
        found = torch.tensor(errors(agent, batch)).view(-1, 3)
        for m in range(3):
            wanted = step_by_step(agent, batch, m, idle)
            # The plain inverse of the rescaling loses digits in Python's floats too, but few.
            assert found[:, m].tolist() == pytest.approx(wanted, rel=1e-3, abs=1e-4)


def test_the_burn_in_is_cut_off_and_has_no_gradient() -> None:
    agent = remembering()
    batch = sequences(agent, idle=4)
    cut = agent.prepare(batch)
    assert (cut.length, len(cut)) == (3, 9)
    assert torch.equal(cut.obs, batch.obs[12:])
    assert cut.weight is not None
    assert (cut.weight == 1).all()
    assert not any(leaf.requires_grad or leaf.is_inference() for leaf in flat(cut.state))
    loss = agent.temporal_difference(cut)
    assert loss.value.shape == (9,)
    # Other burn-in observations reach the loss through the state alone.
    changed = agent.prepare(replace(batch, obs=torch.cat([batch.obs[:12] + 1, batch.obs[12:]])))
    assert torch.equal(changed.obs, cut.obs)
    assert not torch.equal(agent.temporal_difference(changed).value, loss.value)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_an_end_of_the_burn_in_is_a_fresh_start(cell: str) -> None:
    agent = remembering(cell)
    batch = sequences(agent, idle=4)
    boundary = batch.boundary.clone()
    boundary[9:12] = torch.tensor([True, False, True])  # the last step of the burn-in
    cut = agent.prepare(replace(batch, boundary=boundary))
    for name in ("online", "target"):
        for leaf in flat(cut.state[name]):
            assert (leaf[[0, 2]] == 0).all()
            assert (leaf[1] != 0).any()


class Wander(Ladder):
    """Observations that differ at every step of every episode; episodes of 11 steps."""

    def _observe(self) -> Any:
        obs = super()._observe()
        obs[0] = 0.1 * obs[0] + self.np_random.random()
        return obs


def small(cell: str, **memory: Any) -> Loop:
    chosen = {"length": 16, "overlap": 8, "burn_in": 4, "capacity": 400, "batch_size": 6}
    return small_loop(
        recurrent(cell, target_every=3),
        lambda: Wander(spaces.Discrete(2), 11),
        "sequence_replay",
        **{**chosen, **memory},
    )


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_state_behind_the_burn_in_is_that_of_the_whole_episode(cell: str) -> None:
    """As long as the weights are those that acted, what was stored and warmed up is exact."""
    loop = small(cell)
    agent = loop.agent
    assert isinstance(agent, R2D2)
    whole: list[Batch] = []
    for _ in range(12):
        fragment = loop.actor.collect()
        whole.append(fragment.clone())
        loop.memory.write(fragment)
    for batch in loop.memory.batches(loop.learner.prepare):
        for m in range(6):
            first = batch.obs[m]
            env, t = next(
                (env, t)
                for env in range(2)
                for t in range(96)
                if torch.equal(whole[t // 8].obs[t % 8, env], first)
            )
            begin = t
            while begin and not whole[(begin - 1) // 8].boundary[(begin - 1) % 8, env]:
                begin -= 1
            state = agent.initial_state(1)
            with torch.no_grad():
                for k in range(begin, t):
                    state = agent.online(whole[k // 8].obs[k % 8, env : env + 1], state).state
            for name in ("online", "target"):
                for wanted, found in zip(flat(state), flat(batch.state[name])):
                    torch.testing.assert_close(found[m : m + 1], wanted, rtol=1e-4, atol=1e-5)


def test_stale_states_are_brought_up_to_the_present_weights() -> None:
    """A longer burn-in takes a stored state nearer to what the present weights would hold."""
    agent = remembering()
    obs = torch.rand(41, 1, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        old, now = copy.deepcopy(agent.online), agent.online
        for parameter in now.parameters():
            parameter.mul_(1.3)
        stored, fresh = [agent.initial_state(1)], [agent.initial_state(1)]
        for row in obs:
            stored.append(old(row, stored[-1]).state)
            fresh.append(now(row, fresh[-1]).state)
    away = []
    for idle in (0, 4, 16):
        batch = Batch(
            obs=obs[40 - idle :, 0],
            action=torch.zeros(idle + 1, dtype=torch.int64),
            reward=torch.zeros(idle + 1),
            discount=torch.ones(idle + 1),
            next_obs=obs[40 - idle :, 0],
            boundary=torch.zeros(idle + 1, dtype=torch.bool),
            weight=torch.tensor([0.0] * idle + [1.0]),
            burn_in=idle,
            state=stored[40 - idle],
            length=idle + 1,
        )
        with torch.no_grad():
            state = agent.prepare(batch).state["online"]
        pairs = zip(flat(state), flat(fresh[40]))
        away.append(max((a - b).abs().max().item() for a, b in pairs))
    assert away[0] > 2 * away[1] > 4 * away[2]


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_training_moves_the_networks_and_files_priorities(cell: str) -> None:
    loop = small(cell, sampler={"type": "prioritized", "alpha": 1.0}, eta=0.7)
    memory: Any = loop.memory
    before = [p.clone() for p in loop.agent.policy.parameters()]
    assert loop.train(400).metrics
    assert all(torch.isfinite(p).all() for p in loop.agent.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(before, loop.agent.policy.parameters()))
    for batch in memory.batches(loop.learner.prepare, lambda: True):
        assert (batch.length, len(batch)) == (12, 72)
        assert batch.index is not None
        priority = loop.learner.step(batch, 0).priority
        assert priority is not None
        memory.feedback(batch, priority)
        error = priority.view(12, 6).double()
        last = {int(i): m for m, i in enumerate(batch.index[:6])}
        for index, m in last.items():
            wanted = 0.7 * error[:, m].max().item() + 0.3 * error[:, m].mean().item()
            mass = memory.sampler.tree.levels[0][index]
            assert mass == pytest.approx(wanted, rel=1e-5)
        break


def test_a_sequences_weight_is_that_of_its_mean_loss() -> None:
    agent = remembering()
    batch = sequences(agent, length=5, columns=2, idle=2)
    batch.weight = (batch.weight.view(5, 2) * torch.tensor([0.25, 1.0])).flatten()  # type: ignore[union-attr]
    learner = Learner(agent, SGD(lr=0.0), record=False)
    ready = learner.prepare(batch)
    loss = agent.temporal_difference(ready).value.view(3, 2)
    wanted = (0.25 * loss[:, 0].mean() + loss[:, 1].mean()) / 2
    found = learner.step(ready, 0).metrics["loss/temporal_difference"]
    torch.testing.assert_close(found, wanted.detach())


def test_updates_from_recordings_are_the_same() -> None:
    """Enough updates of one shape to be made from recordings, against none at all."""
    made = []
    for record in (True, False):
        loop = small("lstm", sampler="prioritized")
        for recorder in loop.learner.recorders:
            recorder.enabled = record
        loop.train(320)
        if record:
            assert loop.learner.recorder.recordings
        made.append(loop.learner.state_dict())
    for name, value in made[0].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, made[1][name]), name


def test_acts_on_the_online_network_and_carries_its_state() -> None:
    agent = remembering()
    ctx = Context(0, torch.Generator(), torch.arange(4), explore=False)
    obs, state = torch.rand(4, 2), agent.initial_state(4)
    chosen = agent.act(obs, state, ctx)
    wanted = agent.online(obs, state)
    assert torch.equal(chosen.action, wanted.q.mean.argmax(-1))
    assert all(torch.equal(a, b) for a, b in zip(flat(chosen.state), flat(wanted.state)))
    assert agent.policy is agent.online


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"network": {"heads": {"value": "value"}}}, ["'q'", "value"]),
        ({"exploration": "sample"}, ["agent.exploration", "'sample' reads distribution"]),
        ({"n_step": 0}, ["agent.n_step"]),
        ({"rescaling": -1.0}, ["agent.rescaling"]),
        ({"target_tau": 0.0}, ["agent.target_tau"]),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingError) as raised:
        build_part("agent", {"type": "r2d2", **options}, "agent", spec=SPEC)
    for word in words:
        assert word in str(raised.value)


LOCKSTEP = {"mode": "async", "workers": 1, "slots": 1, "worker_kind": "thread"}


def preset(cell: str = "gru", **run: Any) -> dict[str, Any]:
    settings = settings_for(recurrent(cell, target_every=5, n_step=2), **run)
    settings["memory"] = {
        "type": "sequence_replay",
        "capacity": 200,  # overwritten within a run
        "batch_size": 4,
        "length": 12,
        "burn_in": 4,
        "overlap": 8,
        "warmup": 24,
        "updates_per_step": 0.25,
        "sampler": "prioritized",
    }
    return settings


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_modes_agree(cell: str, tmp_path: Path) -> None:
    wanted = outcome(tmp_path, preset(cell), source=False)
    sync = {"mode": "sync", "workers": 2, "worker_kind": "thread"}
    for run in (sync, LOCKSTEP):
        assert outcome(tmp_path, preset(cell, **run), source=False) == wanted


@pytest.mark.parametrize("exchange", ["experience", "gradients"])
def test_it_trains_freely(exchange: str, tmp_path: Path) -> None:
    run = {"mode": "async", "workers": 2, "exchange": exchange}
    done = trained(tmp_path, preset(**run))
    assert done.clock.env_steps >= 256
    assert done.experiment.learner.version > 0


@pytest.mark.parametrize(
    ("cell", "mode"), [("gru", "single"), ("lstm", "single"), ("gru", "averaging")]
)
def test_it_continues_bit_for_bit(cell: str, mode: str, tmp_path: Path) -> None:
    run = {} if mode == "single" else {"mode": "sync", "exchange": "gradients", "workers": 2}
    settings = preset(cell, **run)
    whole = trained(tmp_path, settings)
    settings["run"]["steps"] = 144
    rest = go_on(trained(tmp_path, settings), steps=256)
    assert states(rest) == states(whole)


def test_fragments_that_do_not_fit_stop_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"run\.fragment_length.*every 4 steps"):
        trained(tmp_path, preset(fragment_length=3))


def test_a_policy_that_remembers_needs_sequences(tmp_path: Path) -> None:
    settings = preset()
    settings["memory"] = {"type": "replay", "capacity": 400}
    with pytest.raises(SettingError, match=r"memory\.type"):
        trained(tmp_path, settings)


def test_states_keep_their_form() -> None:
    """A state's tensors go through the memory by number; their order is that of the names."""
    state = {"b": {"y": torch.tensor([1.0]), "x": torch.tensor([2.0])}, "a": torch.tensor([3.0])}
    layout = refilled(state, iter(range(3)))
    assert layout == {"a": 0, "b": {"x": 1, "y": 2}}
    again = refilled(layout, iter(flat(state)))
    assert again == {"a": state["a"], "b": state["b"]}
