"""Judging the policy while it learns: in this process, or beside it while training goes on.

What an evaluation finds depends on the weights, the run's seed and the number of steps alone, so it
does not matter who plays it, or when. Policies wait for their turn, oldest first; those that wait
when a checkpoint is written are in it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
import torch
from coach.core.errors import CheckpointError
from coach.core.layout import Zeros
from coach.core.source import Episode
from coach.core.state import prefixed, under
from coach.core.threads import Threads
from coach.runners.channel import Channel, ChannelClosedError
from coach.runners.evaluation import Exam, Judge
from coach.runners.notices import NOTICES, packed, unpacked
from coach.runners.process import cpus
from coach.runners.settings import EvaluationSettings, RunSettings
from coach.runners.shared import SharedBlock, share
from coach.runners.weights import Layout, SharedWeights, layout_of
from coach.runners.worker import START_SECONDS, Tolerance, Worker, failure_in
from torch import Tensor

#: Policies that may wait for their turn before training waits for them.
MOST_WAITING = 8
#: Steps of a run that is long enough for a process that is ready after two seconds.
LEAST_STEPS = 50_000
_READY, _JUDGE, _FOUND = b"r", b"j", b"d"
_NICE = 10  # judging gives way to learning and acting
_LOOK_SECONDS = 0.25


@dataclass
class Candidate:
    """A policy to be judged.

    Args:
        env_steps: in which it was learned.
        weights: of the whole agent, copied.
        episodes: that were played with it; ``None`` until then.
    """

    env_steps: int
    weights: dict[str, Tensor]
    episodes: list[Episode] | None = None


class Evaluations:
    """The policies of a run that are to be judged, and whoever judges them.

    Args:
        exam: what is played.
        weights: those of the run's agent as they are evaluated now, by name.
        device: where policies are judged that are judged in this process.
        threads: of the run's updates; where there are more CPUs, one is free.
        settings: of the evaluations.
        run: how to run.
        plugins: imported by the process that judges.
        say: told about its failures.
        stopped: whether to wait no longer.
    """

    def __init__(
        self,
        exam: Exam,
        weights: Callable[[], dict[str, Tensor]],
        device: torch.device,
        threads: Threads,
        settings: EvaluationSettings,
        run: RunSettings,
        plugins: list[str],
        say: Callable[[str], None],
        stopped: Callable[[], bool],
    ) -> None:
        self.exam, self.weights, self.device, self.threads = exam, weights, device, threads
        self.run, self.plugins, self.say, self.stopped = run, plugins, say, stopped
        self.background = settings.background
        if self.background == "auto" and (
            settings.stop_at_target or run.steps < LEAST_STEPS or os.name != "posix"
        ):
            self.background = False
        self.waiting: deque[Candidate] = deque()  # oldest first
        self._cpus = cpus()
        self._judge: Judge | None = None
        self.process: JudgeProcess | None = None

    def request(self, env_steps: int) -> None:
        """Have the agent judged as it is now, after ``env_steps``."""
        weights = {name: t.detach().clone() for name, t in self.weights().items()}
        self.waiting.append(Candidate(env_steps, weights))

    def take(self, patient: bool = False) -> Iterator[Candidate]:
        """The policies that have been judged, oldest first; each waits until it is taken.

        Args:
            patient: wait until none is left, unless the run is to stop.

        Raises:
            WorkerError: the process that judges failed more often than the run tolerates.
        """
        while self.waiting:
            first = self.waiting[0]
            late = patient or len(self.waiting) > MOST_WAITING
            process = self.ask(late)
            # Nobody waits for a process that is not even ready.
            if first.episodes is None and (process is None or (late and not process.ready)):
                first.episodes = self.judge_here(first)
            if first.episodes is not None:
                yield self.waiting.popleft()
            elif not late or self.stopped():
                return

    def state_dict(self) -> dict[str, Any]:
        """The policies that wait."""
        state: dict[str, Any] = {"env_steps": [one.env_steps for one in self.waiting]}
        for one in self.waiting:
            state |= prefixed(f"{one.env_steps}/", one.weights)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let those wait that did.

        Raises:
            CheckpointError: weights are missing, or are those of another agent.
        """
        names = self.weights().keys()
        for env_steps in state.get("env_steps", []):  # older checkpoints have none
            weights = under(f"{env_steps}/", state)
            if weights.keys() != names:
                raise CheckpointError(
                    f"The policy of step {env_steps:,} that waits for its evaluation is not whole."
                )
            self.waiting.append(Candidate(env_steps, weights))

    def close(self) -> None:
        """End the process, if there is one."""
        if self.process is not None:
            self.process.close()
            self.process = None

    def ask(self, late: bool) -> JudgeProcess | None:
        """Hear from the process, if that is who judges now; with ``late``, wait for it a little."""
        free = self._cpus > self.threads.count
        if not self.background or (self.background == "auto" and not free):
            return None
        if self.process is None:
            self.process = JudgeProcess(
                self.exam, self.waiting[0].weights, self.run, self.plugins, self.say
            )
        try:
            self.process.look(self.waiting, _LOOK_SECONDS if late else 0.0)
        except CannotJudgeError as error:
            self.say(f"Policies are judged in this process, for one of their own failed: {error}")
            self.background = False
            self.close()
        return self.process

    def judge_here(self, candidate: Candidate) -> list[Episode]:
        """What a policy achieves, judged in this process."""
        if self._judge is None:
            self._judge = Judge(self.exam, self.device)
        episodes = self._judge.judge(candidate.weights, candidate.env_steps)
        for notice in self._judge.notices:
            self.say(notice.text)
        return episodes


