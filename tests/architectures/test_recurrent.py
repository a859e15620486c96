"""Recurrent middleware beside torch's own cells, unrolled one episode at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from coach.architectures.middlewares.gru import GRU
from coach.architectures.middlewares.lstm import LSTM
from coach.architectures.network import Network
from coach.core.batch import map_tree
from coach.core.errors import CoachError
from coach.core.spec import Spec
from gymnasium import spaces

STEPS, COLUMNS, FEATURES, HIDDEN = 7, 3, 4, 5
CELLS = {"gru": GRU, "lstm": LSTM}


def torchs_own(cell: Any) -> Any:
    """A cell of torch with the same weights. Its GRU orders the gates reset, update, new too."""
    if isinstance(cell, GRU):
        own: Any = torch.nn.GRUCell(FEATURES, HIDDEN)
        weights = (cell.input.weight, cell.memory.weight, cell.input.bias, cell.memory.bias)
    else:
        own = torch.nn.LSTMCell(FEATURES, HIDDEN)
        nothing = torch.zeros_like(cell.input.bias)
        weights = (cell.input.weight, cell.memory.weight, cell.input.bias, nothing)
    with torch.no_grad():
        for mine, theirs in zip(
            (own.weight_ih, own.weight_hh, own.bias_ih, own.bias_hh), weights, strict=True
        ):
            mine.copy_(theirs)
    return own


def by_episodes(
    own: Any, features: torch.Tensor, state: Any, boundary: torch.Tensor
) -> torch.Tensor:
    """Every column on its own, step by step, with a fresh state behind every boundary."""
    outputs = torch.zeros(STEPS, COLUMNS, HIDDEN)
    for m in range(COLUMNS):
        now = map_tree(lambda s, m=m: s[m : m + 1], state)
        for t in range(STEPS):
            before = now if torch.is_tensor(now) else (now["hidden"], now["cell"])
            after = own(features[t, m : m + 1], before)
            outputs[t, m] = after[0] if isinstance(after, tuple) else after
            now = {"hidden": after[0], "cell": after[1]} if isinstance(after, tuple) else after
            if boundary[t, m]:
                now = map_tree(torch.zeros_like, now)
    return outputs


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("seed", range(3))
def test_sequences_equal_torchs_cells_episode_by_episode(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    cell = CELLS[name](FEATURES, HIDDEN)
    features = torch.randn(STEPS, COLUMNS, FEATURES)
    state = map_tree(torch.randn_like, cell.initial_state(COLUMNS))
    boundary = torch.rand(STEPS, COLUMNS) < 0.3
    outputs, after = cell(features.flatten(0, 1), state, boundary.flatten())
    wanted = by_episodes(torchs_own(cell), features, state, boundary)
    torch.testing.assert_close(outputs.view(STEPS, COLUMNS, HIDDEN), wanted)
    hidden = after if torch.is_tensor(after) else after["hidden"]
    torch.testing.assert_close(hidden, outputs)  # the state after each row, before any restart


@pytest.mark.parametrize("name", CELLS)
def test_one_step_at_a_time_is_the_same_as_all_at_once(name: str) -> None:
    cell = CELLS[name](FEATURES, HIDDEN)
    features = torch.randn(STEPS, COLUMNS, FEATURES)
    boundary = torch.zeros(STEPS, COLUMNS, dtype=torch.bool)
    boundary[3, 1] = True
    at_once, _ = cell(features.flatten(0, 1), cell.initial_state(COLUMNS), boundary.flatten())
    state, one_by_one = cell.initial_state(COLUMNS), []
    for t in range(STEPS):
        output, state = cell(features[t], state)
        one_by_one.append(output)
        state = map_tree(lambda s, t=t: s * ~boundary[t][:, None], state)
    torch.testing.assert_close(torch.cat(one_by_one), at_once)


@pytest.mark.parametrize("name", CELLS)
def test_nothing_flows_back_over_a_boundary(name: str) -> None:
    cell = CELLS[name](FEATURES, HIDDEN)
    features = torch.randn(STEPS, COLUMNS, FEATURES, requires_grad=True)
    boundary = torch.zeros(STEPS, COLUMNS, dtype=torch.bool)
    boundary[2] = True
    outputs, _ = cell(features.flatten(0, 1), cell.initial_state(COLUMNS), boundary.flatten())
    outputs.view(STEPS, COLUMNS, HIDDEN)[3:].sum().backward()
    assert features.grad is not None
    assert not features.grad[:3].any()
    assert features.grad[3:].any(-1).all()


def test_a_network_without_its_state_says_how_it_is_called() -> None:
    spec = Spec(spaces.Box(-1, 1, (3,)), spaces.Discrete(2))
    network = Network(spec, {"q": "q"}, middleware="gru")
    with pytest.raises(CoachError, match=r"network\(obs, state\)"):
        network(torch.zeros(2, 3))


def test_forget_gates_begin_open() -> None:
    bias = LSTM(FEATURES, HIDDEN).input.bias
    assert (bias[HIDDEN : 2 * HIDDEN] == 1).all()
