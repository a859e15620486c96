"""Updates one by one, and one ahead as on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from coach.core.learner import Update
from coach.runners.updates import one_ahead, one_by_one


@dataclass
class Record:
    """Stands in for memory and learner: notes the order of calls."""

    calls: list[str] = field(default_factory=list)

    def batches(self) -> Iterator[Any]:
        for number in range(3):
            self.calls.append(f"draw {number}")
            yield number

    def step(self, batch: Any, env_steps: int) -> Update:
        self.calls.append(f"step {batch}")
        return Update(torch.tensor([float(batch)]), {})

    def feedback(self, batch: Any, priority: torch.Tensor | None) -> None:
        assert priority == batch
        self.calls.append(f"file {batch}")


def run(how: Any) -> list[str]:
    record: Any = Record()
    assert len(list(how(record.batches(), record, record, 0))) == 3
    return record.calls


def test_one_by_one_files_priorities_at_once() -> None:
    assert run(one_by_one) == [
        f"{what} {number}" for number in range(3) for what in ("draw", "step", "file")
    ]


def test_one_ahead_draws_while_the_update_before_runs() -> None:
    assert run(one_ahead) == [
        "draw 0", "step 0",
        "draw 1", "step 1", "file 0",
        "draw 2", "step 2", "file 1",
        "file 2",
    ]  # fmt: skip
