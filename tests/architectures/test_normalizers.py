"""Running statistics: against NumPy and a plain loop, and wherever the weights go."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from coach.agents.actor_critic import ActorCritic
from coach.agents.dqn import DQN
from coach.agents.q_targets import MonteCarlo
from coach.architectures.network import Network
from coach.architectures.normalizers import ObservationNormalizer, RewardScale, RunningMoments
from coach.architectures.target import Target
from coach.core.batch import Batch
from coach.core.errors import SettingError
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.runners.experiment import build_experiment
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_loop import Ladder, small_loop

NUMBERS = st.floats(-1e3, 1e3, width=32)
SPEC = Spec(
    spaces.Dict(
        {
            "inner": spaces.Dict({"speed": spaces.Box(-np.inf, np.inf, (2,))}),
            "camera": spaces.Box(0, 255, (8, 8, 1), np.uint8),
            "task": spaces.Discrete(3),
        }
    ),
    spaces.Discrete(2),
)


def fragment(reward: Any, boundary: Any, obs: Any = None) -> Batch:
    """A fragment ``[T, N]`` of which only some fields matter."""
    reward = torch.as_tensor(np.asarray(reward), dtype=torch.float32)
    boundary = torch.as_tensor(np.asarray(boundary))
    ids = torch.arange(reward.shape[1])
    return Batch(obs, reward, reward, reward, obs, boundary, env_ids=ids)


def normalized(**options: bool) -> Network:
    torch.manual_seed(0)
    flat = {"type": "mlp", "hidden": []}
    return Network(SPEC, {"q": "q"}, embedder=flat, **options)


def normalizers(network: Network) -> list[ObservationNormalizer]:
    return [module for module in network.modules() if isinstance(module, ObservationNormalizer)]


def some_obs(seed: int = 0) -> Any:
    rng = torch.Generator().manual_seed(seed)
    return {
        "inner": {"speed": 5 + 3 * torch.randn(20, 2, 2, generator=rng)},
        "camera": torch.randint(0, 256, (20, 2, 8, 8, 1), generator=rng).byte(),
        "task": torch.randint(0, 3, (20, 2), generator=rng),
    }


@settings(max_examples=60)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.data())
def test_moments_equal_numpy_over_any_batches(sizes: list[int], data: st.DataObject) -> None:
    batches = [data.draw(arrays(np.float32, (size, 2), elements=NUMBERS)) for size in sizes]
    moments = RunningMoments((2,))
    for batch in batches:
        moments.update(torch.from_numpy(batch))
    everything = np.concatenate(batches).astype(np.float64)
    np.testing.assert_allclose(moments.mean, everything.mean(0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(moments.var, everything.var(0), rtol=1e-7, atol=1e-7)
    assert moments.count == len(everything)


def test_moments_stay_exact_far_from_zero() -> None:
    moments, rng = RunningMoments(()), np.random.default_rng(0)
    items = 1e6 + rng.normal(size=10_000)
    for part in np.split(items, 100):
        moments.update(torch.from_numpy(part))
    assert float(moments.var) == pytest.approx(items.var(), rel=1e-6)


def test_observations_are_scaled_and_clipped() -> None:
    normalizer = ObservationNormalizer((), (2,), clip=2.0)
    obs = torch.randn(50, 2) * torch.tensor([3.0, 0.1]) + torch.tensor([5.0, -1.0])
    torch.testing.assert_close(normalizer(obs[:3] * 0.1), (obs[:3] * 0.1).clamp(-2, 2))
    normalizer.moments.update(obs)
    wanted = (obs - obs.mean(0)) / obs.std(0, correction=0)
    torch.testing.assert_close(normalizer(obs), wanted.clamp(-2, 2), rtol=1e-4, atol=1e-4)
    assert normalizer(obs).abs().max() == 2.0


def test_only_float_observations_are_normalized() -> None:
    network = normalized(normalize_observations=True)
    assert [n.key for n in normalizers(network)] == [("inner", "speed")]


def test_statistics_change_by_observation_alone() -> None:
    agent = DQN(SPEC, normalized(normalize_observations=True, normalize_rewards=True))
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    obs = some_obs()
    agent.online({k: v.flatten(0, 1) if k != "inner" else {"speed": v["speed"].flatten(0, 1)} for k, v in obs.items()})  # fmt: skip
    agent.prepare(fragment(np.ones((20, 2)), np.zeros((20, 2), bool)))
    assert all(torch.equal(value, before[name]) for name, value in agent.state_dict().items())
    seen = fragment(np.ones((20, 2)), np.zeros((20, 2), bool), obs)
    agent.receive(seen), agent.observe(seen)
    moments = normalizers(agent.online)[0].moments
    wanted = obs["inner"]["speed"].flatten(0, 1).double()
    torch.testing.assert_close(moments.mean, wanted.mean(0))
    torch.testing.assert_close(moments.var, wanted.var(0, correction=0))
    assert agent.online.reward_scale is not None
    assert agent.online.reward_scale.moments.count == 40


def test_statistics_travel_with_the_weights() -> None:
    first = normalized(normalize_observations=True, normalize_rewards=True)
    seen = fragment(
        np.random.default_rng(0).normal(size=(20, 2)), np.zeros((20, 2), bool), some_obs()
    )
    for module in first.modules():
        if hasattr(module, "refresh"):
            module.refresh(seen)
    second = normalized(normalize_observations=True, normalize_rewards=True)
    second.load_state_dict(first.state_dict())
    obs = {"inner": {"speed": torch.rand(4, 2)}, "camera": torch.zeros(4, 8, 8, 1).byte(), "task": torch.zeros(4)}  # fmt: skip
    assert torch.equal(first(obs).q.mean, second(obs).q.mean)
    assert first.reward_scale is not None
    assert second.reward_scale is not None
    assert torch.equal(first.reward_scale(torch.ones(3)), second.reward_scale(torch.ones(3)))
    # And the running returns go on from where they were.
    first.reward_scale.refresh(seen), second.reward_scale.refresh(seen)
    assert torch.equal(first.reward_scale.running, second.reward_scale.running)
    assert torch.equal(first.reward_scale.moments.var, second.reward_scale.moments.var)


def test_a_target_takes_the_statistics_over() -> None:
    online = normalized(normalize_observations=True, normalize_rewards=True)
    target = Target(online, tau=0.5)
    for module in online.modules():
        if hasattr(module, "refresh"):
            module.refresh(fragment(np.ones((20, 2)), np.zeros((20, 2), bool), some_obs()))
    target.track(online)
    mine, theirs = dict(target.network.named_buffers()), dict(online.named_buffers())
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.tuples(NUMBERS, NUMBERS), st.tuples(st.booleans(), st.booleans())),
        min_size=2,
        max_size=20,
    ),
    st.data(),
)
def test_reward_scale_equals_a_plain_loop_however_steps_are_split(
    steps: list[Any], data: st.DataObject
) -> None:
    reward = np.array([now for now, _ in steps], np.float32)
    ended = np.array([over for _, over in steps])
    cut = data.draw(st.integers(1, len(steps) - 1))
    scale = RewardScale(gamma=0.9)
    scale.refresh(fragment(reward[:cut], ended[:cut]))
    scale.refresh(fragment(reward[cut:], ended[cut:]))
    returns, running = [], [0.0, 0.0]
    for now, over in zip(reward.tolist(), ended.tolist()):
        for env in range(2):
            running[env] = running[env] * 0.9 + now[env]
            returns.append(running[env])
            if over[env]:
                running[env] = 0.0
    deviation = np.std(returns)
    np.testing.assert_allclose(scale.running, running, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(scale.moments.var, deviation**2, rtol=1e-6, atol=1e-6)
    if deviation > 1e-2:
        wanted = np.clip(3.0 / deviation, -10, 10)
        assert float(scale(torch.tensor(3.0))) == pytest.approx(wanted, rel=1e-3)


def test_fragments_of_some_environments_go_to_their_own_returns() -> None:
    scale = RewardScale(gamma=1.0)
    part = fragment([[1.0, 2.0]], [[False, False]])
    scale.refresh(replace(part, env_ids=torch.tensor([3, 1])))
    scale.refresh(replace(part, env_ids=torch.tensor([0, 3])))
    assert scale.running.tolist() == [1.0, 2.0, 0.0, 3.0]


def test_returns_of_episodes_that_were_given_up_begin_anew() -> None:
    scale = RewardScale(gamma=1.0)
    scale.refresh(fragment([[1.0, 2.0]], [[False, False]]))
    broken_off = replace(fragment([[5.0]], [[False]]), env_ids=torch.tensor([1]), continues=False)
    scale.refresh(broken_off)
    assert scale.running.tolist() == [1.0, 5.0]


def test_rewards_without_any_variance_are_left_alone() -> None:
    scale = RewardScale(gamma=0.0)
    assert scale(torch.tensor([3.0])).tolist() == [3.0]
    scale.refresh(fragment([[2.0, 2.0]], [[False, False]]))
    assert scale(torch.tensor([3.0])).tolist() == [3.0]


def test_sums_of_rewards_have_the_scale_of_their_parts() -> None:
    """In a replay they are returns of several steps, and of episodes where a rule wants these."""
    agent = DQN(SPEC, normalized(normalize_rewards=True), monte_carlo=MonteCarlo(0.5))
    assert agent.online.reward_scale is not None
    agent.online.reward_scale.moments.update(torch.tensor([0.0, 0.5]))  # deviation 1/4
    batch = replace(fragment([[5.0]], [[False]]), extras={"return": torch.tensor([[7.0]])})
    prepared = agent.prepare(batch)
    assert float(prepared.reward) == pytest.approx(20.0)
    assert float(prepared.extras["return"]) == pytest.approx(28.0)
    assert float(batch.extras["return"]) == 7.0


def test_single_rewards_of_a_rollout_are_clipped() -> None:
    spec = Spec(spaces.Discrete(3), spaces.Discrete(2))
    network = Network(spec, {"policy": "categorical", "value": "value"}, normalize_rewards=True)
    agent = ActorCritic(spec, network)
    assert network.reward_scale is not None
    network.reward_scale.moments.update(torch.tensor([0.0, 0.5]))
    prepared = agent.prepare(fragment([[5.0, -1.0]], [[False, False]]))
    torch.testing.assert_close(prepared.reward, torch.tensor([[10.0, -4.0]]))


def test_the_scale_of_a_rollout_knows_that_rollout() -> None:
    """Rewards around -40 reach the first update divided by the deviation of their returns."""

    class Costly(Ladder):
        def step(self, action: Any) -> Any:
            obs, _, *rest = super().step(action)
            return obs, -40.0 - 3.0 * self.steps, *rest

    network = {"heads": {"policy": "categorical", "value": "value"}, "normalize_rewards": True}
    memory = {"horizon": 6, "epochs": 1, "discount": 0.9}
    agent = {"type": "actor_critic", "network": network}
    rig = small_loop(agent, partial(Costly, spaces.Discrete(2)), "rollout", num_envs=3, **memory)
    rig.actor.length = 2  # three fragments make up a rollout
    fragments, prepared = [], []

    def collect(inner: Any = rig.actor.collect) -> Batch:
        fragments.append(inner().clone())
        return fragments[-1]

    def prepare(batch: Batch, inner: Any = rig.learner.prepare) -> Batch:
        prepared.append(inner(batch))
        return prepared[-1]

    rig.actor.collect, rig.learner.prepare = collect, prepare  # type: ignore[method-assign]
    rig.train(36)
    assert len(prepared) == 2
    running, returns = np.zeros(3), []
    for number, batch in enumerate(prepared):
        raw = Batch.join(fragments[3 * number : 3 * number + 3], 0)
        for reward, over in zip(raw.reward.numpy(), raw.boundary.numpy()):
            running = 0.99 * running + reward
            returns.append(running)
            running = running * ~over
        wanted = raw.reward / np.std(returns)
        assert wanted.abs().max() < 10
        torch.testing.assert_close(batch.reward, wanted.float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("agent", "named"),
    [
        ({"type": "dqn", "initial_priorities": True}, "initial_priorities"),
        ({"type": "nec"}, "network.normalize_rewards"),
    ],
)
def test_scaled_rewards_are_refused_where_others_would_meet_them(
    agent: dict[str, Any], named: str
) -> None:
    head = "dnd_q" if agent["type"] == "nec" else "q"
    network = {"heads": {"q": head}, "normalize_rewards": True}
    spec = Spec(spaces.Discrete(4), spaces.Discrete(2))
    build_part("agent", {**agent, "network": {"heads": {"q": head}}}, spec=spec)
    with pytest.raises(SettingError) as raised:
        build_part("agent", {**agent, "network": network}, "agent", spec=spec)
    assert raised.value.key == f"agent.{named}"
    build_part("agent", {"type": agent["type"], "network": {"heads": {"q": head}}}, spec=spec)


def test_statistics_of_rewards_that_nobody_reads_are_refused() -> None:
    critic = {"heads": {"q": "continuous_q"}, "normalize_rewards": True}
    preset = {
        "environment": {"id": "Pendulum-v1"},
        "agent": {"type": "sac", "critic": critic},
        "memory": {"type": "replay", "capacity": 100},
        "run": {"steps": 10},
    }
    with pytest.raises(SettingError, match=r"agent\.critic\.normalize_rewards.*never be read"):
        build_experiment(preset)
    actor = {"heads": {"policy": "squashed_gaussian"}, "normalize_rewards": True}
    built = build_experiment({**preset, "agent": {"type": "sac", "actor": actor}})
    built.source.close()


def test_prepare_scales_rewards() -> None:
    agent = DQN(SPEC, normalized(normalize_rewards=True))
    assert agent.online.reward_scale is not None
    agent.online.reward_scale.moments.update(torch.tensor([0.0, 8.0]))  # deviation 4
    batch = agent.prepare(fragment([[2.0]], [[False]]))
    assert float(batch.reward) == pytest.approx(0.5)
