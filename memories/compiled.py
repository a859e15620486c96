"""Loops of prioritized replay, compiled by Numba: used where it is installed.

They calculate as the vectorised forms in `SumTree` and stripes.py do, so results agree to the last
bit. Compiling takes some seconds, once per machine.

Those of the tree go through it level by level for all rows at once: what they wait for is memory,
and the reads of different rows do not wait for each other. A tree comes as one array ``nodes``
with the places where its levels start, leaves first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

#: That of `SumTree`; as a constant, so that loops over children are unrolled.
FANOUT = 16


@njit(cache=True, nogil=True)
def put(nodes: NDArray[Any], starts: NDArray[Any], index: NDArray[Any], mass: NDArray[Any]) -> None:
    """Set the leaves ``index`` to ``mass``, and all sums above them."""
    for number in range(len(index)):
        nodes[index[number]] = mass[number]
    node = index // FANOUT
    for depth in range(1, len(starts)):
        children, sums = nodes[starts[depth - 1] :], nodes[starts[depth] :]
        for number in range(len(node)):
            here = node[number]
            total = 0.0
            for child in range(FANOUT):
                total += children[here * FANOUT + child]
            sums[here] = total
            node[number] = here // FANOUT


@njit(cache=True, nogil=True)
def find(
    nodes: NDArray[Any],
    starts: NDArray[Any],
    mass: NDArray[Any],
    just_below_1: float,
    found: NDArray[Any],
) -> None:
    """The leaf that each number of ``mass`` falls into, written to ``found``; uses up ``mass``.

    Children are counted rather than walked along: where the walk would end cannot be foreseen, and
    a processor that guesses wrong throws away what it had begun of the rows that follow.
    """
    found[:] = 0
    sums = np.zeros(FANOUT + 1)  # of a node's first 0, 1, ... children
    for depth in range(len(starts) - 1, -1, -1):
        level = nodes[starts[depth] :]
        for number in range(len(mass)):
            first = found[number] * FANOUT
            whole = 0.0
            for child in range(FANOUT):
                whole += level[first + child]
                sums[child + 1] = whole
            left = min(mass[number], whole * just_below_1)
            passed = 0
            for child in range(1, FANOUT):
                passed += sums[child] <= left
            mass[number] = left - sums[passed]
            found[number] = first + passed


@njit(cache=True, nogil=True)
def stratified(
    nodes: NDArray[Any],
    starts: NDArray[Any],
    uniform: NDArray[Any],
    just_below_1: float,
    found: NDArray[Any],
    mass: NDArray[Any],
) -> float:
    """A leaf out of each of ``len(uniform)`` equal shares of the total, which is returned.

    Leaves are written to ``found``, their masses to ``mass``.
    """
    total = 0.0
    for top in nodes[starts[-1] :]:
        total += top
    share = total / len(uniform)
    for number in range(len(uniform)):
        mass[number] = (number + uniform[number]) * share
    find(nodes, starts, mass, just_below_1, found)
    for number in range(len(uniform)):
        mass[number] = nodes[found[number]]
    return total


@njit(cache=True, nogil=True)
def look_up(
    outcomes: NDArray[Any], index: NDArray[Any], rows: int, gamma: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """What single steps came to; see `coach.memories.stripes.look_up`."""
    reward, discount = np.empty(len(index), np.float32), np.empty(len(index), np.float32)
    behind, ended = np.empty(len(index), np.int64), np.empty(len(index), np.bool_)
    for number in range(len(index)):
        at = index[number]
        reward[number] = outcomes[at, 0]
        discount[number] = np.float32(gamma) * (np.float32(1) - outcomes[at, 1])
        ended[number] = outcomes[at, 2] > 0
        behind[number] = at + 1 if (at + 1) % rows else at + 1 - rows
    return reward, discount, behind, ended
