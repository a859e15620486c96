"""What torch.compile brings: an update as it is written, recorded, and compiled, in turn.

Prints a line for each preset or workload: microseconds of an update with its metrics left out
(medians of blocks), and the seconds until compiled code was ready.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from coach.core.learner import MEASURE_EVERY
from coach.runners.preset import load
from coach.runners.training import Run, start
from rich.console import Console

FORMS = {
    "as it is written": ["run.record=false", "run.compile=false"],
    "recorded": ["run.record=true", "run.compile=false"],
    "compiled": ["run.record=false", "run.compile=true"],
}
STEPS = 2_048  # until everything has been recorded or compiled
_ROUNDS, _BLOCK = 20, 30


def main(preset: str) -> None:
    """Train a little in each form, then time updates on the same minibatch."""
    path = Path(__file__).parent / "workloads" / f"{preset}.yaml"
    spent: dict[str, list[float]] = {form: [] for form in FORMS}
    told: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        updates = {form: _update(str(path) if path.exists() else preset, form, Path(folder), told)
                   for form in FORMS}  # fmt: skip
        for _ in range(_ROUNDS):
            for form, (run, batch) in updates.items():
                spent[form].append(_block(run, batch))
    times = ", ".join(f"{form} {median(found):.0f} us" for form, found in spent.items())
    print(f"{preset}: {times}. {' '.join(told)}")


def _update(preset: str, form: str, folder: Path, told: list[str]) -> tuple[Run, object]:
    common = [f"run.steps={STEPS}", "run.threads=1", "evaluation.every=0", "run.checkpoint_every=0"]
    name, settings = load(preset, [*common, *FORMS[form]])
    run = start(name, settings, folder, Console(), [], quiet=True)
    run.experiment.learner.compiling._say = told.append
    step, kept = run.experiment.learner.step, []

    def noted(batch: object, env_steps: int) -> object:
        kept[:] = [batch]
        return step(batch, env_steps)  # type: ignore[arg-type]

    run.experiment.learner.step = noted  # type: ignore[method-assign, assignment]
    run.train()
    run.experiment.learner.step = step  # type: ignore[method-assign]
    return run, kept[0]


def _block(run: Run, batch: object) -> float:
    learner, spent = run.experiment.learner, 0.0
    for _ in range(_BLOCK):
        learner.version += learner.version % MEASURE_EVERY == 0  # those have metrics, too
        begin = perf_counter()
        learner.step(batch, STEPS)  # type: ignore[arg-type]
        spent += perf_counter() - begin
    return spent / _BLOCK * 1e6


if __name__ == "__main__":
    for wanted in sys.argv[1:] or ("W1", "W2"):
        main(wanted)
