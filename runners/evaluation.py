"""Playing episodes with a policy as it is, on environments of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from coach.core.agent import Agent
from coach.core.source import Episode
from coach.environments.vector import VectorEnv
from coach.runners.actor import Actor

MOST_ENVS = 16  # more make no call of the policy cheaper


def evaluate(
    agent: Agent,
    make_envs: Callable[[int, int], VectorEnv],
    episodes: int,
    seed: int,
    device: torch.device | str = "cpu",
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

    Returns:
        The episodes, sorted by environment.
    """
    num_envs = min(episodes, MOST_ENVS)
    quota = [episodes // num_envs + (i < episodes % num_envs) for i in range(num_envs)]
    actor = Actor(agent, make_envs(num_envs, seed), 1, seed, device)
    actor.ctx.explore = False
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
