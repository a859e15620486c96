"""Playing the policy of a finished or interrupted run, with or without a video."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from coach.core.agent import Agent
from coach.core.errors import CheckpointError, SettingError
from coach.core.schema import build
from coach.core.source import Episode
from coach.core.state import under
from coach.environments.making import EnvironmentSettings
from coach.environments.serial import SerialEnvs
from coach.environments.vector import VectorEnv
from coach.runners.actor import only_act
from coach.runners.checkpoint import find_latest, has_policy, load_policy
from coach.runners.evaluation import evaluate, on_cut
from coach.runners.experiment import build_agent, choose_device, spec_of
from coach.runners.seeds import derived_seed
from coach.runners.settings import EvaluationSettings, RunSettings
from coach.runners.trust import command
from coach.runners.video import FirstEpisodeVideo, check_video


def evaluate_run(
    folder: Path,
    settings: dict[str, Any],
    episodes: int,
    warn: Callable[[str], None],
    last: bool = False,
    video: bool = False,
) -> tuple[list[Episode], dict[str, Any]]:
    """Play the kept policy of a run (or, with ``last``, that of its newest checkpoint).

    Args:
        folder: the run's folder.
        settings: its preset.
        episodes: how many to play.
        warn: told of damaged checkpoints, of episodes that were cut and of a missing device.
        last: play the newest checkpoint rather than the best evaluated policy.
        video: record the first episode into the run's folder.

    Returns:
        The episodes, and facts about the policy (``env_steps``).

    Raises:
        CheckpointError: the run has no policy yet, or it is damaged.
    """
    folder = folder.absolute()  # an environment may change the working directory
    weights, facts = _weights(folder, warn, last)
    environment: EnvironmentSettings = build(
        EnvironmentSettings, settings["environment"], "environment"
    ).value
    run: RunSettings = build(RunSettings, settings["run"], "run").value
    device = _device(run, warn)
    torch.set_num_threads(1)  # sums are rounded alike whatever the machine
    spec = spec_of(environment)
    agent: Agent = build_agent(settings["agent"], spec).value
    only_act(agent, device, run.record)
    try:
        agent.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"The policy in {folder} does not fit its settings: {str(error).splitlines()[0]}",
            "Was a plugin changed after the run?",
        ) from error
    judged = environment.judging()
    evaluation: EvaluationSettings = build(
        EvaluationSettings, settings.get("evaluation"), "evaluation"
    ).value
    max_steps = judged.most_steps(evaluation.max_steps)
    make_envs: Callable[[int, int], VectorEnv] = partial(judged.vector, max_steps=max_steps)
    if video:
        check_video(judged)
        path = folder / "videos" / f"step-{facts['env_steps']}.mp4"
        make_envs = partial(SerialEnvs, _recording(judged, path), max_steps=max_steps)
    played = evaluate(
        agent,
        make_envs,
        episodes,
        derived_seed(run.seed, "evaluate"),
        device,
        max_steps=max_steps,
        most_envs=evaluation.envs,
    )
    if cut := on_cut(played, max_steps):
        warn(cut)
    return played, facts


def _weights(
    folder: Path, warn: Callable[[str], None], last: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights of the kept or the last policy, and facts about it; they need no replay."""
    if not last and has_policy(folder / "best"):
        try:
            weights, facts = load_policy(folder / "best")
        except CheckpointError as error:
            remedy = f"Play the newest checkpoint: {command('coach', 'evaluate', folder, '--last')}"
            raise CheckpointError(error.problem, error.remedy or remedy) from error
        if not isinstance(facts.get("env_steps"), int):
            raise CheckpointError(f"{folder / 'best' / 'agent.json'} is damaged: it has no steps")
        return weights, facts
    found = find_latest(folder, warn, replay=False)
    averaged = under("learner/average.weights.", found.state)  # where evaluations play an average
    weights = {**under("learner/agent.", found.state), **averaged}
    return weights, {"env_steps": found.manifest["env_steps"]}


def _device(run: RunSettings, warn: Callable[[str], None]) -> torch.device:
    """The run's device; the CPU where that is not there."""
    try:
        return choose_device(run.device)
    except SettingError as error:
        warn(f"{error.problem}; the policy is played on the CPU.")
        return torch.device("cpu")


def _recording(environment: EnvironmentSettings, path: Path) -> Callable[[], gym.Env[Any, Any]]:
    made = 0

    def make() -> gym.Env[Any, Any]:
        nonlocal made
        made += 1
        if made > 1:  # one environment's episode makes a video; the others just play
            return environment.make()
        return FirstEpisodeVideo(environment.make(render_mode="rgb_array"), path)

    return make
