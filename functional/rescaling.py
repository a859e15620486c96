"""A squashing of returns that keeps their order, and its inverse.

Rewards of very different sizes can then be learned by one network without being clipped: large
returns are compressed like a square root, while a small linear part keeps the inverse Lipschitz.
Source: Pohlen et al. (2018), arXiv:1805.11593, section 3.2 and proposition A.2.
"""

from __future__ import annotations

from torch import Tensor


def rescaled(value: Tensor, epsilon: float) -> Tensor:
    """``h(x) = sign(x) * (sqrt(|x| + 1) - 1) + epsilon * x``, elementwise.

    Args:
        value: returns, of any shape.
        epsilon: share of the linear part, at least 0.
    """
    # sqrt(|x| + 1) - 1 without the difference, which would lose digits near 0.
    return value / ((value.abs() + 1).sqrt() + 1) + epsilon * value


def restored(value: Tensor, epsilon: float) -> Tensor:
    """The inverse of `rescaled`, elementwise.

    With ``u = sqrt(|x| + 1)``, ``|h(x)| = (u - 1) * (1 + epsilon * (u + 1))`` is quadratic in
    ``u``. Its root and ``|x| = (u - 1) * (u + 1)`` are written so that no digits cancel, which also
    lets ``epsilon`` be 0.

    Args:
        value: rescaled returns, of any shape.
        epsilon: what they were rescaled with.
    """
    constant = value.abs() + (1 + epsilon)
    root = 2 * constant / (1 + (1 + 4 * epsilon * constant).sqrt())  # u
    return value * (root + 1) / (1 + epsilon * (root + 1))
