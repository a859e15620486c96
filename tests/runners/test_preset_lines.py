"""Mistakes in a preset's file are found, with the line and column where they stand."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from coach.core.errors import CoachError, SettingError
from coach.runners.experiment import build_experiment
from coach.runners.preset import blaming, load, override

GOOD = """\
environment:
  id: CartPole-v1
agent:
  type: dqn
  network:
    embedder: {type: mlp, hidden: [8]}
    heads: {q: q}
memory: {type: replay, capacity: 500, batch_size: 16, warmup: 20}
run:
  steps: 100
  seed: 3
"""


def said_of(text: str, tmp_path: Path, *overrides: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(textwrap.dedent(text))
    with pytest.raises(CoachError) as caught, blaming(str(path), overrides):
        build_experiment(load(str(path), overrides)[1])
    return str(caught.value)


def test_the_preset_of_these_tests_is_right(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    build_experiment(load(str(tmp_path / "good.yaml"))[1]).source.close()


@pytest.mark.parametrize(
    ("before", "after", "where", "first"),
    [
        ("  seed: 3\n", "  seed: 3\n  steps: 100\n", "12:3", "line 10, column 3"),
        ("heads: {q: q}", "heads: {q: q, 'q': dueling_q}", "7:19", "line 7, column 13"),
        ("run:\n", "agent: ppo\nrun:\n", "9:1", "line 3, column 1"),
        ("capacity: 500,", "capacity: 500, type: replay,", "8:39", "line 8, column 10"),
    ],
)
def test_a_key_that_stands_twice_is_refused(
    before: str, after: str, where: str, first: str, tmp_path: Path
) -> None:
    said = said_of(GOOD.replace(before, after), tmp_path)
    assert f"mine.yaml:{where}: the key" in said
    assert first in said


def test_a_key_that_stands_twice_in_an_override_is_refused() -> None:
    with pytest.raises(SettingError, match="'hidden' stands here for the second time"):
        override({}, ["agent.network.embedder={type: mlp, hidden: [4], hidden: [5]}"])


def test_merged_mappings_may_be_changed(tmp_path: Path) -> None:
    text = GOOD.replace("    heads: {q: q}", "    heads: {q: &q {type: q}}").replace(
        "memory:", "about: &a text\nmemory:"
    )
    text = text.replace("{type: mlp, hidden: [8]}", "{<<: {type: mlp, hidden: [8]}, hidden: [9]}")
    (tmp_path / "merged.yaml").write_text(text)
    _, settings = load(str(tmp_path / "merged.yaml"))
    assert settings["agent"]["network"]["embedder"] == {"type": "mlp", "hidden": [9]}


@pytest.mark.parametrize(
    ("before", "after", "where"),
    [
        ("  seed: 3\n", "  sede: 3\n", "11:3: run.sede: unknown key"),
        ("  seed: 3\n", "  seed: soon\n", "11:3: run.seed: "),
        ("hidden: [8]", "hiden: [8]", "6:27: agent.network.embedder.hiden: unknown key"),
        ("heads: {q: q}", "heads: {q: qq}", "7:13: agent.network.heads.q.type: there is no head"),
        ("memory:", "mermory:", "8:1: mermory: unknown section"),
        ("  steps: 100\n", "", "9:1: run.steps: this setting is required"),
        (
            "id: CartPole-v1",
            "id: CartPole-v1\n  wrappers:\n    - Flat",
            "4:7: environment.wrappers",
        ),
    ],
)
def test_mistakes_are_found_where_they_stand(
    before: str, after: str, where: str, tmp_path: Path
) -> None:
    assert said_of(GOOD.replace(before, after), tmp_path).startswith(f"mine.yaml:{where}")


def test_no_line_is_to_blame_for_an_override(tmp_path: Path) -> None:
    assert said_of(GOOD, tmp_path, "run.seed=soon").startswith("mine.yaml: run.seed")
    assert said_of(GOOD, tmp_path, "memory.batch_size=x").startswith("mine.yaml: memory.batch_size")


def test_broken_yaml_has_a_line(tmp_path: Path) -> None:
    said = said_of(GOOD.replace("{type: mlp, hidden: [8]}", "{type: mlp, hidden: [8}"), tmp_path)
    assert "mine.yaml:6:" in said
    assert "no valid YAML" in said
