"""From the shell prompt to the target: `coach train --stop-at-target` beside Stable-Baselines3.

Both evaluate ten episodes as often as the preset says and end at a mean return of 475, or when the
preset's steps are taken. The peer has the preset's hyperparameters (and no double Q-learning).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from surroundings import surroundings

PRESETS = {"CartPole_PPO": ("W1", 100_000, 10_000, 8), "CartPole_DQN": ("W2", 50_000, 5_000, 1)}
TARGET = 475


def main() -> int:
    """Time both in turn and print a table for each preset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="seeds, each run by both")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter with the peer")
    parser.add_argument("--peer", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        return peer(options.peer[0], int(options.peer[1]))
    for preset in PRESETS:
        _compare(preset, options.rounds, options.peer_python)
    return 0


def _compare(preset: str, rounds: int, python: str) -> None:
    from rich.console import Console
    from rich.table import Table

    coach = str(Path(sys.executable).with_name("coach"))
    seconds: dict[str, list[float]] = {"Coach": [], "Stable-Baselines3": []}
    reached = dict.fromkeys(seconds, 0)
    for seed in range(1, rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            train = [coach, "train", preset, "--stop-at-target", "--seed", str(seed), "--quiet"]
            commands = {
                "Coach": [*train, "--run-dir", folder],
                "Stable-Baselines3": [python, __file__, "--peer", preset, str(seed)],
            }
            for name, command in commands.items():
                begin = perf_counter()
                done = subprocess.run(command, capture_output=True, check=False, env=surroundings())
                seconds[name].append(perf_counter() - begin)
                reached[name] += done.returncode == 0
    table = Table(title=f"{preset}: {rounds} seeds", title_justify="left")
    for column in ("", "seconds to the end", "reached the target"):
        table.add_column(column, justify="right")
    for name, spent in seconds.items():
        each = " ".join(f"{value:.1f}" for value in spent)
        table.add_row(name, f"{median(spent):.1f} ({each})", f"{reached[name]} of {rounds}")
    ratio = median(a / b for a, b in zip(*seconds.values()))
    console = Console(width=max(Console().width, 120))
    console.print(table)
    console.print(f"ratio, seed by seed: median {ratio:.2f}\n", highlight=False)


def peer(preset: str, seed: int) -> int:
    """Train with the peer; 0 if the target was reached."""
    import stable_baselines3
    import torch
    from peers import build
    from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnRewardThreshold
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    workload, steps, every, envs = PRESETS[preset]
    stop = StopTrainingOnRewardThreshold(TARGET, verbose=0)
    evaluation = EvalCallback(
        make_vec_env("CartPole-v1", n_envs=1, seed=seed + 1_000),
        callback_on_new_best=stop,
        n_eval_episodes=10,
        eval_freq=every // envs,
        verbose=0,
    )
    build(stable_baselines3, workload, seed, steps).learn(steps, callback=evaluation)
    return 0 if evaluation.best_mean_reward >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
