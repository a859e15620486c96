"""A run from start (or checkpoint) to result: loop, evaluations, checkpoints, signals, files."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

from coach.core.device import fits
from coach.core.errors import (
    BadValueError,
    CheckpointError,
    CoachError,
    FailedEnvironmentError,
    InterruptedRunError,
    NotFiniteError,
)
from coach.core.places import short
from coach.core.source import Episode
from coach.core.state import prefixed, under
from coach.core.versions import versions
from coach.runners import folder as run_folder
from coach.runners.averaging import LostPartnerError
from coach.runners.best import BestPolicy
from coach.runners.checkpoint import Checkpointer, Found, checkpoints
from coach.runners.evaluation import Exam, evaluate, on_cut
from coach.runners.experiment import Experiment, build_experiment
from coach.runners.interrupts import ended_by_signals
from coach.runners.judging import Candidate, Evaluations
from coach.runners.locks import RunLock
from coach.runners.loop import train
from coach.runners.preset import dump
from coach.runners.resuming import Resumption, seconds_so_far, write_result
from coach.runners.seeds import derived_seed
from coach.runners.storage import unwritable
from coach.runners.trust import command, flag
from coach.runners.worker import WorkerError
from coach.telemetry.console import Listener, LiveView
from coach.telemetry.profile import Profile
from coach.telemetry.telemetry import Telemetry
from coach.telemetry.tensorboard import TensorBoard
from rich.console import Console
from torch import Tensor


@dataclass
class Result:
    """What a run came to.

    Args:
        folder: the run's folder.
        env_steps: environment steps taken.
        seconds: wall time of this process, start-up left out.
        stopped: why it ended early; empty if it did not.
        evaluation: mean return of the last evaluation, if any.
        best: mean return of the best evaluation, if any.
    """

    folder: Path
    env_steps: int
    seconds: float
    stopped: str
    evaluation: float | None
    best: float | None


class Run:
    """One training run in a folder of its own.

    Args:
        experiment: built from the folder's preset.
        folder: the run's folder, which exists.
        console: where progress is shown.
        lock: of the folder; released when training ends, or by `close`.
        resumption: continue from the newest whole checkpoint.
        quiet: show no progress.
        plugins: imported by the process that judges policies.
        listener: called with the run's progress.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        console: Console,
        lock: RunLock,
        resumption: Resumption | None = None,
        quiet: bool = False,
        plugins: list[str] | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.experiment, self.folder, self.lock = experiment, folder, lock
        self.warn = warn = _teller(console)
        if not lock.works:
            warn(f"{folder} cannot be locked: see that no other process trains in it.")
        found: Found | None = None
        if resumption is not None:
            found = resumption.find(experiment.plain, experiment.portion.workers)
        run, memory = experiment.run, experiment.memory
        experiment.source.keep_in(folder)
        self.clock, workers = experiment.clock, experiment.portion.workers
        self.checkpointer = Checkpointer(folder, memory, run.keep_checkpoints, workers)
        self._plugins = plugins or []
        self.profile: Profile | None = None
        self.best = BestPolicy(folder / "best")
        self.last: float | None = None
        self._seconds_before = seconds_so_far(folder, warn) if found else 0.0
        judged, evaluation = experiment.environment.judging(), experiment.evaluation
        self.max_steps = judged.most_steps(evaluation.max_steps)  # of an evaluation's episode
        exam = Exam(
            judged,
            experiment.agent.spec,
            experiment.plain["agent"],
            evaluation.episodes,
            run.seed,
            run.record,
            self.max_steps,
            evaluation.envs,
        )
        self.evaluations = Evaluations(
            exam,
            experiment.learner.evaluated_state,
            experiment.learner.device,
            experiment.learner.threads,
            evaluation,
            run,
            self._plugins,
            warn,
            lambda: self.clock.interrupted,
        )
        if found is not None:
            self.clock.begin(found.manifest["env_steps"])
        try:
            board = TensorBoard(folder, self.clock.env_steps + 1 if found else None)
            self.view = LiveView(console, run.steps, self.clock.env_steps, quiet, listener)
            self.log = Telemetry(
                folder,
                experiment.learner,
                memory,
                experiment.source,
                board,
                self.view,
                run.log_every,
                run.histograms,
            )
        except OSError as error:
            raise unwritable(folder, error) from error
        if not quiet:
            before = f", continued after {self.clock.env_steps:,} steps" if found else ""
            self.view.say(f"Run folder: {short(folder)}{before}")
        if found is None or resumption is None:
            if experiment.note and not quiet:
                self.view.say(experiment.note)
            warmup = experiment.plain["memory"].get("warmup") or 0
            if warmup >= run.steps:
                self.view.say(
                    f"memory.warmup is {warmup:,} steps, and the run has {run.steps:,}: no update "
                    "will be made. Lower memory.warmup, or raise run.steps (--steps)."
                )
            board.text("preset", dump(experiment.plain))
            board.text("versions", json.dumps(versions(), indent=1))
            return
        try:
            self._load(found, resumption.skip_episodes)
            resumption.write(experiment.plain, self.clock.env_steps)
            self.checkpointer.continue_from(found.manifest)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give up a run that has not been trained: end what it has started, release its folder."""
        self.log.close()
        self.evaluations.close()
        self.experiment.source.close()
        self.lock.release()

    def train(self) -> Result:
        """Train until the steps are taken, the target is met or a signal comes.

        Raises:
            BadValueError: an environment returned something that cannot be used; what was learned
                before is in a checkpoint.
            FailedEnvironmentError: an environment failed; what was learned is in a checkpoint.
            NotFiniteError: something of the agent became NaN or infinite; what was learned before
                is in a checkpoint, if its weights were still finite, or else in the last one.
            ResourceError: the disk is full or cannot be written.
            WorkerError: workers failed too often; what was learned is in a checkpoint.
        """
        begin = perf_counter()
        if self.profile is not None:
            self.profile.start()
        try:
            with ended_by_signals(self.clock):
                try:
                    self._train()
                finally:
                    self._close_parts()
            clock, seconds = self.clock, self._seconds_before + perf_counter() - begin
            self._finish(seconds)
        finally:
            self.lock.release()
        return Result(self.folder, clock.env_steps, seconds, clock.stop, self.last, self.best.value)

    def _train(self) -> None:
        experiment, clock = self.experiment, self.clock
        try:
            try:
                if experiment.source.fragile and not checkpoints(self.folder):
                    self.save()  # something to go back to
                train(
                    experiment.source,
                    experiment.memory,
                    experiment.learner,
                    clock,
                    self.log,
                    self.after_fragment,
                )
                self.note_evaluations(patient=True)
            finally:
                clock.breakable = False  # from here on no signal may break anything off
            self._save_last()
            self.log.last_line()
            if not experiment.learner.version and not clock.interrupted:
                self.view.say("No update was made in this run: it ended before the first was due.")
        except (InterruptedRunError, KeyboardInterrupt):
            # The latter comes where somebody else, an environment say, handles the signals.
            clock.stop = clock.stop or "interrupted by SIGINT"
            if experiment.source.fragile:
                self._say_what_is_kept("its workers were in the middle of an update")
            else:
                self._save_last(whole=not clock.collecting)
        except OSError as error:
            if error.filename is not None and not _lies_in(self.folder, error.filename):
                raise
            raise unwritable(self.folder, error) from error
        except LostPartnerError:  # the last checkpoint is all that is whole
            if not clock.stop:
                raise
            self._say_what_is_kept("a worker was lost meanwhile")
        except WorkerError:
            self.save(whole=False)  # what has been learned stays
            raise
        except FailedEnvironmentError as error:
            self.save(whole=not clock.collecting)
            raise FailedEnvironmentError(error.problem, self._after_mending(error)) from error
        except (BadValueError, NotFiniteError) as error:
            self._save_what_is_good()
            raise type(error)(error.problem, self._after_mending(error)) from error
        except Exception:
            experiment.learner.require_finite()  # what was raised may come of weights that are not
            raise

    def _close_parts(self) -> None:
        """Release everything; an environment that does not let itself be closed is left."""
        if self.profile is not None:
            self.profile.stop()
        self.log.pause()
        self.evaluations.close()
        try:
            self.clock.breakable = True
            self.experiment.source.close()
        except (InterruptedRunError, KeyboardInterrupt):
            self.view.say("The environments did not close in time and are left as they are.")
        finally:
            self.clock.breakable = False

    def watch(self, profile: Profile) -> None:
        """Have everything timed that this process will do."""
        experiment, self.profile = self.experiment, profile
        agent, learner, memory = experiment.agent, experiment.learner, experiment.memory
        for owner, method, label in [
            *experiment.source.timed(),
            (experiment.source, "publish", "publishing weights"),
            (memory, "write", "storing"),
            (memory, "batches", "sampling"),
            (memory, "feedback", "priorities"),
            (agent, "prepare", "preparing batches"),
            *((agent, goal.name, f"objective {goal.name}") for goal in learner.objectives),
            (learner, "step", "gradients"),
            (learner, "apply", "optimiser steps"),
            (agent, "after_update", "targets"),
            (agent, "observe", "running statistics"),
            (self.log, "update", "telemetry"),
            (self.log, "fragment", "telemetry"),
            (self.best, "flush", "best policy"),
        ]:
            profile.watch(owner, method, label)
        for step in ("request", "take"):
            profile.watch(self.evaluations, step, "evaluation", whole=True)
        profile.watch(self.checkpointer, "save", "checkpoints", whole=True)
        profile.watch(self.checkpointer, "tick", "checkpoints", whole=True)

    def after_fragment(self) -> None:
        """What comes between two fragments: evaluations, the best policy, checkpoints."""
        run, evaluation = self.experiment.run, self.experiment.evaluation
        if self.clock.passes("evaluation", evaluation.every):
            self.experiment.learner.require_finite()
            self.evaluations.request(self.clock.env_steps)
        if self.evaluations.waiting:
            self.note_evaluations()
        self.best.tick()
        save = self.clock.passes("checkpoint", run.checkpoint_every)
        self.experiment.source.settle(save)
        if save:
            self.save()
        else:
            self.checkpointer.tick()

    def note_evaluations(self, patient: bool = False) -> None:
        """Write down what evaluations have found since the last call; ``patient``, all of them."""
        judged = iter(self.evaluations.take(patient))
        while not self.clock.interrupted:
            try:
                self.clock.breakable = True
                candidate = next(judged, None)
            except InterruptedRunError:  # what is not judged yet waits in the checkpoint
                break
            finally:
                self.clock.breakable = False
            if candidate is None:
                break
            self._note(candidate)

    def _note(self, judged: Candidate) -> None:
        episodes = judged.episodes or []
        self.last = fmean(episode.value for episode in episodes)
        self.log.evaluation(judged.env_steps, episodes)
        self._say_if_cut(episodes)
        facts = {"env_steps": judged.env_steps, "episodes": len(episodes)}
        self.best.offer(self.last, judged.weights, facts)
        target = self.experiment.target
        if self.experiment.evaluation.stop_at_target and target and self.last >= target.return_:
            self.clock.stop = self.clock.stop or "target reached"

    def evaluate(
        self, episodes: int, purpose: str, weights: Mapping[str, Tensor] | None = None
    ) -> list[Episode]:
        """Play episodes that depend on the weights, the run's seed and the purpose alone.

        Args:
            episodes: how many.
            purpose: names their random streams.
            weights: of the whole agent, which keeps them; left out, the last policy of the run,
                averaged as `evaluation.average_over` says.
        """
        experiment = self.experiment
        if weights is not None:
            experiment.agent.load_state_dict(weights)
        with nullcontext() if weights is not None else experiment.learner.as_evaluated():
            played = evaluate(
                experiment.agent,
                partial(experiment.environment.judging().vector, max_steps=self.max_steps),
                episodes,
                derived_seed(experiment.run.seed, purpose),
                experiment.learner.device,
                max_steps=self.max_steps,
                most_envs=experiment.evaluation.envs,
            )
        self._say_if_cut(played)
        return played

    def _say_if_cut(self, episodes: list[Episode]) -> None:
        if cut := on_cut(episodes, self.max_steps):
            self.view.say(cut)

    def _after_mending(self, error: CoachError) -> str:
        trust = flag(self.experiment.plain, self._plugins)
        again = command("coach", "train", self.folder, "--resume", *trust)
        return f"{error.remedy} What was learned until then is kept: {again}"

    def _save_what_is_good(self) -> None:
        """Write a checkpoint, unless others are in the middle of an update or weights are bad."""
        if self.experiment.source.fragile:
            return
        with suppress(NotFiniteError):
            self.save(whole=not self.clock.collecting)

    def _save_last(self, whole: bool = True) -> None:
        if self.clock.interrupted:
            given_up = "" if whole else "; the unfinished episodes are given up"
            self.view.say(f"{self.clock.stop}: writing a checkpoint{given_up}")
        self.save(whole)

    def _say_what_is_kept(self, why: str) -> None:
        self.view.say(f"{self.clock.stop}: {why}, so the last checkpoint before is kept.")

    def save(self, whole: bool = True) -> None:
        """Write a checkpoint; not ``whole`` leaves out a fragment that was broken off.

        Raises:
            NotFiniteError: the weights are not finite; earlier checkpoints stay.
        """
        self.experiment.learner.require_finite()
        self.best.flush()
        self.log.board.flush()
        state = self.state_dict(whole)
        self.checkpointer.save(self.clock.env_steps, state, self.experiment.source.journals())

    def state_dict(self, whole: bool = True) -> dict[str, Any]:
        """What a checkpoint holds beside the rows of the replay; without ``whole`` as in `save`."""
        experiment, source = self.experiment, self.experiment.source
        acting = source.state_dict() if whole else source.given_up(self.clock.env_steps)
        state: dict[str, Any] = {"best": self.best.value, "last": self.last}
        for name, saved in (
            ("learner", experiment.learner.state_dict()),
            ("memory", experiment.memory.state_dict()),
            ("source", acting),
            ("log", self.log.state_dict()),
            ("evaluations", self.evaluations.state_dict()),
        ):
            state |= prefixed(f"{name}/", saved)
        return state

    def _load(self, found: Found, skip_episodes: int) -> None:
        """Restore a checkpoint.

        Raises:
            CheckpointError: its state does not fit the settings, or something is missing from it.
        """
        try:
            found.state = _without_episodes(found.state, skip_episodes)
            self._restore(found)
        except CoachError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CheckpointError(
                f"The checkpoint of {self.folder} at step {found.manifest['env_steps']:,} does not "
                f"fit the settings: {type(error).__name__}: {str(error).strip()}",
                "Were settings, a plugin or the environment changed? Restore them, or train anew.",
            ) from error

    def _restore(self, found: Found) -> None:
        experiment, state, journal = self.experiment, found.state, self.checkpointer.journal
        self.best.value, self.last = state["best"], state["last"]
        if not fits(experiment.agent.rng, state["learner/rng"]):
            self.view.say(
                f"The checkpoint comes from another type of device than {experiment.learner.device}"
                ", so the agent's random streams begin anew there."
            )
        experiment.learner.load_state_dict(under("learner/", state))
        if not isinstance(experiment.learner.version, int):
            raise TypeError("the number of updates is no number")
        journal.take_over(found.manifest["journal"], found.manifest["saved"])
        journal.restore(experiment.memory, under("memory/", state), self.warn)
        source_state = under("source/", state)
        experiment.source.load_state_dict(source_state, experiment.run.restore_environments)
        experiment.source.publish(experiment.agent.policy, experiment.learner.version)
        self.log.load_state_dict(under("log/", state), self.warn)
        if experiment.evaluation.every:  # no more evaluations, not even those that wait
            self.evaluations.load_state_dict(under("evaluations/", state))

    def _finish(self, seconds: float) -> None:
        results = {"env_steps": self.clock.env_steps, "seconds": seconds}
        scores = {"hparam/best_return": self.best.value, "hparam/last_return": self.last}
        known = {name: value for name, value in scores.items() if value is not None}
        if known:
            self.log.board.hparams(self.experiment.plain, known)
        self.log.close()
        facts = {**results, "stopped": self.clock.stop, "last": self.last, "best": self.best.value}
        write_result(self.folder, facts)


def start(
    name: str,
    settings: dict[str, Any],
    root: Path,
    console: Console,
    plugins: list[str],
    quiet: bool = False,
    listener: Listener | None = None,
) -> Run:
    """A new run of a preset, in a new folder under ``root``."""
    root = root.absolute()  # an environment may change the working directory
    experiment = build_experiment(settings, plugins, _teller(console))
    folder = run_folder.create(root, name, experiment.run.seed, experiment.plain, plugins)
    lock = RunLock(folder)
    try:
        return Run(experiment, folder, console, lock, None, quiet, plugins, listener)
    except BaseException as error:
        lock.release()
        if isinstance(error, InterruptedRunError):
            shutil.rmtree(folder, ignore_errors=True)  # there is nothing in it to go on from
        raise


def carry_through(run: Run, plugins: list[str]) -> tuple[Run, Result]:
    """Train to the end; where a worker was lost that the others need, from the last checkpoint on.

    Returns:
        The run that came to the end, and its result.

    Raises:
        WorkerError: workers failed more often than ``run.max_restarts``.
    """
    restarts, most = 0, run.experiment.run.max_restarts
    while True:
        try:
            return run, run.train()
        except LostPartnerError as error:
            restarts += 1
            if restarts > most:
                raise WorkerError(
                    f"A worker was lost, and {most} restarts are used up: {error.problem}",
                    "Mend what fails, or raise run.max_restarts; continue from the last checkpoint "
                    "with --resume.",
                ) from error
            run.view.say(
                "A worker failed, so all go back to the last checkpoint and on with fresh episodes "
                f"({restarts} of at most {most} restarts): {error.problem}"
            )
            before, settings = run, copy.deepcopy(run.experiment.plain)
            settings["run"]["restore_environments"] = False
            console, quiet, listener = before.view.console, before.view.quiet, before.view.listener
            # From one checkpoint the same episodes would follow each time, and what made them fail.
            run = resume(
                before.folder, settings, console, plugins, quiet, restarts - 1, listener, once=True
            )
            if before.profile is not None:
                run.watch(before.profile)


def resume(
    folder: Path,
    settings: dict[str, Any],
    console: Console,
    plugins: list[str],
    quiet: bool = False,
    skip_episodes: int = 0,
    listener: Listener | None = None,
    **options: bool,
) -> Run:
    """Continue the run in ``folder`` from its newest whole checkpoint.

    What cannot change in a run is refused before anything is loaded; what has changed is written to
    the run once its state is there.

    Args:
        folder: of the run.
        settings: that it goes on with.
        console: where progress is shown.
        plugins: that it goes on with.
        quiet: show no progress.
        skip_episodes: leave out so many episodes of every environment, if fresh ones begin.
        listener: called with the run's progress.
        options: ``accept_edits``, ``once`` and ``finished``, see `Resumption`.

    Raises:
        LockedRunError: another process trains in the folder.
        SettingError: a setting has changed that cannot.
        CheckpointError: there is no whole checkpoint, or it does not fit.
    """
    warn, folder = _teller(console), folder.absolute()
    if not run_folder.is_run(folder):
        run_folder.read(folder)  # says why
    lock = RunLock(folder)
    try:
        resumption = Resumption(folder, settings, plugins, warn, skip_episodes, **options)
        experiment = build_experiment(settings, plugins, warn)
        return Run(experiment, folder, console, lock, resumption, quiet, plugins, listener)
    except BaseException:
        lock.release()
        raise


def _lies_in(folder: Path, name: Any) -> bool:
    return isinstance(name, str) and Path(name).absolute().is_relative_to(folder.absolute())


def _without_episodes(state: dict[str, Any], skipped: int) -> dict[str, Any]:
    return {
        key: [number + skipped for number in value]
        if key.startswith("source/") and key.split("/")[-1] in ("episode", "envs.episode")
        else value
        for key, value in state.items()
    }


def _teller(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)
