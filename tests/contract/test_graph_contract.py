"""Embedders, middlewares and heads give the same whoever runs them.

Traced, exported, compiled, transformed, copied, in other precision: the numbers are those of the
module itself. It runs as on processors where NumPy makes its products, which no graph contains.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from coach.architectures import onednn
from coach.architectures.dense import Dense
from coach.architectures.ensemble import EnsembleLinear
from coach.architectures.linear import Linear
from coach.architectures.network import Network
from coach.core import blas
from coach.core.errors import SettingError
from coach.core.registry import entries
from coach.core.schema import Part
from coach.core.spec import Spec
from gymnasium import spaces
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode
from worlds import ACTIONS, OBSERVATIONS

ROWS, WIDTH = 5, 6


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a processor where products leave torch."""
    monkeypatch.setattr(blas, "FASTER", True)
    monkeypatch.setattr(onednn, "FASTER", onednn.works())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated, and says so at every branch
        yield
    torch._dynamo.reset()


class Flat(nn.Module):
    """A part that returns a tuple of tensors, as graphs must.

    Args:
        part: an embedder, middleware, head or network.
        action: what heads are asked about that return a function of an action.
    """

    def __init__(self, part: nn.Module, action: Tensor | None = None) -> None:
        super().__init__()
        self.part, self.action = part, action

    def forward(self, *inputs: Any) -> tuple[Tensor, ...]:
        return tuple(self._tensors(self.part(*inputs)))

    def _tensors(self, value: Any) -> list[Tensor]:
        if isinstance(value, Tensor):
            return [value]
        if isinstance(value, dict):
            value = tuple(value.values())
        if isinstance(value, list | tuple):
            return [tensor for item in value for tensor in self._tensors(item)]
        if hasattr(value, "quantile"):  # which may be drawn only when it is asked for
            return [value.mean, value.quantile, value.fraction]
        if hasattr(value, "__code__"):
            return [value(self.action)]
        return self._tensors(vars(value)) if hasattr(value, "__dict__") else []


def case(kind: str, name: str) -> tuple[Flat, tuple[Any, ...]]:
    """A part of small size with inputs for it."""
    torch.manual_seed(1)
    if kind == "middleware":
        middleware = Part.of("middleware", name)(features=WIDTH)
        state = middleware.initial_state(ROWS)
        if state is None:
            return Flat(middleware), (torch.randn(ROWS, WIDTH),)
        steps = torch.randn(3 * ROWS, WIDTH)
        return Flat(middleware), (steps, state, torch.rand(3 * ROWS) < 0.4)
    for action in ACTIONS.values():
        for observation in OBSERVATIONS.values():
            spec = Spec(observation, action)
            try:
                if kind == "head":
                    acted = torch.zeros(ROWS, *(action.shape or (1,)))
                    part = Part.of("head", name)(features=WIDTH, spec=spec)
                    return Flat(part, acted), (torch.randn(ROWS, WIDTH),)
                if not isinstance(observation, spaces.Dict):
                    observation.seed(0)
                    rows = [torch.as_tensor(observation.sample()) for _ in range(ROWS)]
                    return Flat(Part.of("embedder", name)(space=observation)), (torch.stack(rows),)
            except SettingError:
                continue
    raise AssertionError(f"{kind} {name} serves none of the spaces")


PARTS = [(kind, e.name) for kind in ("embedder", "middleware", "head") for e in entries(kind)]


def traced(module: nn.Module, inputs: Any) -> Any:
    return torch.jit.trace(module, inputs, check_trace=False)(*inputs)


def traced_without_gradients(module: nn.Module, inputs: Any) -> Any:
    with torch.no_grad():
        return traced(module, inputs)


def exported(module: nn.Module, inputs: Any) -> Any:
    return torch.export.export(module, inputs).module()(*inputs)


def compiled(module: nn.Module, inputs: Any) -> Any:
    return torch.compile(module, backend="aot_eager")(*inputs)


def compiled_while_acting(module: nn.Module, inputs: Any) -> Any:
    with torch.inference_mode():
        return torch.compile(module, backend="eager")(*inputs)


def made_a_graph(module: nn.Module, inputs: Any) -> Any:
    return make_fx(lambda *given: module(*given))(*inputs)(*inputs)


def counted(module: nn.Module, inputs: Any) -> Any:
    with FlopCounterMode(display=False):
        return module(*inputs)


def called_with_its_parameters(module: nn.Module, inputs: Any) -> Any:
    return torch.func.functional_call(module, dict(module.named_parameters()), inputs)


