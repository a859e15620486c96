"""Recordings make the same operations as the function, to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
import torch
from coach.core import recording as recording_module
from coach.core.recording import _BUILTINS as BUILTINS
from coach.core.recording import Recording, same_bits
from coach.core.tape import NotRecordableError
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

Function = Callable[[Sequence[Tensor]], list[Tensor]]

UNARY: list[Callable[[Tensor], Tensor]] = [
    torch.exp,
    torch.tanh,
    torch.relu,
    lambda x: x.clamp(-0.5, 0.5),
    lambda x: x * 2.5 + 1,
    lambda x: 1 - x / 3,
    lambda x: x.square().mean(0, keepdim=True) + x,
    lambda x: functional.log_softmax(x, -1),
    lambda x: x.t().contiguous().t() * x,
    lambda x: torch.where(x > 0.1, x, -x),
    lambda x: (x - x.mean()) / (x.std() + 1e-8),
    lambda x: torch.cat([x[:, 1:], x[:, :1]], -1),
    lambda x: x.gather(-1, x.argsort(-1)),
    lambda x: x.cumsum(0),
    lambda x: x.abs().sqrt(),
    lambda x: torch.zeros_like(x).add_(x).mul_(3),
    lambda x: x + torch.arange(x.shape[1]).float(),
]
BINARY: list[Callable[[Tensor, Tensor], Tensor]] = [
    torch.add,
    torch.mul,
    torch.minimum,
    lambda x, y: x @ y.t() @ y,
    lambda x, y: torch.addcmul(x, y, x, value=0.5),
    lambda x, y: torch.stack([x, y]).max(0).values,
]


def recorded(function: Function, inputs: Sequence[Tensor]) -> Recording:
    private = [tensor.clone() for tensor in inputs]
    return Recording(lambda: function(private), private)


def agree(function: Function, recording: Recording, inputs: Sequence[Tensor]) -> bool:
    states = [generator.get_state() for generator in recording.generators]
    replayed = recording(inputs)
    for generator, state in zip(recording.generators, states):
        generator.set_state(state)
    return all(map(same_bits, replayed, function(inputs)))


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30)),
        min_size=1,
        max_size=12,
    ),
    differentiate=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_random_programs_and_their_gradients(
    steps: list[tuple[int, int, int]], differentiate: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(5, 5, requires_grad=True)

    def program(inputs: Sequence[Tensor]) -> list[Tensor]:
        values = [*inputs, inputs[0] @ weight]
        for which, one, other in steps:
            x, y = values[one % len(values)], values[other % len(values)]
            if which < len(UNARY):
                values.append(UNARY[which](x))
            else:
                values.append(BINARY[which % len(BINARY)](x, y))
        if differentiate:
            return [
                values[-1].detach(),
                *torch.autograd.grad((values[-1] * values[2]).sum(), weight),
            ]
        return values[-2:]

    def draw() -> list[Tensor]:
        return [torch.randn(7, 5), torch.randn(7, 5)]

    recording = recorded(program, draw())
    assert all(agree(program, recording, draw()) for _ in range(5))


def test_what_depends_on_nothing_is_not_made_again() -> None:
    x = torch.randn(4)
    recording = recorded(lambda t: [t[0] * torch.ones(4).div(4).mul(0.5)], [x])
    assert len(recording) == 1


def test_what_nobody_needs_is_not_made_again() -> None:
    def function(inputs: Sequence[Tensor]) -> list[Tensor]:
        inputs[0].exp().sum()
        return [inputs[0] + 1]

    assert len(recorded(function, [torch.randn(4)])) == 1


def test_draws_go_on_as_the_function_would() -> None:
    rng = torch.Generator().manual_seed(3)

    def function(inputs: Sequence[Tensor]) -> list[Tensor]:
        torch.rand(2, generator=rng)  # nobody needs it, but it moves the stream
        noise = torch.randn(4, generator=rng)
        return [inputs[0] + noise, torch.empty(3).exponential_(generator=rng)]

    x = torch.zeros(4)
    recording = recorded(function, [x])
    recording([x])
    replayed = recording([x])
    rng.manual_seed(3)
    truth = [function([x]) for _ in range(3)][-1]  # one while recording, two replays
    assert all(map(same_bits, replayed, truth))


def test_weights_that_change_in_place_are_seen() -> None:
    layer = nn.Linear(3, 2)
    x = torch.randn(5, 3)
    with torch.no_grad():
        recording = recorded(lambda t: [layer(t[0])], [x])
        layer.weight.mul_(2)
        assert same_bits(recording([x])[0], layer(x))
        assert recording.fits()
        layer.weight.data = layer.weight.clone()
        assert not recording.fits()


def test_results_stay_when_it_is_called_again() -> None:
    recording = recorded(lambda t: [t[0] * 2], [torch.ones(2)])
    first = recording([torch.ones(2)])[0]
    recording([torch.zeros(2)])
    assert first.tolist() == [2, 2]


def test_results_that_are_copied_somewhere_are_made_there() -> None:
    flat = torch.zeros(64)
    views = [flat[0:12].view(3, 4), flat[16:20]]

    def gradients(inputs: Sequence[Tensor]) -> list[Tensor]:
        x = inputs[0]
        torch._foreach_copy_(views, [x[:, :3].t() @ x, x.sum(0)])
        return []

    private = [torch.randn(6, 4)]
    recording = Recording(lambda: gradients(private), private, [flat])
    assert len(recording) == 2  # no copy
    x = torch.randn(6, 4)
    recording([x])
    assert torch.equal(views[0], x[:, :3].t() @ x)
    assert torch.equal(views[1], x.sum(0))


def test_memory_is_used_again() -> None:
    def chain(inputs: Sequence[Tensor]) -> list[Tensor]:
        x = inputs[0]
        for _ in range(20):
            x = x * 1.5 - 0.1
        return [x]

    x = torch.randn(1000)
    recording = recorded(chain, [x])
    assert agree(chain, recording, [torch.randn(1000)])
    assert recording.nbytes == 3 * x.nbytes  # what comes in and out, and one between


def test_only_what_nobody_looks_at_again_is_written_over() -> None:
    def function(inputs: Sequence[Tensor]) -> list[Tensor]:
        x = inputs[0] + 1
        y = x * 2  # x is read later
        z = y + y.t()  # y is read in two ways
        wide = z.exp().expand(3, 30, 30) + z.tanh()  # of another shape
        return [x.sub(y), wide.sigmoid() + z, z > 0]

    recording = recorded(function, [torch.randn(30, 30)])
    assert all(agree(function, recording, [torch.randn(30, 30)]) for _ in range(3))


def test_operations_that_write_over_what_they_read_are_tried_on_what_was_there() -> None:
    """Of several ways to make an operation each must begin with the same numbers."""
    tried = 0

    def function(inputs: Sequence[Tensor]) -> list[Tensor]:
        return [(inputs[0].exp() / 3).tanh().sum()]

    def failing(*args: object, **kwargs: object) -> Tensor:
        nonlocal tried
        tried += 1
        torch.div(*args, **kwargs)  # type: ignore[call-overload]
        raise RuntimeError

    x = torch.randn(50)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording_module, "_BUILTINS", (SimpleNamespace(div=failing), *BUILTINS))
        recording = recorded(function, [x])
    assert tried
    assert agree(function, recording, [torch.randn(50)])
    assert same_bits(recording([x])[0], function([x])[0])


def _fetches(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [inputs[0] * float(inputs[0].sum())]


def _branches(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [inputs[0] if inputs[0].sum() > 0 else -inputs[0]]


def _selects(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [inputs[0][inputs[0] > 0]]


OUTSIDE = torch.zeros(4)


def _writes(inputs: Sequence[Tensor]) -> list[Tensor]:
    OUTSIDE.add_(inputs[0])
    return [inputs[0]]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (_fetches, "fetches a number"),
        (_branches, "fetches a number"),
        (_selects, "unknown size"),
        (_writes, "outlive"),
    ],
)
def test_what_cannot_be_recorded_is_refused(function: Function, words: str) -> None:
    with pytest.raises(NotRecordableError, match=words):
        recorded(function, [torch.randn(4)])


def test_a_refusal_leaves_generators_as_they_were() -> None:
    rng = torch.Generator().manual_seed(1)
    state = rng.get_state()

    def function(inputs: Sequence[Tensor]) -> list[Tensor]:
        return [torch.rand(int(inputs[0].sum() + torch.rand(1, generator=rng)))]

    with pytest.raises(NotRecordableError):
        recorded(function, [torch.ones(4)])
    assert torch.equal(rng.get_state(), state)


def test_too_much_memory_is_refused() -> None:
    x = [torch.randn(100)]
    with pytest.raises(NotRecordableError, match="MiB"):
        Recording(lambda: [x[0].exp().tanh()], x, most_bytes=100)


def test_noting_stops_before_much_memory_is_taken() -> None:
    made = 0

    def grows() -> list[Tensor]:
        nonlocal made
        for made in range(1, 1_001):
            last = x[0] * made
        return [last]

    x = [torch.randn(100)]  # 400 bytes
    with pytest.raises(NotRecordableError, match="too many large tensors"):
        Recording(grows, x, most_bytes=1_000)
    assert made == 8_000 // 400 + 1


def test_recordings_share_memory() -> None:
    pool: list[torch.UntypedStorage] = []
    inputs = [torch.randn(500)]

    def chain(tensors: Sequence[Tensor]) -> list[Tensor]:
        return [tensors[0].exp().tanh().sum()]

    first = Recording(lambda: chain(inputs), inputs, pool=pool)
    again = [inputs[0].clone()]
    second = Recording(lambda: chain(again), again, pool=pool)
    assert second.nbytes < first.nbytes - 1000
    for _ in range(3):
        assert agree(chain, first, [torch.randn(500)])
        assert agree(chain, second, [torch.randn(500)])
