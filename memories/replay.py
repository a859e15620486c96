"""Experience replay: storage x sampler x n-step returns."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from coach.core.batch import Batch
from coach.core.errors import ResourceError, SettingError
from coach.core.layout import on_disk, transition_bytes, untouched_zeros
from coach.core.memory import Prepare, never
from coach.core.registry import register
from coach.core.schema import Count, CountOrZero, Fraction, Positive
from coach.core.spec import Spec
from coach.core.state import prefixed, under
from coach.memories import journal
from coach.memories.episode_returns import EpisodeReturns
from coach.memories.first_errors import first_errors
from coach.memories.owing import Owing
from coach.memories.sampler import Sampler
from coach.memories.samplers.uniform import Uniform
from coach.memories.staging import Staging
from coach.memories.stripes import Stripes
from torch import Tensor

#: Minibatches of small transitions are drawn together, as many as make up so much.
_AT_ONCE_BYTES = 2**20
_MOST_STEPS = 16  # steps of a fragment, unless a preset says so


@register("memory", "replay")
class Replay(Owing):
    """Keeps the last transitions and owes a fixed number of updates per environment step.

    Args:
        capacity: transitions kept, over all environments.
        batch_size: transitions per minibatch.
        warmup: environment steps before the first update.
        updates_per_step: updates owed per environment step after the warm-up; 0.25 is one update
            in four steps.
        n_step: rewards summed before bootstrapping (Sutton and Barto, 2018, eq. 7.1).
        discount: gamma, per environment step.
        sampler: what minibatches are made of: uniform, prioritized, rank, balanced or episodic.
        disk: folder of a fast disk to keep observations in, where they are too many for RAM; a
            checkpoint does not depend on it.

    Agents may ask for the return to the episode's end besides: batches then have the extras
    ``return``, ``return_discount`` and ``return_obs``, the observation it goes on from. Or for an
    entry ``future_key`` of later observations, ``future_offsets`` steps ahead: these come as
    ``future``, ``future_known`` and ``future_over``, see `Stripes.future`. What else they note of a
    fragment and name in ``kept_extras`` comes back in the extras of its steps.
    """

    def __init__(
        self,
        spec: Spec,
        num_envs: int,
        seed: int = 0,
        capacity: Count = 100_000,
        batch_size: Count = 64,
        warmup: CountOrZero = 1_000,
        updates_per_step: Positive = 0.25,
        n_step: Count = 1,
        discount: Fraction = 0.99,
        sampler: Sampler | None = None,
        disk: Path | None = None,
        episode_returns: bool = False,
        kept_extras: tuple[str, ...] = (),
        future_offsets: tuple[int, ...] = (),
        future_key: str = "",
    ) -> None:
        if capacity < num_envs:
            raise SettingError(
                "capacity", f"{capacity} is less than one transition per environment"
            )
        zeros = untouched_zeros if disk is None else on_disk(disk)
        self._stripes = stripes = Stripes(spec, num_envs, capacity, zeros, kept_extras)
        self._staging = Staging(stripes.held, num_envs * 2 * transition_bytes(spec))
        self.sampler = sampler or Uniform()
        self.wants_priorities = self.sampler.learns
        self.nbytes = stripes.nbytes + self.sampler.attach(stripes)
        if disk is not None:
            self.nbytes -= stripes.observation_bytes
            _check_disk(disk, stripes.observation_bytes)
        self.batch_size, self.warmup, self.n_step = batch_size, warmup, n_step
        self.episode_returns, self.kept_extras = episode_returns, kept_extras
        self.returns = EpisodeReturns(stripes, discount) if episode_returns else None
        self.future_offsets, self.future_key = future_offsets, future_key
        self._most_at_once = max(1, _AT_ONCE_BYTES // (batch_size * 2 * transition_bytes(spec)))
        self.updates_per_step, self.discount = updates_per_step, discount
        self.rng = torch.Generator().manual_seed(seed)
        self.fragment_length = _steps_between(updates_per_step, num_envs, warmup)
        self._last: Tensor | None = None

    def check_settings(self, say: Callable[[str], None]) -> None:
        held, envs = self._stripes.held, self._stripes.num_envs
        if held * envs < self.batch_size:
            raise SettingError(
                "capacity",
                f"{held * envs} transitions are fewer than a minibatch of {self.batch_size}",
                f"Make it at least {-(-self.batch_size // envs) * envs}, or lower batch_size.",
            )
        if held <= self.n_step:
            raise SettingError(
                "n_step",
                f"{held} transitions per environment hold no return of {self.n_step} steps and "
                "the observation behind it",
                f"Make capacity at least {(self.n_step + 1) * envs}, or lower n_step.",
            )
        super().check_settings(say)

    @property
    def stripes(self) -> Stripes:
        """Where the transitions are, those that have just been written included."""
        self._settle()
        return self._stripes

    def write(self, fragment: Batch) -> None:
        if self._staging.full:
            self._settle()
        taken = self._staging.add(fragment)
        if not taken:
            self._settle()
            self._put(fragment)
            taken = fragment.steps
        self.env_steps += taken

    def batches(self, prepare: Prepare, more: Callable[[], bool] = never) -> Iterator[Batch]:
        # Where there is nothing to draw, what is owed is made up for later.
        while (owed := self.due() - self.updates) > 0 and self.sampler.ready(self.stripes):
            at_once = 1 if self.sampler.learns else min(owed, self._most_at_once)
            for batch in self._draw(at_once).split(self.batch_size):
                self.updates += 1
                yield prepare(batch)
        while self.env_steps > self.warmup and self.sampler.ready(self.stripes) and more():
            yield prepare(self._draw())

    def feedback(self, batch: Batch, priority: Tensor | None) -> None:
        index = batch.place_in_memory
        if priority is not None and index is not None:
            self.sampler.feedback(index, priority.cpu())

    def monitor(self) -> dict[str, float]:
        held = len(self.stripes)
        scalars = {"fill": held / (self.stripes.held * self.stripes.num_envs)}
        if self._last is not None:
            scalars["age"] = self.stripes.age(self._last)
        return scalars | self.sampler.monitor(self.env_steps)

    def state_dict(self) -> dict[str, Any]:
        return {
            **self.counted(),
            "rng": self.rng.get_state(),
            **prefixed("stripes.", journal.state_dict(self.stripes)),
            **prefixed("sampler.", self.sampler.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count_on(state)
        self.rng.set_state(state["rng"])
        journal.load_state_dict(self.stripes, under("stripes.", state))
        self.sampler.load_state_dict(under("sampler.", state))

    def pending_bytes(self, saved: list[int]) -> int:
        new = int(self.stripes.written.sum()) - sum(saved)
        return new * self.stripes.saved_bytes

    def rows(self, saved: list[int]) -> tuple[dict[str, Tensor], list[int]]:
        return journal.rows_since(self.stripes, saved)

    def load_rows(self, rows: dict[str, Tensor]) -> None:
        journal.load_rows(self.stripes, rows)

    def forget(self, before: list[int]) -> None:
        nothing = torch.zeros(0, dtype=torch.int64)
        self.sampler.added(nothing, self.stripes.forget(before))

    def _settle(self) -> None:
        """Bring single steps that wait to where they belong."""
        if self._staging.count:
            self._put(self._staging.take())

    def _put(self, fragment: Batch) -> None:
        added, dropped = self._stripes.write(fragment)
        self.sampler.added(added, dropped, first_errors(fragment, self.discount, self.n_step))

    def _draw(self, minibatches: int = 1) -> Batch:
        """So many minibatches in a row; they come as they would one by one."""
        count = minibatches * self.batch_size
        index, weight = self.sampler.draw(self.stripes, count, self.env_steps, self.rng)
        batch = self.stripes.gather(index, self.discount, self.n_step)
        if self.returns is not None:
            batch.extras |= self.returns.of(index)
        if self.future_offsets:
            batch.extras |= self.stripes.future(index, self.future_key, self.future_offsets)
        batch.weight = weight
        self._last = index
        return batch


def _steps_between(updates_per_step: float, num_envs: int, warmup: int) -> int:
    """Steps of each environment, at most 16, that have no update in between: all at once cost less.

    Updates come after the same steps as they would if the memory was looked at after every one.
    """
    between = round(1 / updates_per_step, 6)  # steps of the run from one update to the next
    return next(
        length
        for length in range(_MOST_STEPS, 0, -1)
        if length == 1 or not (between % (length * num_envs) or warmup % (length * num_envs))
    )


def _check_disk(folder: Path, size: int) -> None:
    """Stop before the run where a folder cannot take so many bytes."""
    if not folder.is_dir():
        raise SettingError("disk", f"{folder} is no folder", "Create it, or name another one.")
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ResourceError(
            f"memory.disk: observations need {size / 2**30:.1f} GiB, but {folder} has "
            f"{free / 2**30:.1f} GiB left.",
            "Lower memory.capacity, or name a folder on another disk.",
        )
