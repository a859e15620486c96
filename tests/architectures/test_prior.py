"""Fixed random functions (arXiv:1806.03335): what they depend on, and that nothing moves them."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from coach.agents.dqn import DQN
from coach.architectures.heads.ensemble_q import EnsembleQ
from coach.architectures.network import Network
from coach.core.errors import CoachError
from coach.core.schema import build_part
from coach.core.spec import Spec
from coach.runners.board import WeightBoard
from gymnasium import spaces
from small_loop import Ladder, small_loop
from torch import Tensor, nn

SCALE, MEMBERS = 2.5, 4
HEAD = {"type": "ensemble_q", "members": MEMBERS, "prior_scale": SCALE, "hidden": [6]}
NETWORK = {"embedder": {"type": "mlp", "hidden": [16]}, "heads": {"q": HEAD}}
SPEC = Spec(spaces.Box(-5, 5, (2,), np.float32), spaces.Discrete(3))
OBS = torch.rand(7, 2, generator=torch.Generator().manual_seed(2)) * 4


def fixed_part(network: nn.Module, obs: Any = OBS) -> Tensor:
    """Values ``[E, B, A]`` of a copy whose members all say 0: what is left is the fixed function.

    Everything else of the copy is drawn anew, so that it would show if it was read.
    """
    alone: Any = copy.deepcopy(network)
    with torch.no_grad():
        for name, parameter in alone.named_parameters():
            if name.startswith("trunks"):
                parameter.normal_()
            elif name.startswith("heads"):
                parameter.zero_()
        every: Tensor = alone(obs).q.every
    return every


def agent_of(seed: int = 0, **changed: Any) -> DQN:
    torch.manual_seed(seed)
    settings = {"type": "dqn", "network": {**NETWORK, **changed}, "exploration": "bootstrapped"}
    agent: DQN = build_part("agent", settings, spec=SPEC).value
    return agent


@pytest.mark.parametrize("target", [{"target_every": 3}, {"target_every": 1, "target_tau": 0.3}])
@pytest.mark.parametrize("normalize", [False, True])
def test_training_leaves_it_alone(target: dict[str, Any], normalize: bool) -> None:
    network = {**NETWORK, "normalize_observations": normalize}
    agent = {"type": "dqn", "network": network, "exploration": "bootstrapped", **target}
    rig = small_loop(agent, partial(Ladder, spaces.Discrete(3), 5), lr=0.05, updates_per_step=1)
    online, followers = rig.agent.online, rig.agent.target.network  # type: ignore[union-attr]
    before, learned = fixed_part(online), online(OBS).q.every.detach().clone()
    assert before.abs().amax((1, 2)).min() > 0.1  # every member has one
    rig.train(120)
    assert rig.learner.version > 50
    assert torch.equal(fixed_part(online), before)
    assert torch.equal(fixed_part(followers), before)
    assert not torch.allclose(online(OBS).q.every, learned, atol=0.1)


def test_members_have_functions_of_their_own_which_are_added() -> None:
    agent = agent_of()
    prior = fixed_part(agent.online)
    for one in range(MEMBERS):
        for two in range(one):
            assert not torch.allclose(prior[one], prior[two], atol=1e-2)
    bare = Network(SPEC, {"q": {**HEAD, "prior_scale": 0.0}}, NETWORK["embedder"])
    mine = {n: p for n, p in agent.online.state_dict().items() if not n.startswith("priors")}
    bare.load_state_dict(mine)
    torch.testing.assert_close(agent.online(OBS).q.every, bare(OBS).q.every + prior)


def test_without_it_a_network_is_drawn_as_before() -> None:
    agent, bare = agent_of(3), agent_of(3, heads={"q": {**HEAD, "prior_scale": 0.0}})
    mine = agent.online.state_dict()
    for name, weight in bare.online.state_dict().items():
        assert torch.equal(weight, mine[name])
    assert not any(name.startswith("priors") for name in bare.online.state_dict())


def test_has_no_gradient() -> None:
    agent = agent_of()
    fixed = {name for name, p in agent.online.named_parameters() if not p.requires_grad}
    assert fixed == {n for n, _ in agent.online.named_parameters() if n.startswith("priors")}
    obs = OBS.clone().requires_grad_()
    agent.online(obs).q.every.sum().backward()
    through = obs.grad
    assert through is not None
    bare = Network(SPEC, {"q": {**HEAD, "prior_scale": 0.0}}, NETWORK["embedder"])
    mine = {n: p for n, p in agent.online.state_dict().items() if not n.startswith("priors")}
    bare.load_state_dict(mine)
    alone = OBS.clone().requires_grad_()
    bare(alone).q.every.sum().backward()
    torch.testing.assert_close(through, alone.grad)


def test_is_saved_restored_and_broadcast_with_the_weights() -> None:
    first, restored, actor = agent_of(1), agent_of(2), agent_of(3)
    wanted = fixed_part(first.online)
    assert not torch.allclose(fixed_part(restored.online), wanted, atol=1e-2)
    restored.load_state_dict(first.state_dict())
    assert torch.equal(fixed_part(restored.online), wanted)
    assert torch.equal(fixed_part(restored.target.network), wanted)
    board = WeightBoard(first.policy)
    board.publish(1)
    assert WeightBoard(actor.policy, board.block.again()).fetch() == 1
    assert torch.equal(fixed_part(actor.online), wanted)


def test_statistics_of_observations_have_no_part_in_it() -> None:
    agent = agent_of(normalize_observations=True)
    before = fixed_part(agent.online)
    for module in agent.modules():
        if hasattr(module, "moments"):
            module.moments.update(100 * OBS + 7)  # type: ignore[operator, union-attr]
    assert torch.equal(fixed_part(agent.online), before)


def test_reads_every_entry_of_a_dict_but_the_mask() -> None:
    entries = {
        "a": spaces.Box(-1, 1, (2,), np.float32),
        "b": spaces.Discrete(4),
        "action_mask": spaces.MultiBinary(3),
    }
    spec = Spec(spaces.Dict(entries), spaces.Discrete(3))
    network = Network(spec, {"q": HEAD}, middleware={"type": "gru", "hidden": 5})
    obs = {
        "a": torch.rand(7, 2),
        "b": torch.arange(7) % 4,
        "action_mask": torch.ones(7, 3, dtype=torch.int8),
    }

    def fixed(**changed: Tensor) -> Tensor:
        alone: Any = copy.deepcopy(network)
        with torch.no_grad():
            for name, parameter in alone.named_parameters():
                parameter.mul_(not name.startswith("heads"))
            every: Tensor = alone(obs | changed, alone.initial_state(7)).q.every
        return every

    before = fixed()
    assert not torch.allclose(fixed(a=obs["a"] + 1), before)
    assert not torch.allclose(fixed(b=(obs["b"] + 1) % 4), before)
    mask = torch.tensor([[1, 0, 1]] * 7, dtype=torch.int8)
    masked = fixed(action_mask=mask)
    assert torch.equal(masked[:, :, ::2], before[:, :, ::2])
    assert bool((masked[:, :, 1] == -torch.inf).all())


def test_a_head_alone_says_that_it_lacks_one() -> None:
    head = EnsembleQ(4, SPEC, members=2, prior_scale=1.0)
    with pytest.raises(CoachError, match="without a prior"):
        head(torch.rand(3, 4))
