"""The sections of a preset that say how to run: ``run``, ``evaluation`` and ``target``."""

from __future__ import annotations

from typing import Literal

from coach.core.errors import SettingError
from coach.core.schema import Count, CountOrZero, Positive


class RunSettings:
    """How long, how wide and where to train, and what to write down.

    Args:
        steps: environment steps of the whole run, over all environments.
        mode: single is one thread; in sync, workers step the environments together; in async,
            actors with a policy of their own run ahead of the learner.
        exchange: what workers hand over (sync, async): experience, from which one learner learns;
            or gradients, each running the whole loop on its share of the environments. They
            average gradients before every step (sync), or learn for the same weights without
            waiting for each other (async, as in A3C).
        exchange_every: updates after which a worker that waits for nobody adds what they changed to
            the weights that all share, and goes on from these (async, gradients).
        workers: processes or threads that share the environments; left out, one per CPU in sync and
            async.
        worker_kind: auto times the environment and says what it chose.
        inference: who chooses actions in async: actors, each for its own environments; or server,
            one thread beside the learner and on its device for all of them in one batch, while
            the workers only step environments.
        free_learner: in async, let the learner make more updates than memory.updates_per_step
            states while it waits for experience. Off, the ratio is the same in every mode.
        slots: fragments that each actor may be ahead of the learner (async); 1 is lockstep.
        worker_timeout: seconds after which a silent worker counts as hung.
        max_restarts: failed workers that the run replaces before it gives up.
        envs: number of environments; modes spread them, never change it.
        seed: of everything: weights, environments, exploration, sampling.
        device: where the agent learns; auto takes a GPU if there is one.
        threads: CPU threads of one torch operation; auto tries out whether more than one make the
            first updates faster, where they are large enough that they could.
        record: make small updates and forward passes from recordings of their operations, with the
            same results to the last bit; see docs/recording.md.
        compile: run objectives through torch.compile, which takes 5 to 60 s; auto does so on a GPU
            where enough updates follow. Results differ in their last bits.
        fragment_length: steps per environment between two looks at the memory; left out, what the
            memory prefers.
        log_every: environment steps per line of progress.csv.
        checkpoint_every: environment steps between two checkpoints; 0 keeps only the last.
        keep_checkpoints: how many of them to keep.
        restore_environments: on resume, repeat every unfinished episode; false starts fresh ones.
        histograms: also write histograms of actions and weights to TensorBoard.
    """

    def __init__(
        self,
        steps: Count,
        mode: Literal["single", "sync", "async"] = "single",
        exchange: Literal["experience", "gradients"] = "experience",
        exchange_every: Count = 2,
        workers: Count | None = None,
        worker_kind: Literal["auto", "process", "thread"] = "auto",
        inference: Literal["actors", "server"] = "actors",
        free_learner: bool = False,
        slots: Count = 2,
        worker_timeout: Positive = 60.0,
        max_restarts: CountOrZero = 10,
        envs: Count = 1,
        seed: CountOrZero = 1,
        device: str = "auto",
        threads: Count | Literal["auto"] = "auto",
        record: bool = True,
        compile: bool | Literal["auto"] = "auto",
        fragment_length: Count | None = None,
        log_every: Count = 1_000,
        checkpoint_every: CountOrZero = 10_000,
        keep_checkpoints: Count = 3,
        restore_environments: bool = True,
        histograms: bool = False,
    ) -> None:
        self.steps, self.mode, self.envs, self.seed = steps, mode, envs, seed
        self.exchange, self.exchange_every = exchange, exchange_every
        self.inference, self.free_learner = inference, free_learner
        self.workers, self.worker_kind, self.slots = workers, worker_kind, slots
        self.worker_timeout, self.max_restarts = worker_timeout, max_restarts
        self.device, self.threads, self.fragment_length = device, threads, fragment_length
        self.record, self.compile = record, compile
        self.log_every, self.histograms = log_every, histograms
        self.checkpoint_every, self.keep_checkpoints = checkpoint_every, keep_checkpoints
        self.restore_environments = restore_environments


class EvaluationSettings:
    """How the policy is judged while it learns, on environments of its own.

    Args:
        every: environment steps between two evaluations; 0 never evaluates.
        episodes: episodes per evaluation.
        stop_at_target: end the run as soon as an evaluation reaches the target's return.
        background: judge in a process of its own while training goes on; auto does so in runs of
            50,000 steps or more that are not to stop at their target, where a CPU is free for it.
            What is learned and what is found are the same either way.
        max_steps: steps after which an episode is cut and counts with its return so far; left out,
            27,000 (the longest Atari game), or the environment's own limit where that is longer.
        envs: environments that play side by side; 1 for those that cannot exist twice.
        average_over: updates over which the weights of the evaluated policy are averaged (Polyak
            averaging); 0 evaluates the newest weights. Evaluations, the best and the last policy
            have the average; training does not notice it.
    """

    def __init__(
        self,
        every: CountOrZero = 10_000,
        episodes: Count = 10,
        stop_at_target: bool = False,
        background: bool | Literal["auto"] = "auto",
        max_steps: Count | None = None,
        envs: Count = 16,
        average_over: CountOrZero = 0,
    ) -> None:
        self.average_over = average_over
        self.every, self.episodes, self.stop_at_target = every, episodes, stop_at_target
        self.background, self.max_steps, self.envs = background, max_steps, envs


class TargetSettings:
    """The preset's pass mark, read by `coach verify`.

    Args:
        return_: mean return that the trained policy must reach.
        within_steps: environment steps that it may take; left out, the run's own.
        seeds: how many runs are averaged.
        episodes: evaluation episodes per run, with seeds of their own.
        published: what others reached, and where that is said; for docs/results.md.
    """

    def __init__(
        self,
        return_: float,
        within_steps: Count | None = None,
        seeds: Count = 3,
        episodes: Count = 20,
        published: str | None = None,
    ) -> None:
        self.return_, self.within_steps, self.published = return_, within_steps, published
        self.seeds, self.episodes = seeds, episodes


def check_together(evaluation: EvaluationSettings, target: TargetSettings | None) -> None:
    """Stop on sections that contradict each other."""
    if evaluation.stop_at_target and target is None:
        raise SettingError(
            "evaluation.stop_at_target",
            "there is no target to stop at",
            "Add `target: {return: ...}` to the preset.",
        )
    if evaluation.stop_at_target and not evaluation.every:
        raise SettingError(
            "evaluation.stop_at_target",
            "without evaluations the target is never seen",
            "Set evaluation.every.",
        )
