"""`coach verify`: which seeds, what is judged, recorded and shown."""

from __future__ import annotations

import copy
import io
import json
import runpy
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from coach.core.errors import CoachError
from coach.runners.trials import Trial
from coach.runners.verify import Verdict, interval, record, verify
from coach.telemetry.console import number
from rich.console import Console

import coach_cli


def test_jobs_find_what_one_process_finds(
    tiny_dqn: dict[str, Any], tmp_path: Path, ready_processes: None
) -> None:
    tiny_dqn["target"] = {"return": 9.0, "within_steps": 150, "episodes": 2}
    text = io.StringIO()
    beside = verify(
        *("tiny", copy.deepcopy(tiny_dqn), tmp_path / "jobs"), seeds=3, jobs=2, first_seed=31,
        console=Console(file=text, width=80),
    )  # fmt: skip
    alone = verify("tiny", tiny_dqn, tmp_path / "alone", seeds=3, first_seed=31)
    assert [trial.seed for trial in beside.trials] == [31, 32, 33]
    assert [(t.kept, t.last) for t in beside.trials] == [(t.kept, t.last) for t in alone.trials]
    for trial in beside.trials:
        assert f"seed {trial.seed}: kept {number(fmean(trial.kept))}, last " in text.getvalue()


def test_a_job_that_fails_is_named_with_its_error(tiny_dqn: dict[str, Any], tmp_path: Path) -> None:
    tiny_dqn["target"] = {"return": 9.0}
    tiny_dqn["agent"]["double"] = "perhaps"
    with pytest.raises(CoachError, match=r"Seed 1: agent\.double: .*\n.*true or false"):
        verify("tiny", tiny_dqn, tmp_path, seeds=1, jobs=2)


def verdict(target: float, kept: list[float], last: list[float]) -> Verdict:
    trials = [
        Trial(seed, [best - 1, best + 1], [end - 2, end + 2], 100, 1.0, Path())
        for seed, best, end in zip(range(41, 41 + len(kept)), kept, last)
    ]
    return Verdict("tiny", target, trials)


@pytest.mark.parametrize(
    ("kept", "last", "passed"),
    [
        ([6.0, 4.0], [5.0, 5.0], (True, True)),  # the mean of the kept, each of the last
        ([6.0, 3.0], [5.0, 5.0], (False, True)),
        ([9.0, 9.0], [9.0, 4.0], (True, False)),
        ([5.0] * 10, [5.0] * 9 + [-70.0], (True, True)),
        ([5.0] * 10, [5.0] * 8 + [4.0, 4.0], (True, False)),
    ],
)
def test_kept_and_last_policies_are_judged(
    kept: list[float], last: list[float], passed: tuple[bool, bool]
) -> None:
    found = verdict(5.0, kept, last)
    assert (found.kept_passed, found.last_passed) == passed
    assert found.passed == all(passed)


def test_record_holds_both_policies_of_every_seed(tiny_dqn: dict[str, Any], tmp_path: Path) -> None:
    tiny_dqn["target"] = {"return": 5.0}
    path = tmp_path / "results.json"
    kept, last = [1.0, 8.0, 6.0, 100.0], [1.0, 2.0, 3.0, -50.0]
    record(verdict(5.0, kept, last), tiny_dqn, path)
    entry = json.loads(path.read_text())["tiny"]
    assert entry["seeds"] == [41, 42, 43, 44]
    assert entry["kept"]["means"] == kept
    assert entry["last"]["means"] == last
    assert entry["kept"]["interquartile_mean"] == 7.0  # of 6 and 8: runs count, not episodes
    assert entry["last"]["interquartile_mean"] == 1.5
    assert (entry["kept"]["passed"], entry["last"]["passed"]) == (True, False)


def test_interval_draws_runs() -> None:
    assert interval([3.0, 3.0, 3.0]) == (3.0, 3.0)
    # Both draws hit the lower of two runs in 1 of 4 cases, far more often than 2.5 %.
    assert interval([0.0, 10.0]) == (0.0, 10.0)
    low, high = interval([float(value) for value in range(100)])
    # The standard error of this mean is about 4, and 1.96 of it on either side of 49.5.
    assert 40 < low < 45 < 54 < high < 59


def test_results_table_has_both_policies_and_marks_old_records(
    tiny_dqn: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[2]
    table = runpy.run_path(str(root / "benchmarks" / "results.py"))
    path = tmp_path / "results.json"
    record(verdict(5.0, [8.0, 6.0], [4.0, 7.0]), {**tiny_dqn, "target": {"return": 5.0}}, path)
    (kept, last) = table["_rows"]("tiny", json.loads(path.read_text())["tiny"])
    assert kept[5:10] == ["2 (41 to 42)", "kept", "6", "7 (6 to 8)", "2 of 2"]
    assert last[5:10] == ["", "last", "4", "5.5 (4 to 7)", "1 of 2"]
    old = {
        "agent": "dqn", "environment": "x", "env_steps": 10, "target": 3.0, "means": [3.0, 2.0],
        "last": [1.0, 1.0], "seconds": 2.0, "published": None,
    }  # fmt: skip
    (row,) = table["_rows"]("old", old)
    assert "not verified again" in row
    assert len(row) == len(kept) == len(table["COLUMNS"])


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("results.json", "{", "cannot be read"),
        ("results.json", "[1]", "holds no results"),
        ("nowhere/results.json", None, "there is no folder"),
    ],
)
def test_a_file_that_cannot_take_the_record_is_refused_before_training(
    path: str,
    text: str | None,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if text is not None:
        (tmp_path / path).write_text(text)
    arguments = ["verify", "CartPole_PPO", "--record", str(tmp_path / path)]
    monkeypatch.setattr(sys, "argv", ["coach", *arguments, "--run-dir", str(tmp_path / "runs")])
    with pytest.raises(SystemExit) as ended:
        coach_cli.main()
    assert ended.value.code == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
