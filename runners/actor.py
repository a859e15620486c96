"""Acting in environments of this process: the source of the `single` mode."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
import torch
from coach.core.action_mask import check_masks, has_mask
from coach.core.agent import Agent
from coach.core.batch import Batch, State, flat, leaves, map_tree, rebuild, refilled, select
from coach.core.context import Context
from coach.core.device import fetch, go_on, is_accelerator, place, upload
from coach.core.errors import BadValueError
from coach.core.recorder import recorders_in
from coach.core.source import Report, Source, Standing
from coach.core.state import prefixed, under
from coach.core.stream import drawing_from
from coach.environments.history import can_repeat
from coach.environments.vector import VectorEnv
from coach.runners.fragment import FragmentBuffer
from numpy.typing import NDArray
from torch import Tensor, nn

#: Fragments that may be given up one after the other because of bad values.
MOST_GIVEN_UP = 100


class Actor(Source):
    """Runs ``agent.act`` on ``N`` environments and stacks what happens into fragments.

    Args:
        agent: acts; on any device.
        envs: environments, one row of the fragment each.
        fragment_length: steps per fragment, ``T``.
        seed: of the stream that actions are drawn from.
        device: where the agent acts.
        first_env: global id of the first environment.
        num_envs: environments of the whole run, if others act too.
    """

    def __init__(
        self,
        agent: Agent,
        envs: VectorEnv,
        fragment_length: int,
        seed: int,
        device: torch.device | str = "cpu",
        first_env: int = 0,
        num_envs: int | None = None,
    ) -> None:
        self.agent, self.envs, self.length = agent, envs, fragment_length
        self.device = torch.device(device)
        rng = torch.Generator(self.device).manual_seed(seed)
        ids = torch.arange(first_env, first_env + envs.num_envs)
        self.ctx = Context(
            0, rng, ids, num_envs=num_envs or envs.num_envs, episodes=lambda: envs.episode
        )
        self.state: State = agent.initial_state(envs.num_envs)
        self.version = 0
        #: Where the next fragment goes; made at the first step if nobody has set it.
        self.fragment: FragmentBuffer | None = None
        self._report = Report()
        self._obs: Any = None
        self._continues = True
        self._masked = has_mask(envs.spec)
        #: Counts steps while a fragment grows, where somebody else watches for signs of life.
        self.beat: NDArray[np.int64] | None = None

    def collect(self) -> Batch:
        """Act for ``fragment_length`` steps; the tensors are reused by the next call.

        A fragment in which an episode is dropped is given up, and collected anew from there.

        Raises:
            BadValueError: an environment returned something that cannot be used, and is to stop
                the run, or does so in every fragment.
        """
        if self._obs is None:
            self._observe(self.envs.reset())
        act_time = env_time = 0.0
        agent, envs, ctx = self.agent, self.envs, self.ctx
        without_autograd, on_cpu = torch.inference_mode(), not is_accelerator(self.device)
        stream = drawing_from(ctx.rng if ctx.explore else None)
        t = given_up = 0
        while t < self.length:
            begin = perf_counter()
            with without_autograd, stream:
                chosen = agent.act(self._input, self.state, ctx)
            before = self.state if t == 0 else None
            chosen_action, extras = chosen.action, chosen.extras
            if not on_cpu:
                chosen_action, extras, before = _fetched(chosen_action, extras, before)
            action = chosen_action.numpy()
            acted = perf_counter()
            fragment = self.fragment or self._allocate(extras)
            if t == 0:
                map_tree(torch.Tensor.copy_, fragment.batch.state, before)
                first = ctx.step
            fragment.begin(t, self._obs, action)
            step = envs.step(action)
            ended = fragment.finish(t, step, extras)
            if chosen.state is not None:
                self.state = self._next_state(ended, chosen.state)
            ctx.step += ctx.num_envs
            if step.episodes:
                self._report.episodes += step.episodes
                if self._masked:  # also of observations behind a time limit
                    check_masks(step.next_obs, ctx.env_ids, ctx.step, step.terminated)
            # Environments reuse their arrays, and on CPU the tensors are views of them.
            if step.obs is not self._obs or not on_cpu:
                self._observe(step.obs)
            elif self._masked:
                check_masks(step.obs, ctx.env_ids, ctx.step)
            if self.beat is not None:
                self.beat[0] += 1
            act_time += acted - begin
            env_time += perf_counter() - acted
            t += 1
            if step.dropped:
                given_up += 1
                self._give_up(step.dropped, given_up)
                t, ctx.step = 0, first
        for name, spent in (("act", act_time), ("env", env_time)):
            self._report.seconds[name] = self._report.seconds.get(name, 0.0) + spent
        fragment.batch.version, fragment.batch.continues = self.version, self._continues
        self._continues = True
        return fragment.batch

    def publish(self, policy: nn.Module, version: int) -> None:
        """Nothing to move: the agent acts with the weights that are being learned."""
        self.version = version

    def report(self) -> Report:
        """Episodes and timings since the last call."""
        report, self._report = self._report, Report()
        report.notices += self.envs.notices()
        return report

    def standing(self) -> Standing | None:
        """How those did who step the environments, if others do."""
        return self.envs.standing()

    def timed(self) -> list[tuple[Any, str, str]]:
        """Stepping the environments, acting, and stacking what comes of it."""
        return [
            (self, "collect", "stacking fragments"),
            (self.envs, "step", "environments"),
            (self.agent, "act", "acting"),
        ]

    def state_dict(self) -> dict[str, Any]:
        """Step, random stream, recurrent state and environments."""
        state: dict[str, Any] = {"step": self.ctx.step, "rng": self.ctx.rng.get_state()}
        state |= {f"notes.{name}": note.clone() for name, note in self.ctx.notes.items()}
        if self._obs is not None:
            state |= prefixed("envs.", self.envs.state_dict())
        return state | {f"recurrent.{name}": leaf for name, leaf in leaves(self.state)}

    def load_state_dict(self, state: dict[str, Any], restore_environments: bool = True) -> None:
        """Continue from `state_dict`; or, not restoring, with fresh episodes.

        The state may come from a mode in which others acted: then only the number of steps and the
        numbers of the episodes are known.
        """
        self.ctx.step = state["step"]
        self._continues = False
        if "rng" not in state:
            self._observe(self.envs.load_state_dict({"episode": state["episode"]}, False))
            return
        go_on(self.ctx.rng, state["rng"])
        self.ctx.notes.update(under("notes.", state))
        envs = under("envs.", state)
        restore_environments = restore_environments and self.envs.restorable and can_repeat(envs)
        if envs:
            self._observe(self.envs.load_state_dict(envs, restore_environments))
        if restore_environments:
            self._continues = True
            saved = under("recurrent.", state)
            if saved:
                known = zip(saved, upload(list(saved.values()), self.device))
                self.state = rebuild(self.state, dict(known))

    def begin_anew(self) -> None:
        """Give up what is unfinished, and begin the next episode of every environment."""
        self._continues = False
        self.state = self.agent.initial_state(self.envs.num_envs)
        self._observe(self.envs.reset())

    def given_up(self, env_steps: int) -> dict[str, Any]:
        """A state to go on from with fresh episodes, when a fragment was broken off."""
        return {"step": env_steps, "episode": list(self.envs.episode)}

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def _give_up(self, dropped: int, in_a_row: int) -> None:
        """Note that episodes were dropped, and with them what there was of a fragment."""
        self._report.dropped += dropped
        self._continues = False
        if in_a_row > MOST_GIVEN_UP:
            notices = [notice.text for notice in self.envs.notices()]
            raise BadValueError(
                f"{MOST_GIVEN_UP} fragments in a row had bad values, so nothing could be learned. "
                f"The last: {notices[-1] if notices else 'unknown'}",
                "Mend the environment, or lower run.fragment_length: of a fragment with a bad "
                "value nothing is learned.",
            )

    def _allocate(self, extras: dict[str, torch.Tensor]) -> FragmentBuffer:
        # The memory beside this actor holds its environments alone, numbered from 0.
        rows = torch.arange(self.envs.num_envs)
        self.fragment = FragmentBuffer(self.envs.spec, self.length, rows, extras, self.state)
        return self.fragment

    def _observe(self, obs: Any) -> None:
        if self._masked:
            check_masks(obs, self.ctx.env_ids, self.ctx.step)
        self._obs = obs
        self._input = map_tree(torch.from_numpy, obs)
        if is_accelerator(self.device):
            self._input = refilled(self._input, iter(upload(flat(self._input), self.device)))

    def _next_state(self, ended: NDArray[np.bool_], state: State) -> State:
        """The recurrent state before the next step: fresh where an episode has ended."""
        if is_accelerator(self.device) and not ended.any():
            return state
        (rows,) = upload([torch.from_numpy(ended)], self.device)
        chosen: State = select(rows, self.agent.initial_state(self.envs.num_envs), state)
        return chosen


def only_act(agent: Agent, device: torch.device | str, record: bool) -> None:
    """Bring an agent that will not learn to ``device``.

    Args:
        agent: as it was built.
        device: where it acts.
        record: act from recordings, which only the CPU has.
    """
    place(agent, device).requires_grad_(False)
    for recorder in recorders_in(agent):
        recorder.enabled = record and not is_accelerator(device)


def _fetched(
    action: Tensor, extras: dict[str, Tensor], state: State
) -> tuple[Tensor, dict[str, Tensor], State]:
    """All of it on the CPU, by one copy."""
    leaves = flat(state)
    action, *rest = fetch([action, *extras.values(), *leaves])
    return action, dict(zip(extras, rest)), refilled(state, iter(rest[len(extras) :]))
