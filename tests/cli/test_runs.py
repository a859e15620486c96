"""Runs on the command line: resumed, changed, edited, moved, untrusted, finished."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from coach.runners import folder as run_folder

import coach_cli

Coach = Callable[..., tuple[int, str]]

PRESET = """
environment: {id: CartPole-v1}
agent: {type: dqn, network: {embedder: {type: mlp, hidden: [8]}, heads: {q: q}}}
memory: {type: replay, capacity: 500, warmup: 20, batch_size: 8}
optimizer: {type: adam, lr: 0.0023}
run: {steps: 60, log_every: 20}
evaluation: {every: 30, episodes: 1}
"""
PLUGIN = """
from pathlib import Path
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv
with open(Path(__file__).parent / 'imported.txt', 'a') as file:
    file.write('once\\n')
class World(CartPoleEnv):
    def __init__(self, render_mode=None):
        super().__init__(render_mode=render_mode)
"""


@pytest.fixture
def coach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Coach:
    """Run the command line in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("COACH_RUN_DIR", "my runs [1]")
    Path("tiny.yaml").write_text(PRESET)

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["coach", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            coach_cli.main()
        printed = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), printed.out + printed.err

    return run


@pytest.fixture
def run(coach: Coach) -> Path:
    """A finished run, in a folder with a space and brackets in its path."""
    code, text = coach("train", "tiny.yaml", "--quiet")
    assert code == 0, text
    (folder,) = Path("my runs [1]/tiny").iterdir()
    return folder


def pasted(text: str, words: str) -> list[str]:
    """The arguments of a printed command, as a shell would read them."""
    (line,) = [line for line in text.splitlines() if words in line]
    return shlex.split(line[line.index("coach ") :])[1:]


def forget(plugin: Path) -> None:
    """Import it anew the next time."""
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) == str(plugin):
            del sys.modules[name]


def test_printed_commands_work_where_paths_have_spaces_and_brackets(
    coach: Coach, run: Path
) -> None:
    code, text = coach("train", "tiny.yaml", "--quiet", "--seed", "2")
    assert code == 0
    assert "my runs [1]/tiny/" in pasted(text, "Play:")[1]
    code, text = coach(*pasted(text, "Play:"), "--episodes", "1")
    assert code == 0, text
    code, text = coach("train", run)
    assert code == 1
    code, text = coach(*pasted(text, "continue that run"), "--steps", "80", "--quiet")
    assert code == 0, text


def test_a_finished_run_says_so_and_is_left_alone(coach: Coach, run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    code, text = coach("train", run, "--resume")
    assert code == 0
    assert "is finished: 60 of 60 steps are taken. Nothing was done." in text
    assert "environment steps" not in text, "no result, as if something had been done"
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()} == before
    code, text = coach(*pasted(text, "To train on:"), "--quiet")
    assert code == 0
    assert "120" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "20"], "run.steps: 20 steps are fewer than the 60"),
        (["--seed", "3", "--steps", "90"], "run.seed: it is 1 in the run and cannot become 3"),
        (["--set", "environment.id=Acrobot-v1", "--steps", "90"], "environment.id: it is CartPole"),
        (["--set", "run.envs=2", "--steps", "90"], "run.envs"),
    ],
)
def test_what_cannot_be_resumed_is_said(
    arguments: list[str], words: str, coach: Coach, run: Path
) -> None:
    code, text = coach("train", run, "--resume", *arguments)
    assert code == 1
    assert words in text
    assert "Traceback" not in text


