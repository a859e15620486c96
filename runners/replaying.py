"""Playing the policy of a finished or interrupted run, with or without a video."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
from coach.core.errors import CheckpointError, CoachError
from coach.core.source import Episode
from coach.core.state import under
from coach.environments.making import EnvironmentSettings
from coach.environments.serial import SerialEnvs
from coach.environments.vector import VectorEnv
from coach.runners.checkpoint import load_latest, load_policy
from coach.runners.evaluation import evaluate
from coach.runners.experiment import build_experiment
from coach.runners.seeds import derived_seed


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
        warn: told of damaged checkpoints.
        last: play the newest checkpoint rather than the best evaluated policy.
        video: record the first episodes into the run's folder.

    Returns:
        The episodes, and facts about the policy (``env_steps``).

    Raises:
        CheckpointError: the run has no policy yet, or it is damaged.
    """
    experiment = build_experiment(settings)
    experiment.source.close()
    agent = experiment.agent
    facts: dict[str, Any] = {}
    if not last and (folder / "best").is_dir():
        weights, facts = load_policy(folder / "best")
    else:
        manifest, state = load_latest(folder, None, warn)
        weights = under("learner/agent.", state)
        facts = {"env_steps": manifest["env_steps"]}
    try:
        agent.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"The policy in {folder} does not fit its preset: {str(error).splitlines()[0]}",
            "Was preset.yaml or a plugin changed after the run?",
        ) from error
    make_envs: Callable[[int, int], VectorEnv] = experiment.environment.judging().vector
    if video:
        recording = _recording(experiment.environment.judging(), folder / "videos")
        make_envs = partial(SerialEnvs, recording)
    seed = derived_seed(experiment.run.seed, "evaluate")
    return evaluate(agent, make_envs, episodes, seed, experiment.learner.device), facts


def _recording(environment: EnvironmentSettings, folder: Path) -> Callable[[], gym.Env[Any, Any]]:
    made = 0

    def make() -> gym.Env[Any, Any]:
        nonlocal made
        made += 1
        if made > 1:  # one environment's episodes make a video; the others just play
            return environment.make()
        env = environment.make(render_mode="rgb_array")
        try:
            recorder: gym.Env[Any, Any] = gym.wrappers.RecordVideo(
                env, str(folder), episode_trigger=lambda number: number == 0, disable_logger=True
            )
        except (ImportError, gym.error.DependencyNotInstalled) as error:
            raise CoachError(
                "Recording a video needs the package 'moviepy'.",
                "Run: pip install 'coach-rl[video]'",
            ) from error
        return recorder

    return make
