"""Soft Q-learning: an agent of one's own in one file.

    y = r + gamma * t * log sum_a exp(Q_target(s', a) / t)      (arXiv:1702.08165, eq. 5)

Train it from anywhere: coach train soft_q.yaml --plugin soft_q.py
"""

from coach.architectures.network import Network
from coach.architectures.target import Target
from coach.core.agent import Action, Agent, Loss, objective
from coach.core.registry import register
from coach.core.schema import Count, Positive
from coach.core.spec import Spec


@register("agent", "soft_q")
class SoftQ(Agent):
    """Q-learning with an entropy-softened maximum (arXiv:1702.08165).

    Args:
        temperature: in units of return; high is random, low is greedy.
        target_every: updates between two copies of the weights into the target.
    """

    def __init__(self, spec: Spec, temperature: Positive = 0.05, target_every: Count = 100) -> None:
        super().__init__(spec)
        self.online = Network(spec, heads={"q": "q"})
        self.target = Target(self.online, every=target_every)
        self.temperature = temperature

    @property
    def policy(self):
        return self.online

    def act(self, obs, state, ctx):
        return Action(ctx.categorical(self.online(obs).q.mean / self.temperature))

    @objective(minimises="online")
    def soft_bellman(self, batch):
        later = self.target(batch.next_obs).q.mean / self.temperature  # [B, A]
        goal = batch.reward + batch.discount * self.temperature * later.logsumexp(-1)
        now = self.online(batch.obs).q.mean.gather(-1, batch.action[:, None]).squeeze(-1)  # [B]
        error = now - goal.detach()
        return Loss(error.square(), priority=error.detach().abs())

    def after_update(self):
        self.target.track(self.online)
