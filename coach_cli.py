"""The command line: parse, hand over to runners, say clearly what went wrong.

torch and everything that needs it is imported inside the commands, so that help and lists answer
at once.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

app = typer.Typer(
    help="Deep reinforcement learning from composable parts: one YAML preset, every scale.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console()
errors = Console(stderr=True)

PresetArgument = Annotated[
    str, typer.Argument(metavar="PRESET", help="Name, YAML file, or a run's folder with --resume.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a setting; may be repeated."),
]
PluginOption = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="FILE.py|MODULE", help="Import your own parts; repeatable."),
]
RunDirOption = Annotated[
    Path, typer.Option("--run-dir", help="Where run folders are made.", envvar="COACH_RUN_DIR")
]
ModeOption = Annotated[str | None, typer.Option(help="single, sync or async.")]
WorkersOption = Annotated[
    int | None, typer.Option(help="Workers that share the environments (sync, async).")
]
ExchangeOption = Annotated[
    str | None, typer.Option(help="What workers hand over: experience or gradients.")
]
TrustOption = Annotated[
    bool,
    typer.Option("--trust", help="Import plugins and other code that the run folder names."),
]
KindOption = Annotated[str | None, typer.Option("--worker-kind", help="auto, process or thread.")]
RUNS = Path("runs")


def _print_versions(wanted: bool) -> None:
    if wanted:
        from coach.core.versions import versions

        for name, number in versions().items():
            console.print(f"{name} {number}", highlight=False, soft_wrap=True)
        raise typer.Exit


@app.callback()
def before_every_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the versions of Coach and of what it runs on.",
            callback=_print_versions,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Nothing to do but the options that come before a command."""


