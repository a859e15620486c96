"""Playing episodes with a policy as it is, on environments of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from coach.core.agent import Agent
from coach.core.errors import BadValueError, FailedEnvironmentError, SettingError
from coach.core.schema import build_part
from coach.core.source import Episode, Notice
from coach.core.spec import Spec
from coach.environments.making import EnvironmentSettings
from coach.environments.vector import VectorEnv
from coach.runners.actor import Actor, only_act
from coach.runners.seeds import derived_seed
from numpy.typing import NDArray
from torch import Tensor


def evaluate(
    agent: Agent,
    make_envs: Callable[[int, int], VectorEnv],
    episodes: int,
    seed: int,
    device: torch.device | str = "cpu",
    beat: NDArray[np.int64] | None = None,
    max_steps: int | None = None,
    most_envs: int = 16,
    notices: list[Notice] | None = None,
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
        max_steps: of an episode, which environments that can be cut are cut at; where others have
            not ended by then, fewer episodes are played, and what they came to counts.
        most_envs: environments that play side by side; more than 16 make no call cheaper.
        notices: gets a word about every episode that was dropped.

    Returns:
        The episodes, sorted by environment.

    Raises:
        FailedEnvironmentError: the environments cannot be made, or fail.
        BadValueError: an environment returned something that cannot be used.
    """
    num_envs = min(episodes, most_envs)
    quota = [episodes // num_envs + (i < episodes % num_envs) for i in range(num_envs)]
    try:
        envs = make_envs(num_envs, seed)
    except SettingError as error:  # as it could be made before, others are in its way
        raise FailedEnvironmentError(
            f"For an evaluation, more environments cannot be made ({num_envs} of them): "
            f"{error.text}",
            "Where only one can exist at a time, add --set evaluation.envs=1; and train with --set "
            "evaluation.every=0, and play the policy afterwards with `coach evaluate`.",
        ) from error
    actor = Actor(agent, envs, 1, seed, device)
    actor.ctx.explore, actor.beat = False, beat
    training = agent.training
    agent.eval()
    played: list[list[Episode]] = [[] for _ in range(num_envs)]
    try:
        steps, limit = 0, None if max_steps is None else max_steps * max(quota)
        while any(len(done) < due for done, due in zip(played, quota)):
            if steps == limit:
                played = _with_unfinished(played, quota, envs)
                break
            actor.collect()
            steps += 1
            report = actor.report()
            for episode in report.episodes:
                if len(played[episode.env_id]) < quota[episode.env_id]:
                    played[episode.env_id].append(episode)
            if report.dropped and notices is not None:
                notices += [one for one in report.notices if not one.topic]
    except BadValueError as error:
        raise BadValueError(f"In an evaluation, {error.problem}", error.remedy) from error
    finally:
        agent.train(training)
        actor.close()
    return [episode for done in played for episode in done]


def _with_unfinished(
    played: list[list[Episode]], quota: list[int], envs: VectorEnv
) -> list[list[Episode]]:
    """Where episodes are missing, the one that is going on counts as it is."""
    last = [envs.unfinished(i) for i in range(envs.num_envs)]
    return [
        [*done, episode] if episode is not None and len(done) < due else done
        for done, due, episode in zip(played, quota, last)
    ]


def on_cut(episodes: Sequence[Episode], max_steps: int) -> str:
    """What to say about episodes that were cut; empty if none was."""
    cut = sum(episode.cut for episode in episodes)
    if not cut:
        return ""
    return (
        f"{cut} of {len(episodes)} evaluation episodes did not end within {max_steps:,} steps "
        "(evaluation.max_steps) and were cut; their returns so far count."
    )


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
        max_steps: see `evaluate`.
        most_envs: see `evaluate`.
    """

    environment: EnvironmentSettings
    spec: Spec
    agent: dict[str, Any]
    episodes: int
    seed: int
    record: bool
    max_steps: int
    most_envs: int


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
        #: About episodes that were dropped in the last evaluation.
        self.notices: list[Notice] = []
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn, and replaced
            self.agent: Agent = build_part("agent", exam.agent, "agent", spec=exam.spec).value
        only_act(self.agent, device, exam.record)

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
        self.notices = []
        return evaluate(
            self.agent,
            partial(exam.environment.vector, max_steps=exam.max_steps),
            exam.episodes,
            seed,
            self.device,
            self.beat,
            exam.max_steps,
            exam.most_envs,
            self.notices,
        )
