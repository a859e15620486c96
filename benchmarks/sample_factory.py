"""Asynchronous Pong (W6) with Sample Factory; prints a line of JSON.

It needs an interpreter of its own: sample_factory.txt says how to make one.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from functools import partial
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from threading import Thread
from time import perf_counter, sleep
from typing import Any

# This folder last, so that the package is found and not this file, which has its name.
sys.path.sort(key=lambda folder: Path(folder).resolve() == Path(__file__).resolve().parent)

import gymnasium as gym
import psutil
from ale_py.registration import register_v0_v4_envs
from sample_factory.algo.runners.runner import AlgoObserver, Runner
from sample_factory.envs.env_utils import register_env
from sample_factory.train import make_runner
from sf_examples.atari.atari_utils import make_atari_env
from sf_examples.atari.train_atari import parse_atari_args

BATCH = 256
SETTINGS = {  # the rest, preprocessing and Nature CNN included, is its own default for Atari
    "env": "atari_pong",
    "device": "cpu",
    "seed": 1,
    "async_rl": True,
    "num_workers": 2,
    "num_envs_per_worker": 8,
    "worker_num_splits": 2,  # double-buffered
    "rollout": 32,
    "batch_size": BATCH,
    "num_batches_per_epoch": 1,
    "num_epochs": 1,
    "normalize_input": False,
    "normalize_returns": False,
}

# At module level, so that the worker processes, which import this file, are as quiet.
gym.logger.set_level(gym.logger.ERROR)
logging.getLogger("rl").setLevel(logging.ERROR)


class Stamped(gym.Wrapper):
    """Notes the time of the first step of all environments, in whichever process it is made."""

    def __init__(self, env: gym.Env, first: Any) -> None:
        super().__init__(env)
        self.first = first

    def step(self, action: Any) -> Any:
        if not self.first.value:
            self.first.value = perf_counter()
        return self.env.step(action)


class Meter(AlgoObserver):
    """Measures from the first step of an environment until training ends, and keeps the time.

    Steps are those learned from: about eight batches more wait in buffers at the end.
    Memory counts pages that processes share once (proportional set size).
    """

    def __init__(self) -> None:
        self.first = RawValue("d", 0.0)
        self.updates = 0
        self.cpu_before = 0.0
        self.peak_mib = 0.0
        self.result: dict[str, float] = {}

    def on_start(self, runner: Runner) -> None:
        Thread(target=self._await_first_step, daemon=True).start()

    def on_training_step(self, runner: Runner, training_iteration_since_resume: int) -> None:
        if runner.stopped:
            return
        self.updates = training_iteration_since_resume
        # Nothing else sets this, and without it `train_for_seconds` has no effect.
        runner.total_train_seconds = perf_counter() - self.first.value
        if self.updates % 10 == 0:  # reading it takes 20 ms
            self.peak_mib = max(self.peak_mib, _memory_mib())

    def on_stop(self, runner: Runner) -> None:
        seconds = perf_counter() - self.first.value
        cpu_seconds = _cpu_seconds() - self.cpu_before
        self.result = {
            "agent_steps": self.updates * BATCH,
            "seconds": seconds,
            "agent_steps_per_s": self.updates * BATCH / seconds,
            "peak_mib": max(self.peak_mib, _memory_mib()),
            "cpu_seconds": cpu_seconds,
        }

    def _await_first_step(self) -> None:
        while not self.first.value:
            sleep(0.01)
        self.cpu_before = _cpu_seconds()


def main(seconds: int) -> dict[str, float]:
    """Train for a time."""
    meter = Meter()
    register_env("atari_pong", partial(_make_env, meter.first))
    with tempfile.TemporaryDirectory() as folder:
        settings = {**SETTINGS, "train_dir": folder, "train_for_seconds": seconds}
        config = parse_atari_args([f"--{name}={value}" for name, value in settings.items()])
        _, runner = make_runner(config)
        runner.register_observer(meter)
        if runner.init() or runner.run():
            raise SystemExit("Sample Factory did not finish")
    return meter.result


def _make_env(first: Any, name: str, config: Any, env_config: Any, render_mode: Any) -> gym.Env:
    if "PongNoFrameskip-v4" not in gym.registry:
        register_v0_v4_envs()  # this ale-py does so by itself only beside Gymnasium 1.1 and later
    return Stamped(make_atari_env(name, config, env_config, render_mode), first)


def _processes() -> list[psutil.Process]:
    process = psutil.Process()
    return [process, *process.children(recursive=True)]


def _cpu_seconds() -> float:
    return sum(sum(process.cpu_times()[:2]) for process in _processes())


def _memory_mib() -> float:
    return sum(process.memory_full_info().pss for process in _processes()) / 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="from the first step on")
    print(json.dumps(main(parser.parse_args().seconds)))