def test_a_damaged_preset_stops_a_resume_and_not_an_evaluation(coach: Coach, run: Path) -> None:
    preset = run / "preset.yaml"
    whole = preset.read_text()
    preset.write_text(whole.replace("0.0023", "8.0023"))
    code, text = coach("train", run, "--resume", "--steps", "80")
    assert code == 1
    assert "is 8.0023, the run has 0.0023" in text
    code, text = coach("evaluate", run, "--episodes", "1")
    assert code == 0
    assert "The settings in run.json are used" in text
    preset.write_text(whole[: len(whole) // 2])
    code, text = coach("train", run, "--resume", "--steps", "80")
    assert code == 1
    remedy = next(line for line in text.splitlines() if "rm " in line)
    (path,) = shlex.split(remedy[remedy.index("rm ") : remedy.index(", and")])[1:]
    Path(path).unlink()
    code, text = coach("train", run, "--resume", "--steps", "80", "--quiet")
    assert code == 0, text
    assert "0.0023" in preset.read_text()


def test_an_edited_preset_is_taken_where_that_is_said(coach: Coach, run: Path) -> None:
    preset = run / "preset.yaml"
    preset.write_text(preset.read_text().replace("0.0023", "0.0041"))
    code, text = coach("train", run, "--resume", "--steps", "80")
    assert code == 1
    command = pasted(text.replace("--accept-edits.", "--accept-edits\n"), "--accept-edits")
    code, text = coach(*command, "--steps", "80", "--quiet")
    assert code == 0, text
    record = run_folder.read(run)
    assert [c["after"] for c in record.changes if "lr" in c["key"]] == [0.0041]
    preset.write_text(preset.read_text().replace("hidden:\n      - 8", "hidden:\n      - 9"))
    assert run_folder.edits(run, record)
    code, text = coach("train", run, "--resume", "--steps", "90", "--accept-edits")
    assert code == 1
    assert "agent.network.embedder.hidden" in text


def test_flags_for_resuming_mean_nothing_without_it(coach: Coach) -> None:
    for flag in ("--trust", "--accept-edits"):
        code, text = coach("train", "tiny.yaml", flag)
        assert code == 1
        assert f"{flag}: it means nothing without --resume" in text


def test_code_that_a_run_names_is_imported_only_if_asked(
    coach: Coach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "first").mkdir()
    plugin = tmp_path / "first" / "world.py"
    plugin.write_text(PLUGIN)
    imported = plugin.parent / "imported.txt"
    begin = ["train", "tiny.yaml", "--quiet", "--plugin", plugin]
    code, text = coach(*begin, "--set", f"environment.id={plugin}:World")
    assert code == 0, text
    code, text = coach(*pasted(text, "Play:"), "--episodes", "1")
    assert code == 0, text  # a run of one's own needs no flag
    (run,) = Path("my runs [1]/tiny").iterdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "somebody else"))
    for arguments in (["evaluate", run], ["train", run, "--resume", "--steps", "80"]):
        forget(plugin)
        imported.unlink(missing_ok=True)
        code, text = coach(*arguments)
        assert code == 1
        assert str(plugin) in text.replace("\n", "")
        assert not imported.exists()
        code, text = coach(*pasted(text, "If you trust"))
        assert code == 0, text
        assert imported.exists()
    # The plugin moves: it is named, and another one of that name takes its place.
    (tmp_path / "second").mkdir()
    moved = Path(shutil.move(plugin, tmp_path / "second" / "world.py"))
    forget(plugin)
    code, text = coach("evaluate", run, "--trust")
    assert code == 1
    assert "is not there any more" in text
    assert "NEW/PATH/world.py" in text
    code, text = coach("evaluate", run, "--plugin", moved, "--episodes", "1")
    assert code == 0, text
    arguments = ["train", run, "--resume", "--steps", "100", "--quiet", "--plugin", moved]
    code, text = coach(*arguments)
    assert code == 0, text
    record = run_folder.read(run)
    assert record.plugins == [str(moved)]
    assert record.settings["environment"]["id"] == f"{moved}:World"
    moved.write_text(PLUGIN + "\nNEW = 1\n")
    forget(moved)
    code, text = coach("train", run, "--resume", "--trust", "--steps", "120", "--quiet")
    assert code == 0
    assert re.search(r"plugin \S*world\.py has changed", text)
