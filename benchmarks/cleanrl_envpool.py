"""W5 with CleanRL's script for EnvPool, run as it is; prints a line of JSON.

Its own defaults are W5's hyperparameters. The speed is what the script itself prints last: from the
first reset to the last update.
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


def main(seed: int, steps: int) -> dict[str, float]:
    """Train with a thread per CPU, which suits the network best."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    sys.argv = ["ppo_atari_envpool.py", f"--total-timesteps={steps}", f"--seed={seed}"]
    told = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(told),
    ):
        runpy.run_module("cleanrl.ppo_atari_envpool", run_name="__main__")
    printed = told.getvalue()
    rate = int(re.findall(r"^SPS: (\d+)", printed, re.MULTILINE)[-1])
    returns = [float(r) for r in re.findall(r"episodic_return=(\S+)", printed)[-20:]]
    done = steps // 1_024 * 1_024  # whole rollouts
    mean = sum(returns) / len(returns) if returns else float("nan")
    return {"seconds": done / rate, "env_steps": done, "return": mean}


if __name__ == "__main__":
    print(json.dumps(main(seed=int(sys.argv[3]), steps=int(sys.argv[4]))))
