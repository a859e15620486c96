"""Playing episodes with a policy as it is, on environments of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from coach.core.agent import Agent
from coach.core.device import is_accelerator, place
from coach.core.recorder import recorders_in
from coach.core.schema import build_part
from coach.core.source import Episode
from coach.core.spec import Spec
from coach.environments.making import EnvironmentSettings
from coach.environments.vector import VectorEnv
from coach.runners.actor import Actor
from coach.runners.seeds import derived_seed
from numpy.typing import NDArray
from torch import Tensor

MOST_ENVS = 16  # more make no call of the policy cheaper


def evaluate(
    agent: Agent,
    make_envs: Callable[[int, int], VectorEnv],
    episodes: int,
    seed: int,
    device: torch.device | str = "cpu",
    beat: NDArray[np.int64] | None = None,
) -> list[Episode]:
    """Play ``episodes`` episodes without exploring.

    Every environment plays a fixed number of them, so that short episodes are not favoured. The
    agent's own random streams and the training environments are not touched.

    Args:
        agent: acts; nothing in it changes.
        make_envs: makes so many environments from a seed.
        episodes: how many to play.
        seed: of these episodes.
        device: where the agent acts.
        beat: counts the steps, for somebody who watches for signs of life.

    Returns:
        The episodes, sorted by environment.
    """
    num_envs = min(episodes, MOST_ENVS)
    quota = [episodes // num_envs + (i < episodes % num_envs) for i in range(num_envs)]
    actor = Actor(agent, make_envs(num_envs, seed), 1, seed, device)
    actor.ctx.explore, actor.beat = False, beat
    training = agent.training
    agent.eval()
    played: list[list[Episode]] = [[] for _ in range(num_envs)]
    try:
        while any(len(done) < due for done, due in zip(played, quota)):
            actor.collect()
            for episode in actor.report().episodes:
                if len(played[episode.env_id]) < quota[episode.env_id]:
                    played[episode.env_id].append(episode)
    finally:
        agent.train(training)
        actor.close()
    return [episode for done in played for episode in done]


@dataclass(frozen=True)
class Exam:
    """What the evaluations of a run have in common.

    Args:
        environment: settings of one environment, as policies are judged in it.
        spec: of one environment.
        agent: plain settings of the agent.
        episodes: how many are played each time.
        seed: of the run.
        record: act from recordings.
    """

    environment: EnvironmentSettings
    spec: Spec
    agent: dict[str, Any]
    episodes: int
    seed: int
    record: bool


class Judge:
    """Plays an exam with the weights of the run's agent, in an agent of its own.

    Args:
        exam: what is played.
        device: where the agent acts.
        beat: see `evaluate`.
    """

    def __init__(
        self,
        exam: Exam,
        device: torch.device | str = "cpu",
        beat: NDArray[np.int64] | None = None,
    ) -> None:
        self.exam, self.device, self.beat = exam, device, beat
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn, and replaced
            self.agent: Agent = build_part("agent", exam.agent, "agent", spec=exam.spec).value
        place(self.agent, device).requires_grad_(False)
        for recorder in recorders_in(self.agent):
            recorder.enabled = exam.record and not is_accelerator(device)

    def judge(self, weights: Mapping[str, Tensor], env_steps: int) -> list[Episode]:
        """The episodes of a policy that was learned in ``env_steps`` steps.

        They depend on the weights, the run's seed and the number of steps alone.

        Args:
            weights: of the whole agent, as its ``state_dict`` names them.
            env_steps: names the random streams of the episodes.
        """
        self.agent.load_state_dict(weights)
        exam = self.exam
        seed = derived_seed(exam.seed, f"evaluation {env_steps}")
        make_envs = exam.environment.vector
        return evaluate(self.agent, make_envs, exam.episodes, seed, self.device, self.beat)
