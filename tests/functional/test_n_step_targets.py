"""N-step targets along sequences: by hand, and against a loop that follows the definition."""

from __future__ import annotations

import pytest
import torch
from coach.functional.n_step_targets import n_step_targets
from hypothesis import given
from hypothesis import strategies as st

GAMMA = 0.5


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


def targets(ends: list[str], reward: list[float], value: list[float], n: int) -> list[float]:
    found = n_step_targets(
        column(*reward),
        column(*(0.0 if end == "end" else GAMMA for end in ends)),
        column(*(end != "" for end in ends)).bool(),
        column(*value),
        n,
    )
    return found[:, 0].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("n", "wanted"),
    [
        (1, [1 + 4, 2 + 8, 4 + 16]),
        (2, [1 + 1 + 4, 2 + 2 + 8, 4 + 16]),  # the last has nothing behind it but its value
        (3, [1 + 1 + 1 + 4, 2 + 2 + 8, 4 + 16]),
        (9, [1 + 1 + 1 + 4, 2 + 2 + 8, 4 + 16]),
    ],
)
def test_returns_end_with_the_sequence(n: int, wanted: list[float]) -> None:
    assert targets(["", "", ""], [1, 2, 4], [8, 16, 32], n) == wanted


@pytest.mark.parametrize("n", [2, 3, 7])
def test_a_time_limit_bootstraps_and_a_terminal_state_does_not(n: int) -> None:
    assert targets(["", "end", ""], [1, 2, 4], [8, 16, 32], n) == [1 + 1, 2, 4 + 16]
    assert targets(["", "cut", ""], [1, 2, 4], [8, 16, 32], n) == [1 + 1 + 4, 2 + 8, 4 + 16]
    assert targets(["end", "", ""], [1, 2, 4], [8, 16, 32], n) == [1, 2 + 2 + 8, 4 + 16]


def plain(t: int, reward: list[float], ends: list[str], value: list[float], n: int) -> float:
    total, factor = 0.0, 1.0
    for k in range(t, min(t + n, len(reward))):
        total += factor * reward[k]
        factor *= GAMMA
        if ends[k] == "end":
            return total
        if ends[k] == "cut" or k == min(t + n, len(reward)) - 1:
            return total + factor * value[k]
    raise AssertionError("the sequence has a last step")


NUMBERS = st.floats(-10, 10, width=32, allow_subnormal=False)
STEPS = st.lists(
    st.tuples(st.sampled_from(["", "", "", "end", "cut"]), NUMBERS, NUMBERS),
    min_size=1,
    max_size=12,
)


@given(STEPS, st.integers(1, 14))
def test_any_sequence_equals_the_definition(steps: list[tuple[str, float, float]], n: int) -> None:
    ends, reward, value = (list(part) for part in zip(*steps))
    wanted = [plain(t, reward, ends, value, n) for t in range(len(ends))]
    assert targets(ends, reward, value, n) == pytest.approx(wanted, abs=1e-4)


def test_columns_do_not_mix() -> None:
    torch.manual_seed(0)
    reward, value = torch.randn(7, 3), torch.randn(7, 3)
    boundary = torch.rand(7, 3) < 0.3
    discount = 0.9 * (torch.rand(7, 3) < 0.8).float()
    whole = n_step_targets(reward, discount, boundary, value, 4)
    for m in range(3):
        one = slice(m, m + 1)
        alone = n_step_targets(reward[:, one], discount[:, one], boundary[:, one], value[:, one], 4)
        assert torch.equal(whole[:, one], alone)
