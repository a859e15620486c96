"""Finds parameters that an objective names and that its gradient never reaches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from coach.core.agent import Agent, Objective
from torch import Tensor, nn

#: Gradients of an objective that are looked at before a parameter counts as never reached.
LOOKS = 3
#: Updates before it does so where different gradients reach different parameters, as those of an
#: objective do that trains one of several parts at a time.
LOOKS_IF_VARYING = 100
_MOST_NAMES = 8


@dataclass
class _Seen:
    """What the gradients of one objective had in common so far."""

    first: frozenset[int]
    never: frozenset[int]
    looks: int = 0
    varied: bool = False


class Reach:
    """Looks at an objective's gradients until every parameter was reached, or one is reported.

    A report comes once per objective. Frozen parameters have no gradient and are none of it.

    Args:
        agent: whose objectives they are.
        say: what is done with a report; left out, it is a warning of Python's.
    """

    def __init__(self, agent: Agent, say: Callable[[str], None] | None = None) -> None:
        self._agent, self._say = agent, say or _warn
        self._seen: dict[str, _Seen] = {}
        self._done: set[str] = set()

    def look(
        self,
        goal: Objective,
        parameters: Sequence[nn.Parameter],
        gradients: Sequence[Tensor | None],
        updates: int,
    ) -> None:
        """Look at the gradients of one update; ``None`` is one that did not reach its parameter.

        Args:
            goal: the objective.
            parameters: that it trains.
            gradients: of the parameters.
            updates: that came before.
        """
        if goal.name in self._done:
            return
        missed = frozenset(n for n, gradient in enumerate(gradients) if gradient is None)
        seen = self._seen.setdefault(goal.name, _Seen(missed, missed))
        seen.never &= missed
        seen.looks += 1
        seen.varied |= missed != seen.first
        if not seen.never:
            self._done.add(goal.name)
        elif seen.looks >= LOOKS and (updates >= LOOKS_IF_VARYING or not seen.varied):
            self._done.add(goal.name)
            self._say(self._report(goal, {id(parameters[n]) for n in seen.never}, updates + 1))

    def _report(self, goal: Objective, never: set[int], updates: int) -> str:
        named = " and ".join(f"'{name}'" for name in goal.minimises)
        names = list(dict.fromkeys(_names(self._agent, never)))
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        return (
            f"Objective '{goal.name}' minimises {named}, but in {updates} updates its gradient "
            f"did not reach {', '.join(names[:_MOST_NAMES])}{more}. They do not learn. "
            "Read them in the objective, or remove them (a head, under heads in the preset). "
            "Call requires_grad_(False) on what is to stay as it is."
        )


def _names(module: nn.Module, never: set[int], path: str = "") -> Iterator[str]:
    """Of parameters, or of modules where it is all of their parameters that can learn."""
    for name, parameter in module.named_parameters(recurse=False):
        if id(parameter) in never:
            yield f"{path}{name}"
    items = getattr(module, "items", None)  # of modules that give their parts names
    for name, part in items() if callable(items) else module.named_children():
        learns = [id(p) for p in part.parameters() if p.requires_grad]
        if learns and never.issuperset(learns):
            yield f"{path}{name}"
        elif not never.isdisjoint(learns):
            yield from _names(part, never, f"{path}{name}.")


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)
