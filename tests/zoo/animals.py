"""Environments that return what they should not, or what only looks as if; one row of a table each.

A row says what an animal returns in place of what its space asks for, and what is to become of it:
``says`` are parts of the one message that ends the run, ``warns`` of what is said while it goes on,
``seen`` is what agents get to see. Animals without ``says`` must work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

F, U8 = np.float32, np.uint8
NAN, INF = float("nan"), float("inf")
LENGTH = 9  # steps of an episode

VECTOR = spaces.Box(-1, 1, (3,), F)
PAIR = spaces.Box(-1, 1, (2,), F)
OPEN = spaces.Box(-np.inf, np.inf, (3,), F)
WIDE = spaces.Box(-1e9, 1e9, (3,), np.float64)
NUMBER = spaces.Box(-1, 1, (), F)
BYTES = spaces.Box(0, 255, (4,), U8)
PICTURE = spaces.Box(0, 255, (2, 3, 3), U8)
GRID = spaces.Box(0, 1, (2, 2), bool)
COUNTS = spaces.Box(0, 1_000, (3,), np.int32)
FOUR = spaces.Discrete(4)
LATE = spaces.Discrete(3, start=5)
DICE = spaces.MultiDiscrete([6, 2])
FLAGS = spaces.MultiBinary(3)
ROBOT = spaces.Dict(
    arm=spaces.Box(-2, 2, (2,), F), gear=spaces.Discrete(5), eye=spaces.Box(0, 255, (2, 2), U8)
)
NESTED = spaces.Dict(map=spaces.Dict(wind=PAIR, door=spaces.Discrete(2)), time=NUMBER)

ARM: dict[str, Any] = {
    "arm": np.zeros(2, F),
    "gear": 3,
    "eye": np.ones((2, 2), U8),
}
INNER: dict[str, Any] = {"wind": np.zeros(2, F), "door": 1}


USUAL = object()  # what a healthy environment returns


@dataclass(frozen=True)
class At:
    """A value that is returned in one step only; 0 is the reset."""

    step: int
    value: Any


def three(first: Any, dtype: Any = F) -> Any:
    return np.array([first, 0.25, -0.5], dtype)


@dataclass(frozen=True)
class Animal:
    name: str
    space: Any = field(default_factory=lambda: VECTOR)
    obs: Any = USUAL
    reward: Any = USUAL
    terminated: Any = USUAL
    truncated: Any = USUAL
    info: Any = USUAL
    reset: Callable[[Any, Any], Any] | None = None
    step: Callable[..., Any] | None = None
    says: tuple[str, ...] = ()
    warns: str = ""
    seen: Any = None


TABLE = [
    # --- rewards that are no finite number
    Animal("nan reward", reward=At(4, NAN), says=("step 4", "reward is nan", "drop_episode")),
    Animal("inf reward", reward=At(2, INF), says=("step 2", "reward is inf", "not finite")),
    Animal("minus inf reward", reward=At(9, -INF), says=("step 9", "reward is -inf")),
    Animal("numpy nan reward", reward=At(3, np.float32("nan")), says=("step 3", "reward is nan")),
    Animal("huge reward", reward=At(5, 1e300), says=("reward is 1e+300", "too large for float32")),
    Animal("huge int reward", reward=At(5, -(10**60)), says=("step 5", "too large", "reward")),
    Animal("None as reward", reward=None, says=("step 1", "reward is None", "not a number")),
    Animal("text as reward", reward="2.25", says=("reward is '2.25'", "not a number")),
    Animal("complex reward", reward=1 + 2j, says=("reward is (1+2j)", "not a number")),
    Animal("rewards of two players", reward=np.array([0.5, 1]), says=("reward", "2 numbers")),
    Animal("no reward at all", reward=np.array([]), says=("reward", "0 numbers")),
    # --- rewards that lose nothing
    Animal("reward of size 1", reward=np.array([0.5])),
    Animal("reward of no dimensions", reward=np.array(2)),
    Animal("reward in a list", reward=[0.5]),
    Animal("int reward", reward=np.int64(-3)),
    Animal("bool reward", reward=True),
    Animal("tensor as reward", reward=torch.tensor(0.5, requires_grad=True)),
    # --- observations that are not finite
    Animal("nan", obs=At(6, three(NAN)), says=("step 6", "observation is nan at index [0]")),
    Animal("inf", OPEN, At(3, three(-INF)), says=("step 3", "-inf at index [0]", "Box(-inf")),
    Animal("nan at reset", obs=At(0, three(NAN)), says=("reset()", "step 0", "nan")),
    Animal("too large", WIDE, At(2, three(1e200, float)), says=("1e+200", "too large for float32")),
    Animal("nan in a key", ROBOT, At(4, ARM | {"arm": np.array([1, NAN], F)}),
           says=("step 4", "observation['arm'] is nan at index [1]")),
    Animal("nan deep down", NESTED, At(2, {"map": INNER, "time": np.float32("nan")}),
           says=("step 2", "observation['time'] is nan")),
    Animal("nan as a number", NUMBER, At(8, NAN), says=("step 8", "observation is nan")),
    # --- shapes
    Animal("short", obs=np.array([0.5], F), says=("reset()", "(1,) instead of (3,)", "Box(-1.0")),
    Animal("scalar for a vector", obs=0.5, says=("() instead of (3,)",)),
    Animal("column", obs=np.zeros((3, 1), F), says=("(3, 1) instead of (3,)",)),
    Animal("long", obs=np.zeros(5, F), says=("(5,) instead of (3,)",)),
    Animal("short later", obs=At(7, np.zeros(1, F)), says=("step 7", "(1,) instead of (3,)")),
    Animal("turned picture", PICTURE, np.zeros((3, 3, 2), U8), says=("(3, 3, 2) instead of",)),
    Animal("ragged", obs=[[1.0], [0.5, 0.5]], says=("observation is", "not made of numbers")),
    Animal("None", obs=At(3, None), says=("step 3", "None", "not made of numbers")),
    Animal("dict for a vector", obs={"x": 1.0}, says=("not made of numbers", "Box(-1.0")),
    # --- types
    Animal("floats in bytes", BYTES, np.full(4, 0.75), says=("0.75", "not whole", "uint8")),
    Animal("floats in bytes later", BYTES, At(5, np.array([0, 0, 0.5, 1])), says=("step 5", "0.5")),
    Animal("300 in bytes", BYTES, np.array([0, 300, 1, 2]), says=("300", "0 to 255")),
    Animal("minus in bytes", BYTES, np.array([0, -7, 1, 2]), says=("-7", "0 to 255")),
    Animal("nan in ints", COUNTS, np.array([NAN, 1, 2]), says=("nan", "int32")),
    Animal("half counts", COUNTS, np.array([0.5, 1, 2]), says=("0.5", "not whole")),
    Animal("large counts", COUNTS, np.array([2**40, 1, 2]), says=(str(2**40), "int32 holds")),
    Animal("two in bools", GRID, np.array([[0, 1], [2, 0]]), says=("out of range: 2", "bool")),
    Animal("text", obs=np.array(["1", "2", "3"]), says=("not made of numbers",)),
    Animal("complex", obs=np.zeros(3, np.complex64), says=("not made of numbers",)),
    Animal("objects", obs=np.array([None, 1, 2], object), says=("not made of numbers",)),
    # --- values outside of finite sets
    Animal("beyond the choices", FOUR, 4, says=("observation is 4", "0 to 3", "Discrete(4)")),
    Animal("before the start", LATE, At(3, 4), says=("step 3", "observation is 4", "5 to 7")),
    Animal("half a choice", FOUR, 1.5, says=("1.5", "not a whole number")),
    Animal("nan as choice", FOUR, At(2, NAN), says=("step 2", "nan", "not a whole number")),
    Animal("seven on a die", DICE, At(4, np.array([6, 1])), says=("step 4", "outside", "Multi")),
    Animal("two flags in one", FLAGS, At(4, np.array([0, 2, 0], np.int8)), says=("step 4",)),
    # --- keys
    Animal("missing key", ROBOT, {"arm": np.zeros(2, F), "gear": 1}, says=("'eye'", "without")),
    Animal("missing later", ROBOT, At(5, {"arm": np.zeros(2, F), "eye": ARM["eye"]}),
           says=("step 5", "without the key 'gear'")),
    Animal("extra key", ROBOT, ARM | {"nose": 1}, says=("'nose'", "does not have")),
    Animal("array for a dict", ROBOT, np.zeros(3, F), says=("not a dict",)),
    Animal("misfit in a key", ROBOT, ARM | {"gear": 9}, says=("observation['gear'] is 9",)),
    Animal("misfit deep down", NESTED, {"map": INNER | {"wind": np.zeros(1, F)}, "time": 0.0},
           says=("observation['map']['wind']", "(1,) instead of (2,)")),
    # --- flags and forms
    Animal("terminated is None", terminated=At(3, None), says=("step 3", "terminated is None")),
    Animal("truncated is text", truncated="no", says=("truncated is 'no'", "True nor False")),
    Animal("two flags", terminated=np.array([True, False]), says=("terminated", "True nor False")),
    Animal("half true", terminated=0.5, says=("terminated is 0.5",)),
    Animal("flag of size 1", terminated=np.array([False]), truncated=np.bool_(False)),
    Animal("flag as int", terminated=0, truncated=0.0),
    Animal("old step", step=lambda o, r, d, t, i: (o, r, d or t, i), says=("4 values", "five")),
    Animal("six values", step=lambda *five: (*five, 0), says=("6 values", "five")),
    Animal("step of nothing", step=lambda *five: None, says=("None", "five values")),
    Animal("list of five", step=lambda *five: list(five)),
    Animal("old reset", reset=lambda o, i: o, says=("reset()", "not a pair", "(observation, info)")),
    Animal("old reset of two", PAIR, np.array([0.25, -0.75], F), reset=lambda o, i: o,
           says=("reset()", "not a pair")),
    Animal("old reset, a tuple of two", PAIR, (0.25, -0.75), reset=lambda o, i: o,
           says=("info", "-0.75", "not a dict")),
    Animal("info is None", info=At(2, None)),
    # --- what loses nothing
    Animal("list", obs=[0.5, 0.25, -0.5], seen=[0.5, 0.25, -0.5]),
    Animal("tuple of ints", obs=(1, 0, -1), seen=[1, 0, -1]),
    Animal("float64", obs=three(0.5, float), seen=[0.5, 0.25, -0.5]),
    Animal("float16", obs=three(0.5, np.float16), seen=[0.5, 0.25, -0.5]),
    Animal("tensor", obs=torch.tensor([0.5, 0, 1]), seen=[0.5, 0, 1]),
    Animal("tensor with gradient", obs=torch.ones(3, requires_grad=True) * 1, seen=[1, 1, 1]),
    Animal("view", obs=np.arange(6, dtype=F)[::2] / 4, seen=[0, 0.5, 1]),
    Animal("other byte order", obs=three(0.5, ">f4"), seen=[0.5, 0.25, -0.5]),
    Animal("float for a number", NUMBER, 0.5, seen=0.5),
    Animal("array of one for a number", NUMBER, np.array([0.5]), seen=0.5),
    Animal("number for an array of one", spaces.Box(-1, 1, (1,), F), 0.5, seen=[0.5]),
    Animal("whole floats in bytes", BYTES, np.array([0.0, 255, 3, 4]), seen=[0, 255, 3, 4]),
    Animal("ints in bytes", BYTES, [1, 2, 3, 255], seen=[1, 2, 3, 255]),
    Animal("0 and 1 for bools", GRID, np.array([[0, 1], [1, 0]]), seen=[[0, 1], [1, 0]]),
    Animal("numpy int for a choice", FOUR, np.int32(3), seen=3),
    Animal("array of one for a choice", FOUR, np.array([3]), seen=3),
    Animal("list for a die", DICE, [5, 1], seen=[5, 1]),
    Animal("outside its bounds", obs=three(7.5), seen=[7.5, 0.25, -0.5],
           warns="observation is 7.5 at index [0], outside the bounds -1.0 to 1.0"),
    Animal("late outsider", obs=At(LENGTH, three(4.0))),
    Animal("never near zero", spaces.Box(5, 7, (2,), F)),
    Animal("counts out of bounds", COUNTS, np.array([5, 2_000, 0]), seen=[5, 2_000, 0],
           warns="observation is 2000 at index [1], outside the bounds 0 to 1000"),
]  # fmt: skip
BY_NAME = {animal.name: animal for animal in TABLE}
HOME = Path(__file__)


class Creature(gym.Env[Any, Any]):
    """An animal of the table.

    Args:
        name: of the animal.
        healthy: leave it well, for comparison.
    """

    def __init__(self, name: str, healthy: bool = False) -> None:
        self.animal = Animal("healthy", BY_NAME[name].space) if healthy else BY_NAME[name]
        self.observation_space = self.animal.space
        self.action_space = spaces.Discrete(2)
        self.observation_space.seed(1)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        form = self.animal.reset or (lambda obs, info: (obs, info))
        return form(self._observe(), {})

    def step(self, action: Any) -> Any:
        animal = self.animal
        self.t += 1
        form = animal.step or (lambda *five: five)
        return form(
            self._observe(),
            self._now(animal.reward, 1.0),
            self._now(animal.terminated, self.t >= LENGTH),
            self._now(animal.truncated, self.t >= LENGTH),
            self._now(animal.info, {}),
        )

    def _observe(self) -> Any:
        return self._now(self.animal.obs, self.observation_space.sample())

    def _now(self, value: Any, usual: Any) -> Any:
        if isinstance(value, At):
            value = value.value if value.step == self.t else USUAL
        return usual if value is USUAL else value


class Seedless(Creature):
    """Its reset takes no seed."""

    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()