@app.command("list")
def list_parts(
    kind: Annotated[
        str | None, typer.Argument(help="presets, agents, heads, memories, ... or nothing for all.")
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """List presets and parts."""
    from coach.core.registry import load_entry_points
    from coach.runners import catalog

    _load_plugins(plugin)
    load_entry_points()
    catalog.print_list(console, catalog.kind_of(kind) if kind else None)


@app.command()
def describe(
    kind: Annotated[
        str,
        typer.Argument(
            help="agent, head, memory, preset, ...; or a section: run, evaluation, target, "
            "environment, network."
        ),
    ],
    name: Annotated[
        str | None, typer.Argument(help="A name from `coach list`, or a setting of the section.")
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Show the purpose, settings, defaults and source of a part, or a section's settings."""
    from coach.runners import catalog

    _load_plugins(plugin)
    catalog.describe(console, kind, name)


@app.command()
def train(
    preset: PresetArgument,
    set_: SetOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything.")] = None,
    steps: Annotated[int | None, typer.Option(help="Environment steps of the run.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    mode: ModeOption = None,
    exchange: ExchangeOption = None,
    workers: WorkersOption = None,
    worker_kind: KindOption = None,
    plugin: PluginOption = None,
    run_dir: RunDirOption = RUNS,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the preset's newest run, or the given folder."),
    ] = False,
    stop_at_target: Annotated[
        bool,
        typer.Option(
            "--stop-at-target",
            help="End at the preset's target; the exit status says if it was met.",
        ),
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Print where the time went, at the end.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show only the result.")] = False,
    trust: TrustOption = False,
    accept_edits: Annotated[
        bool,
        typer.Option("--accept-edits", help="Resume with what you have edited in preset.yaml."),
    ] = False,
) -> None:
    """Train a preset; everything it produces goes to a folder of its own."""
    from coach.runners import folder as run_folder
    from coach.runners import preset as presets
    from coach.runners import training
    from coach.runners.resuming import FinishedRunError
    from coach.telemetry.profile import Profile

    plugins = _load_plugins(plugin)
    placed = _placement(mode, exchange, workers, worker_kind, device)
    overrides = _overrides(set_, seed=seed, steps=steps, **placed)
    if stop_at_target:
        overrides.append("evaluation.stop_at_target=true")
    given = Path(preset)
    if resume:
        folder = given if given.is_dir() else run_folder.latest(run_dir, _stem(preset), seed)
        settings, known = _open_run(folder, overrides, plugins, trust, accept_edits)
        try:
            run = training.resume(
                folder, settings, console, known, quiet, accept_edits=accept_edits, finished=False
            )
        except FinishedRunError as error:
            _say(error.args[0])
            return
    else:
        _refuse_resume_flags(trust, accept_edits)
        _refuse_run_folder(given)
        with presets.blaming(preset, overrides):
            name, settings = presets.load(preset, overrides)
            _refuse_idle_flags(settings, exchange, worker_kind)
            known = plugins
            run = training.start(name, settings, run_dir, console, known, quiet)
    if profile:
        run.watch(Profile())
    run, result = training.carry_through(run, known)
    trusting = _trust_flag(run.experiment.plain, known)
    _print_result(result, run.experiment.target, trusting)
    if run.profile is not None:
        run.profile.print(console, run.experiment.source.elsewhere())
        for recorder in run.experiment.learner.recorders:
            for name, why in recorder.refused.items():
                _say(f"Not recorded: {name}, because {why}.")
    if result.stopped.startswith("interrupted"):
        _say(f"Continue with: {_command('train', result.folder, '--resume', *trusting)}")
        raise typer.Exit(128 + signal.Signals[result.stopped.split()[-1]])
    if stop_at_target and result.stopped != "target reached":
        raise typer.Exit(1)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to play.")] = 20,
    video: Annotated[bool, typer.Option("--video", help="Record the first episode.")] = False,
    last: Annotated[
        bool, typer.Option("--last", help="Play the newest checkpoint, not the best policy.")
    ] = False,
    set_: SetOption = None,
    plugin: PluginOption = None,
    trust: TrustOption = False,
) -> None:
    """Play a run's best policy without exploring and print its returns."""
    from coach.core.places import short
    from coach.runners import folder as run_folder
    from coach.runners.replaying import evaluate_run

    settings, _ = _open_run(run, set_ or [], _load_plugins(plugin), trust)
    difference = run_folder.edits(run, run_folder.read(run))
    if difference:
        _say(f"{difference} The settings in run.json are used.")
    played, policy = evaluate_run(run, settings, episodes, _say, last, video)
    _print_episodes(played, policy)
    if video:
        _say(f"Video: {short(run / 'videos')}")


@app.command()
def verify(
    preset: PresetArgument,
    seeds: Annotated[int | None, typer.Option(min=1, help="Default: the preset's.")] = None,
    first_seed: Annotated[
        int | None, typer.Option(min=0, help="The seeds follow from it; default: the preset's.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Seeds trained side by side.")] = 1,
    set_: SetOption = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    mode: ModeOption = None,
    exchange: ExchangeOption = None,
    workers: WorkersOption = None,
    worker_kind: KindOption = None,
    plugin: PluginOption = None,
    run_dir: RunDirOption = RUNS,
    record: Annotated[
        Path | None, typer.Option(help="JSON file to add the result to, see docs/results.md.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with runs that had the same settings.")
    ] = False,
) -> None:
    """Train a preset for several seeds and compare with its target."""
    from coach.runners import preset as presets
    from coach.runners import verify as verification
    from coach.runners.trials import InterruptedTrialError

    if record is not None:
        verification.read_records(record)  # refused now rather than after hours
    plugins = _load_plugins(plugin)
    overrides = _overrides(set_, **_placement(mode, exchange, workers, worker_kind, device))
    with presets.blaming(preset, overrides):
        name, settings = presets.load(preset, overrides)
        _refuse_idle_flags(settings, exchange, worker_kind)
        try:
            verdict = verification.verify(
                name, settings, run_dir, seeds, jobs, plugins, resume, first_seed, console
            )
        except InterruptedTrialError as error:
            errors.print(error.args[0], markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(128 + signal.Signals[error.stopped.split()[-1]]) from None
    verification.print_verdict(console, verdict)
    if record is not None:
        verification.record(verdict, settings, record)
    if not verdict.passed:
        raise typer.Exit(1)


def main() -> NoReturn:
    """Entry point: errors meant for a person are printed without a traceback."""
    from coach.core.errors import CoachError, InterruptedRunError
    from coach.core.places import typed_here
    from coach.runners.interrupts import ended_at_once
    from coach.telemetry.streams import survive_closed_output

    survive_closed_output()
    try:
        with typed_here(), ended_at_once():
            app(prog_name="coach")
    except CoachError as error:
        errors.print("[bold red]Error:[/bold red] ", end="")
        errors.print(error.args[0], markup=False, highlight=False, soft_wrap=True)
        _leave(error.exit_status)
    except InterruptedRunError as error:
        name = signal.Signals(error.number).name
        errors.print(f"Interrupted by {name}; there was nothing to save.", highlight=False)
        _leave(128 + error.number)
    except SystemExit as end:
        _leave(end.code)
    _leave(0)


def _leave(status: str | int | None) -> NoReturn:
    """End this process, whatever environments have left running."""
    if "coach.runners.process" in sys.modules:  # of commands that make environments
        from coach.runners.process import end_leftovers

        if end_leftovers(lambda text: errors.print(text, highlight=False)):
            atexit._run_exitfuncs()  # os._exit would leave them out
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status if isinstance(status, int) else 0 if status is None else 1)
    sys.exit(status)


def _placement(
    mode: str | None,
    exchange: str | None,
    workers: int | None,
    worker_kind: str | None,
    device: str | None,
) -> dict[str, Any]:
    placed: dict[str, Any] = {"mode": mode, "exchange": exchange, "worker_kind": worker_kind}
    if mode is not None and workers is None:
        placed["workers"] = "null"  # how many a preset wants belongs to the mode it names
    else:
        placed["workers"] = workers
    return {**placed, "device": device}


def _refuse_idle_flags(
    settings: dict[str, Any], exchange: str | None, worker_kind: str | None
) -> None:
    from coach.core.errors import SettingError

    run = settings.get("run") or {}
    for flag, value in (("exchange", exchange), ("worker-kind", worker_kind)):
        if value is not None and run.get("mode", "single") == "single":
            raise SettingError(
                f"--{flag}",
                f"{value} means nothing in mode single, which has no workers",
                "Add --mode sync or --mode async.",
            )


def _overrides(set_: list[str] | None, **run: Any) -> list[str]:
    flags = [f"run.{key}={value}" for key, value in run.items() if value is not None]
    return [*(set_ or []), *flags]


def _load_plugins(plugins: list[str] | None) -> list[str]:
    from coach.core.registry import load_plugin

    for plugin in plugins or []:
        load_plugin(plugin)
    # Kept with the run, so that resume and evaluate find them from anywhere.
    return [str(Path(p).expanduser().resolve()) if p.endswith(".py") else p for p in plugins or []]


def _open_run(
    folder: Path, overrides: list[str], plugins: list[str], trust: bool, edited: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Settings and plugins of a run; code that it names is imported only if that is asked for."""
    from coach.core.errors import CoachError
    from coach.runners import folder as run_folder
    from coach.runners import preset as presets
    from coach.runners.trust import require_trust, with_plugins, with_references

    record = run_folder.read(folder)
    settings = run_folder.edited_settings(folder) if edited else record.settings
    settings = presets.override(with_references(settings, plugins), overrides)
    if not trust and (edited or not record.own):
        asked = presets.override({}, overrides)
        require_trust(folder, settings, record.plugins, plugins, asked, _command(*sys.argv[1:]))
    known = with_plugins(record.plugins, plugins)
    for plugin in known:
        if plugin.endswith(".py") and not Path(plugin).is_file():
            name = Path(plugin).name
            raise CoachError(
                f"The plugin {plugin} of {folder} is not there any more.",
                f"Say where it is now: {_command(*sys.argv[1:], '--plugin', f'NEW/PATH/{name}')}",
            )
    _load_plugins(known)
    return settings, known


def _trust_flag(settings: dict[str, Any], plugins: list[str]) -> list[str]:
    """What a command needs in addition to use a run with these settings."""
    from coach.runners.trust import flag

    return flag(settings, plugins)


def _refuse_resume_flags(trust: bool, accept_edits: bool) -> None:
    from coach.core.errors import SettingError

    for flag, given in (("--trust", trust), ("--accept-edits", accept_edits)):
        if given:
            raise SettingError(flag, "it means nothing without --resume", "Leave it out.")


def _stem(preset: str) -> str:
    """Name of the runs' folder for a preset's name or file."""
    path = Path(preset)
    return path.stem if path.suffix in (".yaml", ".yml") else path.name


def _command(*words: object) -> str:
    """A command of ours that can be pasted into a shell."""
    from coach.runners.trust import command

    return command("coach", *words)


def _say(text: str) -> None:
    """Print a line as it is: brackets in paths are no markup, and nothing is cut into lines."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _refuse_run_folder(path: Path) -> None:
    from coach.core.errors import CoachError

    if path.is_dir():
        raise CoachError(
            f"{path} is a folder.",
            f"To continue that run: {_command('train', path, '--resume')}\n"
            f"To train its preset anew: {_command('train', path / 'preset.yaml')}",
        )


def _print_result(result: Any, target: Any, trusting: list[str]) -> None:
    from coach.core.places import short
    from coach.runners.trust import command
    from coach.telemetry.console import number
    from rich.table import Table

    table = Table(title="Result", title_justify="left", show_header=False)
    table.add_column(style="cyan")
    table.add_column(justify="right")
    table.add_row("environment steps", f"{result.env_steps:,}")
    table.add_row("wall time", f"{result.seconds:.1f} s")
    if result.evaluation is not None:
        table.add_row("last evaluation", number(result.evaluation))
        table.add_row("best evaluation", number(result.best))
    if target is not None and result.best is not None:
        met = result.best >= target.return_
        mark = "[green]reached[/green]" if met else "[red]not reached[/red]"
        table.add_row("target", f"{target.return_:g} {mark}")
    if result.stopped:
        table.add_row("ended early", result.stopped)
    console.print(table)
    logs = command("tensorboard", "--logdir", result.folder.parent.parent)
    _say(f"Run folder:  {short(result.folder)}")
    _say(f"Watch:       {logs}")
    _say(f"Play:        {_command('evaluate', result.folder, *trusting)}")


def _print_episodes(episodes: list[Any], policy: dict[str, Any]) -> None:
    import numpy as np
    from coach.telemetry.console import number
    from rich.table import Table

    returns = np.array([episode.value for episode in episodes])
    lengths = np.array([episode.length for episode in episodes])
    table = Table(title=f"Policy of environment step {policy['env_steps']:,}", title_justify="left")
    for column in ("episodes", "mean return", "deviation", "lowest", "highest", "mean length"):
        table.add_column(column, justify="right")
    table.add_row(
        str(len(episodes)),
        *(number(value) for value in (returns.mean(), returns.std(), returns.min(), returns.max())),
        f"{lengths.mean():.1f}",
    )
    console.print(table)


if __name__ == "__main__":
    main()
