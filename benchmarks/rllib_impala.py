"""Asynchronous Pong (W6) with RLlib's IMPALA; prints a line of JSON.

It needs an interpreter of its own: rllib_impala.txt says how to make one.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from time import perf_counter, sleep
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read at the import

import ale_py
import gymnasium as gym
import psutil
import ray
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.connectors.env_to_module.frame_stacking import FrameStackingEnvToModule
from ray.rllib.connectors.learner.frame_stacking import FrameStackingLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env

logging.getLogger("ray.rllib").setLevel(logging.ERROR)

FRAMES = 4
ROLLOUT, ENVS = 32, 8
SETTINGS = {  # the rest, V-trace included, is its own default
    "env_runners": {
        "num_env_runners": 1,
        "num_envs_per_env_runner": ENVS,
        "rollout_fragment_length": ROLLOUT,
        "episode_lookback_horizon": FRAMES,  # else stacks are cut at the start of a rollout
    },
    "learners": {"num_learners": 0, "num_gpus_per_learner": 0},  # none but the one in the driver
    "training": {
        "train_batch_size_per_learner": ROLLOUT * ENVS,
        "num_epochs": 1,
        "timeout_s_sampler_manager": 0.1,  # by default 0, with which the driver spins
    },
    "debugging": {"seed": 1},
    "fault_tolerance": {"restart_failed_env_runners": False},
}
NATURE_CNN = [
    [32, 8, 4, "valid"],
    [64, 4, 2, "valid"],
    [64, 3, 1, "valid"],
    [512, 7, 1, "valid"],  # the dense layer: one that both heads share can only be had this way
]


class Stamped(gym.Wrapper):
    """Makes a file at the first step of an environment."""

    def __init__(self, env: gym.Env, first: Path) -> None:
        super().__init__(env)
        self.first: Path | None = first

    def step(self, action: Any) -> Any:
        if self.first:
            self.first.touch()
            self.first = None
        return self.env.step(action)


class Meter:
    """Measures from the first step of an environment until the time is up.

    Steps are those learned from, without the one by which RLlib extends each piece of an episode.
    Memory counts pages that processes share once (proportional set size).
    """

    def __init__(self, learner: Any, first: Path, seconds: int) -> None:
        self.first, self.seconds = first, seconds
        self.begin = 0.0
        self.steps = self.updates = 0
        self.cpu_before: dict[psutil.Process, float] = {}
        self.peak_mib = 0.0
        self.result: dict[str, float] = {}
        self.done = Event()
        self._log = learner._log_steps_trained_metrics
        learner._log_steps_trained_metrics = self.after_update
        Thread(target=self._await_first_step, daemon=True).start()

    def after_update(self, batch: Any) -> None:
        """Called in the learner's thread."""
        self._log(batch)
        if self.done.is_set():
            return
        for part in batch.policy_batches.values():
            self.steps += int(part[Columns.LOSS_MASK].sum())
        self.updates += 1
        seconds = perf_counter() - self.begin
        if self.updates % 10 == 0:  # reading it takes time
            self.peak_mib = max(self.peak_mib, _memory_mib())
        if seconds > self.seconds:
            used = _cpu_seconds()
            self.result = {
                "agent_steps": self.steps,
                "seconds": seconds,
                "agent_steps_per_s": self.steps / seconds,
                "peak_mib": max(self.peak_mib, _memory_mib()),
                "cpu_seconds": sum(used[p] - self.cpu_before.get(p, 0.0) for p in used),
            }
            self.done.set()

    def _await_first_step(self) -> None:
        while not self.first.exists():
            sleep(0.01)
        self.begin = perf_counter()
        self.cpu_before = _cpu_seconds()


def main(seconds: int) -> dict[str, float]:
    """Train for a time."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=4,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
        first = Path(folder) / "first"
        register_env("pong", lambda config: Stamped(_make_env(), config["first"]))
        config = IMPALAConfig().environment("pong", env_config={"first": first})
        for method, settings in SETTINGS.items():
            getattr(config, method)(**settings)
        config.env_runners(
            env_to_module_connector=lambda *_, **__: FrameStackingEnvToModule(num_frames=FRAMES)
        )
        config.training(learner_connector=lambda *_: FrameStackingLearner(num_frames=FRAMES))
        config.rl_module(model_config=DefaultModelConfig(conv_filters=NATURE_CNN))
        algorithm = config.build_algo()
        meter = Meter(algorithm.learner_group._learner, first, seconds)
        while not meter.done.is_set():
            algorithm.train()
        algorithm.stop()
        shutil.rmtree(algorithm.logdir)  # empty
        ray.shutdown()
    return meter.result


def _make_env() -> gym.Env:
    gym.register_envs(ale_py)
    env = gym.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=0.0)
    return gym.wrappers.AtariPreprocessing(env, grayscale_newaxis=True, scale_obs=True)


def _processes() -> list[psutil.Process]:
    process = psutil.Process()
    return [process, *process.children(recursive=True)]


def _cpu_seconds() -> dict[psutil.Process, float]:
    """Of each process: Ray ends some that it started at the beginning."""
    used = {}
    for process in _processes():
        with suppress(psutil.NoSuchProcess):
            used[process] = sum(process.cpu_times()[:2])
    return used


def _memory_mib() -> float:
    pages = 0
    for process in _processes():
        with suppress(psutil.NoSuchProcess):
            pages += process.memory_full_info().pss
    return pages / 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="from the first step on")
    print(json.dumps(main(parser.parse_args().seconds)))
