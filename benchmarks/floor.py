"""What a workload costs at least: its environments alone, and the products of its networks alone.

Everything else, from activations to telemetry, is what a faster framework could still save. Prints
a line of JSON with microseconds per step of the environments, per action and per update.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from coach.core import recorder
from coach.core.recorder import Recorder
from coach.environments.vector import VectorEnv
from coach.runners.preset import load
from coach.runners.training import start
from rich.console import Console

PRODUCTS = (
    *("mm", "addmm", "addmv", "mv", "bmm", "baddbmm", "convolution", "convolution_backward"),
    "product",  # of NumPy
    "_linear_pointwise",  # of oneDNN, some with their activation
)
#: Enough that every function has been recorded.
STEPS = {"W1": 512, "W2": 1_792, "W3": 1_064, "W4": 1_128, "W5": 2_048, "W5-native": 2_048}


def main(workload: str) -> dict[str, float]:
    """Measure the parts of a workload, and put them together."""
    recorder.MOST_BYTES, recorder._JUDGED_AT = 2**33, 2**62  # convolutions too, however they fare
    preset = Path(__file__).parent / "workloads" / f"{workload}.yaml"
    name, settings = load(str(preset), [f"run.steps={STEPS[workload]}"])
    with tempfile.TemporaryDirectory() as folder:
        run = start(name, settings, Path(folder), Console(), [], quiet=True)
        run.train()
    learner, envs = run.experiment.learner, run.experiment.run.envs
    step = _environments(run.experiment.environment.vector(envs, 1))
    act = sum(map(_products, learner.recorders[1:]))
    with learner.threads:
        update = _products(learner.recorder)
    updates = learner.version / (run.clock.env_steps - _warmup(settings))
    per_step = (step + act) / envs + update * updates
    return {"environments": step, "acting": act, "update": update, "speed": 1e6 / per_step}


def _warmup(settings: dict[str, Any]) -> int:
    return int(settings["memory"].get("warmup", 0))


def _products(of: Recorder) -> float:
    """Microseconds of the products of all functions, metrics left out."""
    recordings = dict(of.recordings)  # of several shapes the last
    with torch.inference_mode():
        return sum(
            _fastest(call)
            for name, recording in recordings.items()
            if "metrics" not in name
            for operation, call in recording.operations
            if operation in PRODUCTS
        )


def _environments(envs: VectorEnv) -> float:
    rng = np.random.default_rng(1)
    space = envs.spec.action
    actions = [np.stack([space.sample() for _ in range(envs.num_envs)]) for _ in range(64)]
    envs.reset()
    spent = []
    for _ in range(300):
        action = actions[rng.integers(64)]
        begin = perf_counter()
        envs.step(action)
        spent.append(perf_counter() - begin)
    envs.close()
    return float(np.mean(spent)) * 1e6


def _fastest(call: Callable[[], Any]) -> float:
    best = float("inf")
    for _ in range(20):
        begin = perf_counter()
        call()
        best = min(best, perf_counter() - begin)
    return best * 1e6


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
