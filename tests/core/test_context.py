"""Random numbers while acting: one stream, the right distributions, none while evaluating."""

from __future__ import annotations

import pytest
import torch
from coach.core.context import Context
from hypothesis import given
from hypothesis import strategies as st


def context(seed: int = 0, explore: bool = True) -> Context:
    return Context(0, torch.Generator().manual_seed(seed), torch.arange(2), explore)


def test_numbers_come_from_the_given_stream() -> None:
    def drawn(global_seed: int) -> list[torch.Tensor]:
        torch.manual_seed(global_seed)
        ctx = context()
        return [ctx.uniform(3, 2), ctx.normal(4), ctx.categorical(torch.zeros(50, 3))]

    for one, two in zip(drawn(1), drawn(2)):
        assert torch.equal(one, two)
    before = torch.random.get_rng_state()
    drawn_once = context().uniform(5)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not torch.equal(drawn_once, context(1).uniform(5))


def test_distributions() -> None:
    ctx = context()
    uniform, normal = ctx.uniform(40_000), ctx.normal(40_000)
    assert 0 <= uniform.min() < 1e-3
    assert 0.999 < uniform.max() < 1
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(normal.mean()) == pytest.approx(0, abs=0.02)
    assert float(normal.std()) == pytest.approx(1, abs=0.02)


def test_choices_come_in_proportion() -> None:
    share = torch.tensor([0.5, 0.0, 0.2, 0.3])
    drawn = context().categorical((share.log() + 3.0).expand(40_000, 4))
    counted = torch.bincount(drawn, minlength=4) / 40_000
    assert counted[1] == 0
    torch.testing.assert_close(counted, share, rtol=0, atol=0.01)


@given(
    st.lists(st.floats(-50, 50, width=32, allow_subnormal=False), min_size=1, max_size=6),
    st.integers(0, 2**31),
)
def test_evaluation_takes_the_most_probable(logits: list[float], seed: int) -> None:
    ctx = context(seed, explore=False)
    before = ctx.rng.get_state()
    choice = int(ctx.categorical(torch.tensor([logits]))[0])
    assert logits[choice] == max(logits)
    assert torch.equal(ctx.rng.get_state(), before)


def test_logits_are_not_changed() -> None:
    logits = torch.arange(6.0).view(2, 3)
    context().categorical(logits)
    assert logits.flatten().tolist() == [0, 1, 2, 3, 4, 5]
