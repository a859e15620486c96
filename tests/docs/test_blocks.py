"""Every command and code block of README.md, CONTRIBUTING.md and docs/ does what the text says.

Commands are typed as they stand. Training is made short by options behind them, placeholders such
as ``<run>`` are filled in, and what needs an extra may end with the command that installs it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
import yaml
from coach.core.errors import CoachError
from coach.runners import folder as run_folder
from coach.runners.experiment import build_experiment
from coach.runners.preset import SECTIONS, load, preset_files, read_yaml

import coach_cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:coach|make|pip|pytest|python) [^`\n]+)`")
LANGUAGES = {"sh", "yaml", "python", "toml", "text"}

#: What the pages' own placeholders stand for.
FILLED = {
    "path/to/soft_q.py": "examples/soft_q.py",
    " PRESET": " CartPole_PPO",
    " RUN": " runs/CartPole_DQN/<run>",
    " NAME": " CartPole_DQN",
}
STAND_INS = """
import gymnasium as gym
import numpy as np


class Stand(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (3,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        return self.observation_space.sample(), 1.0, False, self.np_random.random() < 0.1, {}


class Crane(Stand):
    action_space = gym.spaces.Box(-np.inf, np.inf, (2,))


class MyGame(Stand):
    def action_mask(self):
        return np.array([1, 1], np.int8)


class Picture(Stand):
    observation_space = gym.spaces.Box(0, 255, (32, 32, 3), np.uint8)


class Molecule(Stand):
    observation_space = gym.spaces.Graph(gym.spaces.Box(-1, 1, (3,)), None)


class Seeing(Stand):
    observation_space = gym.spaces.Dict(
        image=gym.spaces.Box(0, 255, (32, 32, 3), np.uint8), speed=gym.spaces.Box(-1, 1, (2,))
    )
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(language: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            line = text[: match.start()].count("\n") + 1
            found.append(Block(page, line, match[2], match[3]))
    return [block for block in found if block.language == language]


def commands(text: str) -> list[str]:
    lines = (shlex.join(shlex.split(line, comments=True)) for line in text.splitlines())
    return [line for line in lines if line]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a reader has it: the examples, and files of their own."""
    for example in (ROOT / "examples").iterdir():
        if example.is_file():
            shutil.copy(example, tmp_path)
    (tmp_path / "my_env.py").write_text(STAND_INS)
    (tmp_path / "my_package.py").write_text(STAND_INS)
    (preset,) = [
        b.text for b in blocks("yaml") if b.page.name == "presets.md" and "about:" in b.text
    ]
    (tmp_path / "my_experiment.yaml").write_text(preset)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


Coach = Callable[[list[str]], tuple[int, str]]


def loads_plugins(arguments: list[str]) -> bool:
    """Whether a command names plugins, or a run that does."""
    runs = [Path(word) for word in arguments if run_folder.is_run(Path(word))]
    return "--plugin" in arguments or any(run_folder.read(run).plugins for run in runs)


@pytest.fixture
def coach(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Coach:
    """Runs the command line in this process; gives its exit status and what it said."""

    def run(arguments: list[str]) -> tuple[int, str]:
        if loads_plugins(arguments):  # whose parts must not stay registered here
            process = forked.coach(*arguments, output=Path("printed.txt").absolute())
            return process.wait(), process.printed()
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["coach", *arguments])
        with pytest.raises(SystemExit) as ended:
            coach_cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out + captured.err

    return run


def short(words: list[str]) -> list[str]:
    """Options that make a command of `coach` short, and change nothing else of what is typed."""
    if words[0] == "evaluate":
        return ["--episodes", "2"]
    if words[0] not in ("train", "verify"):
        return []
    more = ["--set", "evaluation.every=200", "--set", "evaluation.episodes=1"]
    if words[0] == "verify":
        more += ["--seeds", "2", "--set", "target.within_steps=300", "--set", "target.episodes=1"]
        more += ["--set", "target.return=0"]  # the pass mark is not what is tested here
    elif "--steps" not in words:
        more += ["--steps", "800" if "--resume" in words else "600"]
    else:
        more += ["--steps", "3_000"]
    files = preset_files()
    run = yaml.safe_load(files[words[1]].read_text())["run"] if words[1] in files else {}
    workers = "--mode" in words or "mode" in run
    gradients = "gradients" in (*words, run.get("exchange"))  # which needs processes
    return more + ["--worker-kind", "thread"] * (workers and not gradients)


def filled(command: str) -> str:
    for name, value in FILLED.items():
        command = command.replace(name, value)
    for preset in re.findall(r"runs/(\w+)/<run>", command):
        (run, *_) = sorted(Path("runs", preset).iterdir(), reverse=True)
        command = command.replace(f"runs/{preset}/<run>", f"runs/{preset}/{run.name}")
    return command


@pytest.mark.parametrize("page", sorted({b.page for b in blocks("sh")}), ids=lambda p: p.name)
def test_commands_work_as_written(page: Path, place: Path, coach: Coach) -> None:
    for block in (block for block in blocks("sh") if block.page == page):
        for command in commands(block.text):
            words = shlex.split(filled(command))
            if words[0] == "coach":
                prepare(words[1:], coach)
                status, said = coach([*words[1:], *short(words[1:])])
                lacks = status == 1 and ("pip install" in said or lacks_device(words, said))
                assert status == 0 or lacks, f"{block}: {command}\n{said}"
            else:
                check_other(words, str(block))


def prepare(words: list[str], coach: Coach) -> None:
    """Train the run of a seed that a command goes on with."""
    if "--resume" in words and "--seed" in words:
        seed = words[words.index("--seed") + 1]
        earlier = ["train", words[1], "--seed", seed]
        status, said = coach([*earlier, *short(earlier)])
        assert status == 0, said


def lacks_device(words: list[str], said: str) -> bool:
    """Whether a command was refused only because this machine has no such accelerator."""
    return (
        "--device" in words
        and not torch.cuda.is_available()
        and f"'{words[words.index('--device') + 1]}' cannot be used here" in said
    )


def check_other(words: list[str], where: str) -> None:
    """Commands of other programs: what they name is there."""
    match words:
        case ["make", target, *_]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), where
        case ["pytest", *rest]:
            options, output = ["--collect-only", "-q", *rest], Path("printed.txt").absolute()
            process = forked.Forked(_pytest, options, output=output, folder=ROOT)
            assert process.wait() == 0, f"{where}\n{process.printed()[-2000:]}"
        case ["pip", "install", *rest]:
            text = (ROOT / "pyproject.toml").read_text()
            for extra in re.findall(r"\[(\w+)\]", " ".join(rest)):
                assert re.search(rf"^{extra} = ", text, re.MULTILINE), where
        case ["python", script, *_]:
            assert (ROOT / script).is_file(), where
        case ["tensorboard", "--logdir", _]:
            assert [e for e in entry_points(group="console_scripts") if e.name == "tensorboard"]
        case _:
            raise AssertionError(f"{where}: nobody has said how to test {shlex.join(words)}")


def _pytest(options: list[str]) -> int:
    return int(pytest.main([*options, "-p", "no:cacheprovider"]))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_within_sentences_are_right(page: Path, place: Path, coach: Coach) -> None:
    (place / "runs/CartPole_DQN/some-run").mkdir(parents=True)
    for command in INLINE.findall(page.read_text(encoding="utf-8")):
        words = shlex.split(filled(command))
        if words[0] != "coach":
            check_other(words, page.name)
        elif words[1] in ("list", "describe") and len(words) > 2:
            status, said = coach(words[1:])
            assert status == 0, f"{page.name}: {command}\n{said}"
        else:  # what stands before --help is parsed, but not run
            status, said = coach([*words[1:], "--help"])
            assert status == 0, f"{page.name}: {command}\n{said}"
            for option in re.findall(r"--[a-z-]+", command):
                assert option in said, f"{page.name}: {command} has no option {option}"


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_yaml_is_a_preset_or_fits_into_one(block: Block, place: Path) -> None:
    for text in block.text.split("\n---\n"):
        found: dict[str, Any] = read_yaml(text, str(block))
        if "environment" in found and "agent" in found:
            (place / "whole.yaml").write_text(text)
            settings = load("whole.yaml")[1]
        else:
            settings = joined(found)
        builds(settings, str(block))


def builds(settings: dict[str, Any], where: str) -> None:
    try:
        build_experiment(settings).source.close()
    except CoachError as error:
        if "pip install" not in error.remedy:
            raise AssertionError(f"{where}\n{error}") from error


def joined(part: dict[str, Any]) -> dict[str, Any]:
    """A preset with some of its sections replaced."""
    if "network" in part:
        settings = load("CartPole_PPO", ["environment.id=my_env.py:Seeing"])[1]
        settings["agent"]["network"] = part["network"]
        return settings
    assert set(part) <= set(SECTIONS), part
    pictures = ["environment.id=my_env.py:Picture"]
    for preset, more in (
        ("CartPole_PPO", []),
        ("Pendulum_PPO", []),
        ("CartPole_DQN", []),
        ("CartPole_DQN", pictures),
    ):
        settings = load(preset, more)[1] | part
        try:
            build_experiment(settings).source.close()
        except CoachError:
            continue
        return settings
    return settings


def test_the_agent_of_the_readme_trains(place: Path) -> None:
    (block,) = [block for block in blocks("python") if block.page.name == "README.md"]
    source = (ROOT / "examples" / "soft_q.py").read_text()
    imports = [line for line in source.splitlines() if line.startswith("from ")]
    (place / "soft_q.py").write_text("\n".join([*imports, "", "", block.text]))
    command = ["train", "soft_q.yaml", "--plugin", "soft_q.py", "--steps", "400"]
    command += ["--set", "evaluation.every=0"]
    process = forked.coach(*command, output=place / "printed.txt")
    assert process.wait() == 0, process.printed()


def test_the_agent_of_the_page_about_own_agents_is_the_example() -> None:
    (block,) = [block for block in blocks("python") if block.page.name == "own-agent.md"]
    assert block.text == (ROOT / "examples" / "soft_q.py").read_text()


def test_the_wrapper_of_the_page_about_environments_serves_a_graph(
    place: Path, coach: Coach
) -> None:
    (block,) = [block for block in blocks("python") if block.page.name == "environments.md"]
    assert '`wrappers: ["my_wrappers.py:Nodes"]`' in block.page.read_text(encoding="utf-8")
    (place / "my_wrappers.py").write_text(block.text)
    typed = ["train", "CartPole_DQN", "--set", "environment.id=my_env.py:Molecule"]
    more = ["--set", 'environment.wrappers=["my_wrappers.py:Nodes"]', "--steps", "200"]
    status, said = coach([*typed, *more, "--set", "evaluation.every=0"])
    assert status == 0, said


def test_no_block_is_left_out() -> None:
    python = sorted(block.page.name for block in blocks("python"))
    tested = ["README.md", "environments.md", "own-agent.md"]
    assert python == tested, "a block of Python that no test runs"
    for page in PAGES:
        for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
            assert match[2] in LANGUAGES, f"{page.name}: a block of '{match[2]}'"


def test_the_remedy_for_too_many_workers_works(coach: Coach, place: Path) -> None:
    typed = ["train", "CartPole_DQN", "--mode", "sync", "--workers", "3"]
    status, said = coach([*typed, *short(typed)])
    assert status == 1
    (remedy,) = re.findall(r"add (--set run\.envs=\d+)", said)
    assert coach([*typed, *remedy.split(), *short(typed)])[0] == 0
