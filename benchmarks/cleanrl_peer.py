"""A workload with CleanRL's own script for it, run as it is; prints a line of JSON.

The speed is what the script itself prints last: from the first reset to the last update.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import runpy
import sys
import tempfile

import torch

#: The script of each workload, what its options have to say, and steps of a rollout.
SCRIPTS: dict[str, tuple[str, list[str], int]] = {
    "W1": (
        "cleanrl.ppo",
        [
            "--env-id=CartPole-v1",
            "--num-envs=8",
            "--num-steps=32",
            "--num-minibatches=1",
            "--update-epochs=20",
            "--gamma=0.98",
            "--gae-lambda=0.8",
            "--ent-coef=0",
            "--learning-rate=1e-3",
            "--clip-vloss=False",
        ],
        256,
    ),
    "W5-native": ("cleanrl.ppo_atari_envpool", [], 1_024),  # its defaults are the workload's
}


def main(workload: str, seed: int, steps: int) -> dict[str, float]:
    """Train with as many threads as suit the network best."""
    module, options, rollout = SCRIPTS[workload]
    torch.set_num_threads(1 if workload == "W1" else len(os.sched_getaffinity(0)))
    done = steps // rollout * rollout
    sys.argv = [module, f"--total-timesteps={done}", f"--seed={seed}", *options]
    told = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(told),
    ):
        runpy.run_module(module, run_name="__main__")
    printed = told.getvalue()
    rate = int(re.findall(r"^SPS: (\d+)", printed, re.MULTILINE)[-1])
    returns = [float(r) for r in re.findall(r"episodic_return=\[?([-\d.e+]+)", printed)[-20:]]
    mean = sum(returns) / len(returns) if returns else float("nan")
    return {"seconds": done / rate, "env_steps": done, "return": mean}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
