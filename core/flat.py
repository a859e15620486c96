"""All parameters of a module in one vector: one optimiser step, one norm, one copy to publish."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from coach.core.errors import SettingError, nearest
from torch import Tensor, nn

_ALIGNMENT = 16  # float32 numbers per 64 bytes, what vectorised kernels like to start at


class FlatParameters:
    """Moves parameters into one vector that they then are views of.

    Gaps that align each parameter are zero in the vector and in the gradient, and stay zero.

    Args:
        parameters: parameters of one dtype and device; each keeps its identity and shape.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        offsets, total = [], 0
        for parameter in self.parameters:
            offsets.append(total)
            total += _aligned(parameter.numel())
        like = self.parameters[0]
        flat = torch.zeros(total, dtype=like.dtype, device=like.device)
        self.gradient = torch.zeros_like(flat)
        self.gradients: list[Tensor] = []
        for parameter, offset in zip(self.parameters, offsets):
            span = slice(offset, offset + parameter.numel())
            view = _shaped(flat[span], parameter)
            view.copy_(parameter.data)
            self.gradients.append(_shaped(self.gradient[span], parameter))
            parameter.data = view
        self.vector = nn.Parameter(flat)
        self.vector.grad = self.gradient

    def set_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Copy gradients, in the order of the parameters, into the flat one; ``None`` is zero."""
        given = [gradient for gradient in gradients if gradient is not None]
        views = self.gradients
        if len(given) < len(views):
            self.gradient.zero_()
            views = [view for view, g in zip(views, gradients) if g is not None]
        if given:
            torch._foreach_copy_(views, given)

    def square(self) -> Tensor:
        """The square of the gradient's norm."""
        return torch.dot(self.gradient, self.gradient)

    def require_finite(self) -> None:
        """Stop unless the gradient is finite; it is fetched, so this is for CPUs.

        Raises:
            FloatingPointError: it is not.
        """
        if not math.isfinite(float(self.square())):
            self._large_square()

    def clip(self, max_norm: float | None) -> Tensor | None:
        """Scale the gradient down to ``max_norm``; returns the square of the norm it had.

        Without a limit there is nothing to do, and nothing to return.

        Raises:
            FloatingPointError: on a CPU, the gradient is not finite.
        """
        if max_norm is None:
            return None
        square = self.square()
        if square.is_cpu:  # there it costs less to look than to multiply by 1
            norm = math.sqrt(float(square))
            if not norm < math.inf:
                square, norm = self._large_square()
            if norm > max_norm:
                self.gradient.mul_(max_norm / (norm + 1e-6))
        else:
            self.gradient.mul_((max_norm / (square.sqrt() + 1e-6)).clamp(max=1.0))
        return square

    def _large_square(self) -> tuple[Tensor, float]:
        """Square and norm of a gradient whose square is too large for its type.

        Raises:
            FloatingPointError: the gradient is not finite.
        """
        norm = float(torch.linalg.vector_norm(self.gradient, dtype=torch.float64))
        if not math.isfinite(norm):
            raise FloatingPointError
        return torch.tensor(norm * norm, dtype=torch.float64), norm


def flat_groups(agent: nn.Module, names: list[str]) -> dict[str, FlatParameters]:
    """A flat group for each of the agent's attributes that have something to train.

    Raises:
        SettingError: a name is no module or parameter of the agent, or two of them share some.
    """
    groups: dict[str, FlatParameters] = {}
    owner: dict[int, str] = {}
    for name in names:
        target = getattr(agent, name, None)
        if isinstance(target, nn.Parameter):
            parameters = [target] if target.requires_grad else []
        elif isinstance(target, nn.Module):
            parameters = [p for p in target.parameters() if p.requires_grad]
        else:
            raise SettingError(
                "agent",
                f"an objective of {type(agent).__name__} minimises '{name}', which is neither a "
                "module nor a parameter of the agent",
                nearest(name, [n for n, _ in agent.named_children()]),
            )
        for parameter in parameters:
            if id(parameter) in owner:
                raise SettingError(
                    "agent",
                    f"'{owner[id(parameter)]}' and '{name}' share parameters, so two optimisers "
                    "would pull at them",
                    "Let one objective minimise the module that holds both.",
                )
            owner[id(parameter)] = name
        types = sorted({str(parameter.dtype) for parameter in parameters})
        if len(types) > 1:
            raise SettingError(
                "agent",
                f"the parameters of '{name}' are of types {' and '.join(types)}, and one optimiser "
                "steps them as one vector",
                "Give them one type, or train them under names of their own.",
            )
        if parameters:  # what is frozen, such as a fixed temperature, needs no optimiser
            groups[name] = FlatParameters(parameters)
    return groups


def _aligned(count: int) -> int:
    return -(-count // _ALIGNMENT) * _ALIGNMENT


def _shaped(span: Tensor, like: Tensor) -> Tensor:
    # Convolutions keep their memory format, which decides how fast they run.
    if like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last):
        outputs, inputs, height, width = like.shape
        return span.view(outputs, height, width, inputs).permute(0, 3, 1, 2)
    return span.view(like.shape)
