"""Pseudo-random numbers that are functions of a number, so that nothing need be stored."""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 2**31 - 1


def scrambled(number: Tensor) -> Tensor:
    """A number in ``[0, 2**31)`` for each of ``number``; the same for the same.

    Multiplications and shifts mix its bits, in the manner of the finaliser of MurmurHash3.
    """
    mixed = (number * 0x9E3779B1 + 0x7F4A7C15) & _MASK
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) & _MASK
    return mixed ^ (mixed >> 15)


def belongs(rows: Tensor, size: int, share: float, key: Tensor) -> Tensor:
    """``[size, B]`` 1 where a row is a member's own, else 0: as if drawn, but always the same.

    Args:
        rows: ``[B]`` what the rows are known by.
        size: number of members.
        share: probability of a 1.
        key: a number below ``2**31``; with another one, all is drawn anew.
    """
    members = torch.arange(size, device=rows.device)
    number = scrambled(rows[None, :] * size + members[:, None]) ^ key
    return (scrambled(number) < share * 2**31).float()
