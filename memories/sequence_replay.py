"""Experience replay of whole sequences, for agents that remember (R2D2, ICLR 2019)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from coach.core.batch import Batch
from coach.core.errors import SettingError
from coach.core.memory import Prepare, never
from coach.core.registry import register
from coach.core.schema import Count, CountOrZero, Fraction, Positive
from coach.core.spec import Spec
from coach.core.state import prefixed, under
from coach.functional.priorities import sequence_priority
from coach.memories import journal
from coach.memories.owing import Owing
from coach.memories.sampler import Sampler
from coach.memories.samplers.uniform import Uniform
from coach.memories.sequences import Sequences
from coach.memories.stripes import Stripes
from torch import Tensor


@register("memory", "sequence_replay")
class SequenceReplay(Owing):
    """Keeps the last transitions and deals in sequences of them, with the state before each.

    A sequence begins every ``length - overlap`` steps of an environment, wherever episodes begin:
    boundaries within it are marked as such, and networks start anew behind them. The state before
    it is the one that acting was in then. Fragments are as long as sequences lie apart, or an equal
    part of that, so that one begins with each of them.

    The first ``burn_in`` steps of a sequence weigh nothing: they are for an agent to bring the
    stored state up to its present weights. Minibatches are ``batch_size`` sequences, their rows
    time-major and flattened.

    Args:
        capacity: transitions kept, over all environments.
        batch_size: sequences per minibatch.
        length: steps of a sequence, those of the burn-in included.
        burn_in: of them, steps that only warm up the state.
        overlap: steps that a sequence shares with the one before it.
        warmup: environment steps before the first update.
        updates_per_step: updates owed per environment step after the warm-up. As long as no
            sequence is complete they stay owed.
        discount: gamma, per environment step.
        eta: share of the largest error in a sequence's priority, the rest is their mean.
        sampler: uniform, prioritized or rank, over sequences.
    """

    sequences = True

    def __init__(
        self,
        spec: Spec,
        num_envs: int,
        seed: int = 0,
        sequences: bool = False,
        capacity: Count = 100_000,
        batch_size: Count = 32,
        length: Count = 16,
        burn_in: CountOrZero = 4,
        overlap: CountOrZero = 8,
        warmup: CountOrZero = 1_000,
        updates_per_step: Positive = 0.1,
        discount: Fraction = 0.99,
        eta: Fraction = 0.9,
        sampler: Sampler | None = None,
    ) -> None:
        for setting, value in (("burn_in", burn_in), ("overlap", overlap)):
            if value >= length:
                raise SettingError(
                    setting, f"{value} steps leave nothing of a sequence of {length}"
                )
        self._stripes = Stripes(spec, num_envs, capacity)
        if self.stripes.held < length:
            raise SettingError(
                "capacity",
                f"{capacity} transitions are {self.stripes.held} per environment, less than one "
                f"sequence of {length}",
                f"Make it at least {length * num_envs}.",
            )
        self.store = Sequences(self.stripes, length, length - overlap)
        self.sampler = sampler or Uniform()
        self.wants_priorities = self.sampler.learns
        if self.sampler.reads_steps:
            raise SettingError(
                "sampler",
                f"'{getattr(self.sampler, 'registered_name', type(self.sampler).__name__)}' goes "
                "by single steps, but this memory deals in sequences of them",
                "Choose uniform, prioritized or rank, or memory.type replay.",
            )
        # Without the states, whose size is not known yet; there are few of them.
        self.nbytes = self.stripes.nbytes + self.sampler.attach(self._to_sample)
        self.fragment_length = self.store.apart
        self.recurrent = sequences
        self.length, self.burn_in, self.batch_size = length, burn_in, batch_size
        self.warmup, self.updates_per_step = warmup, updates_per_step
        self.discount, self.eta = discount, eta
        self.rng = torch.Generator().manual_seed(seed)
        self._last: Tensor | None = None

    def check_settings(self, say: Callable[[str], None]) -> None:
        envs, apart = self._stripes.num_envs, self.store.apart
        held = ((self._stripes.held - self.length) // apart + 1) * envs
        if held < self.batch_size:
            needed = ((-(-self.batch_size // envs) - 1) * apart + self.length) * envs
            raise SettingError(
                "capacity",
                f"{held} sequences are fewer than a minibatch of {self.batch_size}",
                f"Make it at least {needed}, or lower batch_size.",
            )
        super().check_settings(say)

    @property
    def stripes(self) -> Stripes:
        return self._stripes

    def check_fragments(self, length: int) -> None:
        if self.recurrent and self.store.apart % length:
            raise self.store.misfit(length)

    def write(self, fragment: Batch) -> None:
        added, dropped = self.store.write(fragment)
        self.sampler.added(added, dropped)
        self.env_steps += fragment.steps

    def batches(self, prepare: Prepare, more: Callable[[], bool] = never) -> Iterator[Batch]:
        if not self.store.counts.any():
            return
        while self.due() > self.updates:
            self.updates += 1
            yield prepare(self._draw())
        while self.env_steps > self.warmup and more():
            yield prepare(self._draw())

    def feedback(self, batch: Batch, priority: Tensor | None) -> None:
        """Mix the errors of every sequence's steps; those of the burn-in do not count."""
        rows = batch.place_in_memory
        if priority is None or rows is None:
            return
        priority = priority.cpu()
        error = priority.view(batch.length, -1)[self.burn_in - self.length :]  # [L, M]
        index = rows.view(batch.length, -1)[0]
        self.sampler.feedback(index, sequence_priority(error, self.eta))

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
            "layout": self.store.layout,
            **prefixed("stripes.", journal.state_dict(self.stripes)),
            **prefixed("sampler.", self.sampler.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count_on(state)
        self.rng.set_state(state["rng"])
        self.store.layout = state["layout"]
        journal.load_state_dict(self.stripes, under("stripes.", state))
        self.sampler.load_state_dict(under("sampler.", state))

    def pending_bytes(self, saved: list[int]) -> int:
        new = int(self.stripes.written.sum()) - sum(saved)
        states = -(-new // self.store.apart) * self.store.state_bytes()
        return new * self.stripes.saved_bytes + states

    def rows(self, saved: list[int]) -> tuple[dict[str, Tensor], list[int]]:
        tensors, reached = journal.rows_since(self.stripes, saved)
        if tensors:
            begin, end = tensors["begin"].numpy(), tensors["end"].numpy()
            tensors |= self.store.rows_since(begin, end)
        return tensors, reached

    def load_rows(self, rows: dict[str, Tensor]) -> None:
        journal.load_rows(self.stripes, rows)
        self.store.load_rows(rows, rows["begin"].numpy(), rows["end"].numpy())

    def forget(self, before: list[int]) -> None:
        nothing = torch.zeros(0, dtype=torch.int64)
        self.sampler.added(nothing, self.store.forget(before))

    @property
    def _to_sample(self) -> Stripes:
        """The sequences, which have all that samplers ask of stripes."""
        return cast(Stripes, self.store)

    def _draw(self) -> Batch:
        index, weight = self.sampler.draw(
            self._to_sample, self.batch_size, self.env_steps, self.rng
        )
        self._last = steps = self.store.steps_of(index)  # [L * M]
        batch = self.stripes.gather(steps, self.discount, 1)
        return replace(
            batch,
            weight=self._weights(weight),
            index=index.repeat(self.length),
            state=self.store.states_of(index),
            length=self.length,
            burn_in=self.burn_in,
        )

    def _weights(self, weight: Tensor | None) -> Tensor | None:
        """The weight of every row, from those of sequences ``[M]``; 0 in the burn-in."""
        if weight is None and not self.burn_in:
            return None
        weight = torch.ones(self.batch_size) if weight is None else weight
        rows = weight.repeat(self.length, 1)  # [L, M]
        rows[: self.burn_in] = 0.0
        return rows.flatten()