class CannotJudgeError(Exception):
    """The process cannot be had, or lacks something that this one has, such as an environment."""


@dataclass
class JudgeWork:
    """What the process needs.

    Args:
        exam: what is played.
        block: memory for a count of steps, as a sign of life, and the weights.
        layout: of the weights in the block.
    """

    exam: Exam
    block: SharedBlock
    layout: Layout


class JudgeProcess:
    """A process that judges one policy after the other.

    Args:
        exam: what is played.
        weights: example of an agent's.
        run: how often the process may fail, and how long it may be silent.
        plugins: imported by it.
        say: told about failures.
    """

    def __init__(
        self,
        exam: Exam,
        weights: dict[str, Tensor],
        run: RunSettings,
        plugins: list[str],
        say: Callable[[str], None],
    ) -> None:
        self.exam, self.timeout = exam, run.worker_timeout
        self.tolerance = Tolerance(run.max_restarts, say, "The judge of policies", "its episodes")
        self.worker = Worker(0, "process", judge_for_run, plugins, beside=True)
        self._share(weights)
        self._judging: Candidate | None = None
        self._started = self._proven = False
        self._start()

    def look(self, waiting: Iterable[Candidate], patience: float) -> None:
        """Hand out the oldest policy that waits, and take in what has been found.

        Args:
            waiting: the policies.
            patience: seconds to wait for something to be found, once the process is ready.

        Raises:
            BadValueError: an environment returned something that cannot be used.
            CannotJudgeError: it cannot be had, or cannot judge the first policy.
            WorkerError: it failed too often.
        """
        try:
            self._hand_out(waiting)
            if self.worker.channel.waiting(patience if self.ready else 0.0):
                self._hear()
                self._hand_out(waiting)
        except ChannelClosedError:
            self._fail(self.worker.death())
        except TimeoutError:
            self._fail("it broke off in the middle of a message")
        self._find_hung()

    def close(self) -> None:
        """End it; it has nothing to lose."""
        self.worker.kill()

    def _start(self) -> None:
        self.ready = False
        self._judging = None
        self._beat = int(self._beats)
        self._alive = False  # whether it has taken a step of what it judges
        self._heard = monotonic()
        self.worker.start(JudgeWork(self.exam, self.block.again(), self._weights.layout))

    def _share(self, weights: dict[str, Tensor]) -> None:
        """Make the shared memory for weights of the layout that these have."""
        layout = layout_of(weights)
        self.block = share(lambda zeros: _lay_out(layout, zeros))
        self._beats, self._weights = _lay_out(layout, self.block.again().zeros)

    def _hand_out(self, waiting: Iterable[Candidate]) -> None:
        if not self.ready or self._judging is not None:
            return
        self._judging = next((one for one in waiting if one.episodes is None), None)
        if self._judging is not None:
            if layout_of(self._judging.weights) != self._weights.layout:  # a buffer has grown
                self.worker.kill()
                self._share(self._judging.weights)
                self._start()
                return
            self._weights.write(self._judging.weights)
            self._heard, self._alive = monotonic(), False
            # With as many threads as here, sums are the same to the last bit.
            threads = torch.get_num_threads()
            self.worker.channel.send(_JUDGE, threads, self._judging.env_steps)

    def _hear(self) -> None:
        message = self.worker.channel.receive(self.timeout)
        failure = failure_in(message)
        if failure is not None:
            self._fail(failure, raised=True)
            return
        if message.kind == NOTICES:
            for notice in unpacked(message.data):
                self.tolerance.say(notice.text)
            return
        self.ready = self._started = True
        if message.kind == _FOUND:
            assert self._judging is not None
            self._proven = True
            played = np.frombuffer(message.data).reshape(-1, 4).tolist()
            self._judging.episodes = [
                Episode(int(i), v, int(n), bool(cut)) for i, v, n, cut in played
            ]
            self._judging = None

    def _find_hung(self) -> None:
        """Mend a process that has work, and has neither spoken nor taken a step for too long."""
        if self.ready and self._judging is None:
            return
        now, beat = monotonic(), int(self._beats)
        if beat != self._beat:
            self._beat, self._heard, self._alive = beat, now, True
        limit = self.timeout if self._alive else START_SECONDS
        if now - self._heard > limit:
            setting = " (run.worker_timeout)" if self._alive else ""
            self._fail(f"it has taken no step for {limit:g} s{setting}")

    def _fail(self, failure: str, raised: bool = False) -> None:
        if not self._started or (raised and not self._proven):
            raise CannotJudgeError(failure.strip().splitlines()[-1])
        self.tolerance.restart(self.worker, failure)
        self._start()


def judge_for_run(channel: Channel, work: JudgeWork) -> None:
    """Judge every policy that is sent, until the run hangs up."""
    with suppress(OSError):
        os.nice(_NICE)
    judge = Judge(work.exam)
    beats, weights = _lay_out(work.layout, work.block.zeros)
    judge.beat = beats.view(1).numpy()
    channel.send(_READY)
    while True:
        message = channel.receive()
        torch.set_num_threads(message.value)
        found = judge.judge(weights.read(), message.step)
        if judge.notices:
            channel.send(NOTICES, data=packed(judge.notices))
        played = np.array([[one.env_id, one.value, one.length, one.cut] for one in found])
        channel.send(_FOUND, data=played.astype(np.float64).tobytes())


def _lay_out(layout: Layout, zeros: Zeros) -> tuple[Tensor, SharedWeights]:
    return zeros((), torch.int64), SharedWeights(layout, zeros)