def copied(module: nn.Module, inputs: Any) -> Any:
    return copy.deepcopy(module)(*inputs)


def acting(module: nn.Module, inputs: Any) -> Any:
    with torch.inference_mode():
        return [tensor.clone() for tensor in module(*inputs)]


WAYS: list[Callable[[nn.Module, Any], Any]] = [
    traced,
    traced_without_gradients,
    exported,
    compiled,
    made_a_graph,
    counted,
    called_with_its_parameters,
    copied,
    acting,
]


def close(mine: Any, wanted: Any, tolerance: float = 1e-4) -> None:
    assert len(mine) == len(wanted)
    for one, other in zip(mine, wanted):
        one, other = one.detach(), other.detach()
        torch.testing.assert_close(
            one, other, rtol=tolerance, atol=tolerance, check_dtype=tolerance < 1e-2
        )


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_parts_are_the_same_whoever_runs_them(kind: str, name: str) -> None:
    module, inputs = case(kind, name)
    wanted = module(*inputs)
    for way in WAYS:
        close(way(module, inputs), wanted)


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_parts_run_in_half_precision_and_without_memory(kind: str, name: str) -> None:
    module, inputs = case(kind, name)
    wanted = module(*inputs)
    for grad in (True, False):
        with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(grad):
            close(module(*inputs), wanted, tolerance=0.1)
    nowhere = copy.deepcopy(module).to("meta")
    if nowhere.action is not None:
        nowhere.action = nowhere.action.to("meta")
    shapes = [
        tensor.shape for tensor in nowhere(*tree_map_only(Tensor, lambda t: t.to("meta"), inputs))
    ]
    assert shapes == [tensor.shape for tensor in wanted]


@pytest.mark.parametrize(("kind", "name"), [part for part in PARTS if part[0] != "embedder"])
def test_parts_run_in_double_precision(kind: str, name: str) -> None:
    module, inputs = case(kind, name)
    wanted = module(*inputs)
    module = module.double()
    if module.action is not None:
        module.action = module.action.double()
    wide = tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, inputs)
    made = module(*wide)
    assert any(tensor.dtype == torch.float64 for tensor in made)
    close([tensor.to(w.dtype) for tensor, w in zip(made, wanted)], wanted)


@pytest.mark.parametrize("layer", [Linear(3, 4), Dense(3, [4], "tanh"), EnsembleLinear(2, 3, 4)])
def test_mixed_precisions_are_refused_as_torch_does(layer: nn.Module) -> None:
    rows = torch.zeros(2, 5, 3) if isinstance(layer, EnsembleLinear) else torch.zeros(5, 3)
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(RuntimeError, match="dtype"):
            copy.deepcopy(layer).double()(rows)


class Observing(nn.Module):
    """A network's values as a tensor."""

    def __init__(self) -> None:
        super().__init__()
        spec = Spec(spaces.Box(-1, 1, (4,)), spaces.Discrete(3))
        self.network = Network(spec, {"q": "dueling_q"}, middleware="mlp")

    def forward(self, obs: Tensor) -> Tensor:
        values: Tensor = self.network(obs).q.mean
        return values


@pytest.mark.parametrize(
    "way", [traced, exported, compiled_while_acting, made_a_graph, called_with_its_parameters]
)
def test_networks_that_act_from_recordings_leave_them_out_of_graphs(way: Any) -> None:
    torch.manual_seed(1)
    module, obs = Observing(), torch.randn(3, 4)
    wanted = module(obs)
    with torch.inference_mode():
        for _ in range(6):  # from now on it is a recording that runs
            module(obs)
        made = way(module, (obs,))
        close([made], [wanted])
        other = torch.randn(3, 4)
        with torch.autocast("cpu", torch.bfloat16):
            assert module(other).dtype == torch.bfloat16
        batched = torch.func.vmap(lambda row: module(row.unsqueeze(0)).squeeze(0))(other)
        close([batched], [module(other)])


def test_a_graph_serves_other_numbers_of_rows() -> None:
    module = Observing()
    rows = torch.export.Dim("rows")
    program = torch.export.export(module, (torch.randn(4, 4),), dynamic_shapes=({0: rows},))
    with torch.no_grad():
        by_trace = torch.jit.trace(module, torch.randn(1, 4), check_trace=False)
    for count in (2, 9):
        obs = torch.randn(count, 4)
        close([program.module()(obs), by_trace(obs)], [module(obs)] * 2)
