"""Actions in proportion to their exponentiated values."""

from __future__ import annotations

from coach.core.context import Context
from coach.core.exploration import Exploration
from coach.core.registry import register
from coach.functional.schedules import Schedule, as_schedule
from coach.functional.values import Values
from torch import Tensor


@register("exploration", "boltzmann")
class Boltzmann(Exploration):
    """Softmax over values divided by a temperature (Sutton and Barto, 2018, eq. 2.11 form).

    Reads values.

    Args:
        temperature: in units of value; high is random, low is greedy. A number or a schedule.
    """

    consumes = ("values",)

    def __init__(self, temperature: Schedule | float = 1.0) -> None:
        self.temperature = as_schedule(temperature, "temperature", 0)

    def __call__(self, output: Values, ctx: Context) -> Tensor:
        return ctx.categorical(output.mean / max(self.temperature(ctx.step), 1e-8))

    def monitor(self, step: int) -> dict[str, float]:
        return {"temperature": self.temperature(step)}
