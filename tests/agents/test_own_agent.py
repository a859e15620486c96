"""An agent of one's own, from a folder of one's own: the example of the documentation."""

from __future__ import annotations

import shutil
from pathlib import Path

import forked
import pytest
import torch
from coach.core.batch import Batch
from coach.core.registry import load_plugin
from coach.core.spec import Spec
from gymnasium import spaces

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder outside of the checkout that holds the example and nothing else."""
    for name in ("soft_q.py", "soft_q.yaml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    return tmp_path


def run(folder: Path, *command: str) -> str:
    process = forked.coach(*command, output=folder / "printed.txt", folder=folder)
    assert process.wait() == 0, process.printed()
    return process.printed()


def pytested(folder: Path, *options: str) -> tuple[int, str]:
    command = [*options, "-p", "no:cacheprovider"]
    process = forked.Forked(_pytest, command, output=folder / "printed.txt", folder=folder)
    return process.wait(), process.printed()


def _pytest(command: list[str]) -> int:
    return int(pytest.main(command))


def test_trains_from_anywhere(
    elsewhere: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    preset = ["soft_q.yaml", "--plugin", "soft_q.py", "--steps", "1536", "--quiet"]
    small = ["--set", "evaluation.every=1000", "--set", "evaluation.episodes=1"]
    out = run(elsewhere, "train", *preset, *small, "--set", "agent.temperature=0.1")
    assert "1,536" in out
    (folder,) = (elsewhere / "runs" / "soft_q").iterdir()
    assert "temperature: 0.1" in (folder / "preset.yaml").read_text()
    # The run knows its plugin, from wherever it is asked; a plugin of the same name may replace it.
    play = ["evaluate", str(folder), "--episodes", "1"]
    assert "mean return" in run(tmp_path_factory.mktemp("there"), *play)
    assert "mean return" in run(elsewhere, *play, "--plugin", "soft_q.py")


def test_contract_tests_find_it(elsewhere: Path) -> None:
    parts = ("test_agent_isolation", "test_time_limit_contract", "test_settings_contract")
    files = [str(ROOT / "tests" / "contract" / f"{part}.py") for part in parts]
    status, out = pytested(elsewhere, *files, "--plugin", "soft_q.py", "--co")
    assert status == 0, out
    found = [line for line in out.splitlines() if "soft_q" in line]
    for part in parts:
        assert any(part in line for line in found), part


def test_a_plugin_that_does_not_exist_is_told_without_a_traceback(tmp_path: Path) -> None:
    contract = str(ROOT / "tests" / "contract")
    status, said = pytested(tmp_path, contract, "--plugin", "absent.py")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "absent.py does not exist" in said
    assert "Traceback" not in said


def test_its_target_is_the_softened_maximum() -> None:
    module = load_plugin(str(EXAMPLES / "soft_q.py"))
    agent = module.SoftQ(Spec(spaces.Box(-1, 1, (3,)), spaces.Discrete(2)), temperature=0.5)
    batch = Batch(
        obs=torch.rand(4, 3),
        action=torch.tensor([0, 1, 1, 0]),
        reward=torch.rand(4),
        discount=torch.tensor([0.9, 0.9, 0.0, 0.81]),
        next_obs=torch.rand(4, 3),
        boundary=torch.tensor([False, True, True, False]),
    )
    loss = agent.soft_bellman(batch)
    later = agent.online(batch.next_obs).q.mean.detach()
    soft = 0.5 * (later / 0.5).exp().sum(-1).log()
    now = agent.online(batch.obs).q.mean.gather(1, batch.action[:, None])[:, 0]
    error = now - (batch.reward + batch.discount * soft)
    torch.testing.assert_close(loss.value, error.square())
    torch.testing.assert_close(loss.priority, error.detach().abs())
