"""All parameters of a module in one vector: one optimiser step, one norm, one copy to publish."""

from __future__ import annotations

from collections.abc import Sequence

import torch
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
            total += -(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT
        like = self.parameters[0]
        flat = torch.zeros(total, dtype=like.dtype, device=like.device)
        self.gradient = torch.zeros_like(flat)
        self.gradients = []
        for parameter, offset in zip(self.parameters, offsets):
            view = flat[offset : offset + parameter.numel()].view(parameter.shape)
            view.copy_(parameter.data)
            parameter.data = view
            self.gradients.append(
                self.gradient[offset : offset + parameter.numel()].view(parameter.shape)
            )
        self.vector = nn.Parameter(flat)
        self.vector.grad = self.gradient

    def set_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Copy gradients, in the order of the parameters, into the flat one; ``None`` is zero."""
        if any(gradient is None for gradient in gradients):
            self.gradient.zero_()
            pairs = [(v, g) for v, g in zip(self.gradients, gradients) if g is not None]
            torch._foreach_copy_([view for view, _ in pairs], [grad for _, grad in pairs])
        else:
            torch._foreach_copy_(self.gradients, gradients)

    def clip(self, max_norm: float | None) -> Tensor:
        """Scale the gradient down to ``max_norm``; returns the norm it had."""
        norm = torch.linalg.vector_norm(self.gradient)
        if max_norm is not None:
            self.gradient.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm
