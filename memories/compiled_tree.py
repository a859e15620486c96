"""The loops of the sum tree, compiled by Numba: `SumTree` uses them where it is installed.

They add in the same order as the vectorised forms there, so results agree to the last bit. They go
through the tree level by level for all rows at once: what they wait for is memory, and the reads
of different rows do not wait for each other. Compiling takes a second or two, once per machine.
"""

from __future__ import annotations

from typing import Any

from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def put(levels: Any, fanout: int, index: NDArray[Any], mass: NDArray[Any]) -> None:
    """Set the leaves ``index`` to ``mass``, and all sums above them."""
    leaves = levels[0]
    for number in range(len(index)):
        leaves[index[number]] = mass[number]
    node = index // fanout
    for depth in range(1, len(levels)):
        children, sums = levels[depth - 1], levels[depth]
        for number in range(len(node)):
            here = node[number]
            total = 0.0
            for child in range(here * fanout, (here + 1) * fanout):
                total += children[child]
            sums[here] = total
            node[number] = here // fanout


@njit(cache=True, nogil=True)
def find(
    levels: Any, fanout: int, mass: NDArray[Any], just_below_1: float, found: NDArray[Any]
) -> None:
    """The leaf that each number of ``mass`` falls into, written to ``found``; uses up ``mass``."""
    found[:] = 0
    for depth in range(len(levels) - 1, -1, -1):
        children = levels[depth]
        for number in range(len(mass)):
            first = found[number] * fanout
            whole = 0.0
            for child in range(first, first + fanout):
                whole += children[child]
            left = min(mass[number], whole * just_below_1)
            child, before = first, 0.0
            total = children[first]
            while total <= left and child < first + fanout - 1:
                child += 1
                before = total
                total += children[child]
            mass[number] = left - before
            found[number] = child
