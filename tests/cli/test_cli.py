"""The command line: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from coach.runners.catalog import _flowing

import coach_cli

SMALL = [
    *("--steps", "300", "--quiet", "--set", "evaluation.every=100"),
    *("--set", "evaluation.episodes=2", "--set", "memory.warmup=100"),
    *("--set", "run.fragment_length=10", "--set", "run.log_every=100"),
]


def coach(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process; returns the exit status."""
    monkeypatch.setattr(sys, "argv", ["coach", *arguments])
    with pytest.raises(SystemExit) as ended:
        coach_cli.main()
    code = ended.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def test_lists_and_help_do_not_import_torch() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['coach', *sys.argv[1:]]\n"
        "import coach_cli\n"
        "try:\n"
        "    coach_cli.main()\n"
        "except SystemExit as ended:\n"
        "    assert not ended.code, ended.code\n"
        "slow = {'torch', 'gymnasium', 'tensorboard'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    for arguments in (["--help"], ["--version"], ["list"], ["list", "agents"], ["train", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True)
        assert done.returncode == 0, done.stderr.decode()


def test_version_is_that_of_the_package_first_and_of_what_it_runs_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert coach(monkeypatch, "--version") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"coach-rl {version('coach-rl')}"
    assert f"torch {version('torch')}" in lines
    assert lines[-1] == f"python {platform.python_version()}"


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("presets", "CartPole_DQN"),
        ("agents", "sac"),
        ("heads", "dueling_q"),
        ("memories", "rollout"),
        ("samplers", "prioritized"),
        ("explorations", "boltzmann"),
        ("schedules", "piecewise"),
        ("environments", "corners"),
    ],
)
def test_list_names_the_parts(
    word: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert coach(monkeypatch, "list", word) == 0
    assert name in capsys.readouterr().out


def test_describe_shows_purpose_settings_and_paper(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert coach(monkeypatch, "describe", "agent", "dqn") == 0
    out = capsys.readouterr().out
    told = ("arXiv:1312.5602", "target_every", "whole number > 0", "1000", "Q_target")
    for words in (*told, "munchausen.alpha"):
        assert words in out


def test_descriptions_flow() -> None:
    text = "One\nparagraph.\n\n    y = x          (1)\n    z = y\nAnother\none:\n- a list\n- of two"
    wanted = "One paragraph.\n\n    y = x   (1)\n    z = y\nAnother one:\n- a list\n- of two"
    assert _flowing(text) == wanted


def test_describe_preset_shows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert coach(monkeypatch, "describe", "preset", "CartPole_DQN") == 0
    assert "id: CartPole-v1" in capsys.readouterr().out


def test_every_part_can_be_described(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from coach.core.registry import KINDS, entries

    for kind in KINDS:
        for entry in entries(kind):
            assert coach(monkeypatch, "describe", kind, entry.name) == 0
            assert entry.name in capsys.readouterr().out


def test_train_evaluate_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert coach(monkeypatch, "train", "CartPole_DQN", *SMALL, "--seed", "5") == 0
    out = capsys.readouterr().out
    assert "environment steps" in out
    assert "tensorboard --logdir runs" in out
    (folder,) = (tmp_path / "runs" / "CartPole_DQN").iterdir()
    assert folder.name.endswith("-seed5")
    assert coach(monkeypatch, "evaluate", str(folder), "--episodes", "2") == 0
    assert "mean return" in capsys.readouterr().out
    assert coach(monkeypatch, "train", "CartPole_DQN", "--resume", "--steps", "400", "--quiet") == 0
    assert "400" in capsys.readouterr().out
    assert coach(monkeypatch, "train", str(folder), "--resume", "--steps", "500", "--quiet") == 0
    assert coach(monkeypatch, "train", str(folder)) == 1
    assert "--resume" in capsys.readouterr().err


def test_exit_status_tells_whether_the_target_was_met(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "CartPole_DQN", *SMALL, "--stop-at-target", "--set"]
    assert coach(monkeypatch, *arguments, "target.return=1") == 0
    assert coach(monkeypatch, *arguments, "target.return=501") == 1


def test_verify_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [part for part in SMALL if part not in ("--quiet", "--steps", "300")]
    arguments = ["verify", "CartPole_DQN", "--seeds", "1", *small]
    arguments += ["--set", "target.within_steps=200", "--set", "target.episodes=2"]
    assert coach(monkeypatch, *arguments, "--set", "target.return=1") == 0
    assert "PASSED" in capsys.readouterr().out
    assert coach(monkeypatch, *arguments, "--set", "target.return=501") == 1
    assert "FAILED" in capsys.readouterr().out


MISTAKES = [
    (["train", "CartPol_DQN"], ["Did you mean 'CartPole_DQN'?"]),
    (["train", "CartPole_DQN", "--set", "agent.doubel=1"], ["agent.doubel", "'double'"]),
    (["train", "CartPole_DQN", "--set", "agent.double=5"], ["CartPole_DQN.yaml: agent.double"]),
    (["train", "CartPole_DQN", "--set", "memory.discount=1.5"], ["memory.discount", "<= 1"]),
    (["train", "CartPole_DQN", "--set", "optimizer.lr=fast"], ["optimizer.lr"]),
    (["train", "CartPole_DQN", "--set", "agent.type=ddqn"], ["'dqn'", "coach list agents"]),
    (["train", "CartPole_DQN", "--set", "enviroment.id=x"], ["'environment'"]),
    (["train", "CartPole_DQN", "--set", "environment.id=Pendulum-v1"], ["Discrete", "sac"]),
    (["train", "Pendulum_SAC", "--set", "environment.id=CartPole-v1"], ["Box", "dqn"]),
    (["train", "CartPole_DQN", "--set", "environment.id=CartPol-v1"], ["'CartPole-v1'"]),
    (["train", "CartPole_DQN", "--set", "environment.id=my.module:Env"], ["my.module"]),
    (["train", "CartPole_DQN", "--set", "memory={type: rollout}"], ["Set memory.type to replay"]),
    (["train", "CartPole_DQN", "--set", "memory.capacity=9999999999"], ["GiB", "memory.capacity"]),
    (["train", "CartPole_PPO", "--set", "agent.exploration=greedyy"], ["'greedy'"]),
    (["train", "CartPole_PPO", "--set", "agent.exploration=boltzmann"], ["distribution"]),
    (["train", "CartPole_DQN", "--set", "agent.network.heads={x: q}"], ["a head called 'q'"]),
    (["train", "CartPole_DQN", "--set", "agent.network.heads.q=value"], ["provides value"]),
    (["train", "CartPole_DQN", "--set", "run.mode=singel"], ["run.mode", "'single'"]),
    (["train", "CartPole_DQN", "--set", "nonsense"], ["key.path=value"]),
    (["train", "CartPole_DQN", "--set", "run.device=gpu"], ["run.device", "--device"]),
    (["train", "CartPole_DQN", "--plugin", "nowhere.py"], ["nowhere.py"]),
    (["train", "CartPole_DQN", "--resume"], ["no run of CartPole_DQN"]),
    (["train", "nowhere.yaml"], ["no preset file"]),
    (["evaluate", "."], ["no run folder"]),
    (["list", "agnets"], ["'agents'"]),
    (["describe", "agent", "dqm"], ["'dqn'"]),
    (["verify", "CartPole_DQN", "--set", "target=null"], ["no pass mark"]),
    (["train", "CartPole_DQN", "--exchange", "gradients"], ["--exchange: gradients means nothing"]),
    (
        ["train", "CartPole_DQN", "--worker-kind", "process"],
        ["--worker-kind: process means nothing"],
    ),
    (["verify", "CartPole_DQN", "--exchange", "gradients"], ["Add --mode sync or --mode async"]),
    (["train", "CartPole_DQN", "--mode", "sinc"], ["run.mode"]),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=lambda value: " ".join(value))
def test_mistakes_are_explained(
    arguments: list[str],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert coach(monkeypatch, *arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("Error: ")
    assert "Traceback" not in err
    for word in words:
        assert word in err
    assert not (tmp_path / "runs").exists(), "a run folder was made for a run that cannot start"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1, 2", "no valid YAML"),
        ("- a list", "is no preset"),
        ("environment: {id: CartPole-v1}", "this section is required"),
        ("agent: !!python/object/apply:os.system ['touch hacked']", "no valid YAML"),
    ],
)
def test_bad_preset_files_are_explained_and_run_nothing(
    text: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert coach(monkeypatch, "train", "mine.yaml") == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "hacked").exists()


def test_run_folder_that_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert coach(monkeypatch, "train", "CartPole_DQN", "--run-dir", "file/runs") == 1
    assert "--run-dir" in capsys.readouterr().err


def test_plain_lines_when_output_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [part for part in SMALL if part != "--quiet"]
    assert coach(monkeypatch, "train", "CartPole_DQN", *arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith("Run folder: runs/CartPole_DQN/")
    assert "100 / 300 steps" in out
    assert "\x1b" not in out


def test_module_and_script_are_the_same() -> None:
    root = Path(coach_cli.__file__)
    for command in ([sys.executable, str(root)], [sys.executable, "-m", "coach_cli"]):
        done = subprocess.run([*command, "list", "agents"], capture_output=True, text=True)
        assert done.returncode == 0
        assert "ppo" in done.stdout


def test_a_preset_changes_its_mode_by_a_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own number of workers, and what they exchange, go with the mode that it names."""
    Path("two.yaml").write_text(
        "environment: {id: CartPole-v1}\n"
        "agent: dqn\n"
        "memory: {type: replay, warmup: 100}\n"
        "run: {steps: 200, envs: 2, mode: async, exchange: gradients, workers: 2}\n"
        "evaluation: {every: 0}\n"
    )
    assert coach(monkeypatch, "train", "two.yaml", "--mode", "single", "--quiet") == 0
    run = next(Path("runs").glob("two/*"))
    assert "mode: single" in (run / "preset.yaml").read_text()
    assert coach(monkeypatch, "train", str(run), "--resume", "--steps", "300", "--quiet") == 0
    capsys.readouterr()
    assert coach(monkeypatch, "evaluate", str(run), "--last", "--episodes", "2") == 0
    assert "environment step 300" in capsys.readouterr().out


def test_profile_says_where_the_time_went(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert coach(monkeypatch, "train", "CartPole_DQN", *SMALL, "--profile") == 0
    told = capsys.readouterr().out
    for words in ("Where the time went", "acting", "objective temporal_difference", "evaluation"):
        assert words in told


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["run"], ["section run", "worker_timeout", "checkpoint_every", "whole number > 0"]),
        (["evaluation"], ["section evaluation", "stop_at_target", "background"]),
        (["target"], ["section target", "within_steps", "published"]),
        (["environment"], ["section environment", "max_episode_steps", "evaluation_kwargs"]),
        (["environment", "dials"], ["environment dials", "positions"]),
        (["network"], ["section agent.network", "normalize_rewards", "share_trunk"]),
        (["run", "seed"], ["of everything"]),
        (["samplers"], ["prioritized", "coach describe sampler NAME"]),
        (["r2d2"], ["agent r2d2", "rescaling"]),
        (["Pendulum_NAF"], ["id: Pendulum-v1"]),
    ],
)
def test_sections_and_names_can_be_described(
    words: list[str],
    shown: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert coach(monkeypatch, "describe", *words) == 0
    out = capsys.readouterr().out
    for word in shown:
        assert word in out


def test_every_setting_of_a_section_is_described_in_words() -> None:
    from coach.core.hints import SECTIONS, section_class
    from coach.core.schema import parameters
    from coach.runners.catalog import _docstring

    for section in SECTIONS:
        cls = section_class(section)
        assert set(parameters(cls)) == set(_docstring(cls)[1]), section


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["run", "n_envs"], "run.envs"),
        (["evaluation", "episods"], "'episodes'"),
        (["runs"], "'run'"),
        (["Pendulum_nav"], "'Pendulum_NAF'"),
        (["agent", "DQN"], "'dqn'"),
    ],
)
def test_what_cannot_be_described_has_a_hint(
    words: list[str],
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert coach(monkeypatch, "describe", *words) == 1
    assert hint in capsys.readouterr().err
