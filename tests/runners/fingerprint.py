"""What two runs must share to be called the same run."""

from __future__ import annotations

from pathlib import Path

import torch
from coach.core.layout import named_leaves
from coach.core.memory import Memory
from coach.memories.replay import Replay
from coach.runners.training import Run


def of_run(run: Run) -> dict[str, object]:
    """Weights, optimisers, memory, streams and tables of a run, byte by byte."""
    state = run.state_dict()
    evaluations = run.folder / "evaluations.csv"
    told = {key: value for key, value in state.items() if not key.startswith("log/timing")}
    return {
        **{key: _bytes(value) for key, value in told.items()},
        **{f"row {key}": _bytes(value) for key, value in _rows(run.experiment.memory).items()},
        "progress.csv": (run.folder / "progress.csv").read_bytes(),
        "evaluations.csv": evaluations.read_bytes() if evaluations.exists() else b"",
    }


def of_folder(folder: Path) -> dict[str, object]:
    """The same of a finished run, from its last checkpoint."""
    from coach.runners import folder as run_folder
    from coach.runners.training import resume
    from rich.console import Console

    settings = run_folder.read(folder).settings
    run = resume(folder, settings, Console(quiet=True), [], quiet=True)
    try:
        return of_run(run)
    finally:
        run.close()


def _bytes(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return (value.dtype, tuple(value.shape), value.detach().contiguous().numpy().tobytes())
    return value


def _rows(memory: Memory) -> dict[str, torch.Tensor]:
    if not isinstance(memory, Replay):
        return {}
    held = [
        (env, row)
        for env, (end, count) in enumerate(zip(memory.stripes.written, memory.stripes.counts))
        for row in range(end - count, end)
    ]
    index = torch.tensor([env * memory.stripes.rows + r % memory.stripes.rows for env, r in held])
    batch = memory.stripes.gather(index, 0.99, 1)
    names = ("obs", "action", "reward", "discount", "next_obs", "boundary")
    return {
        path: leaf
        for name in names
        for path, leaf in named_leaves(getattr(batch, name), name).items()
    }
