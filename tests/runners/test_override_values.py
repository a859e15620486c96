"""Values on the command line are read as a person writes them: 3e-4 is a number, (a, b) a list."""

from __future__ import annotations

from typing import Any

import pytest
from coach.core.schema import build_part
from coach.runners import preset as presets

SCHEDULE = {"type": "linear", "start": 0.9, "end": 0.1, "steps": 50}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("lr=3e-4", 0.0003),
        ("lr=2E+1", 20.0),
        ("lr=-5.e-2", -0.05),
        ("lr=1e-4x", {"type": "1e-4x"}),  # the name of a schedule, which there is not
        ("betas=(7e-1, 0.95)", [0.7, 0.95]),
        ("betas=[7e-1, 0.95]", [0.7, 0.95]),
        ("betas=(0.7, 0.95,)", [0.7, 0.95]),
        ("lr={type: linear, start: 2e-3}", {"type": "linear", "start": 0.002}),
    ],
)
def test_what_is_written_is_what_is_meant(text: str, value: Any) -> None:
    settings = {"optimizer": {"lr": SCHEDULE, "betas": [0.9, 0.99]}}
    changed = presets.override(settings, [f"optimizer.{text}"])
    assert changed["optimizer"][text.partition("=")[0]] == value
    assert settings["optimizer"]["lr"] is SCHEDULE


def test_numbers_in_lists_of_a_preset_are_numbers() -> None:
    built = build_part("optimizer", {"type": "adam", "betas": ["6e-1", "9.5e-1"]}, "optimizer")
    assert built.plain["betas"] == [0.6, 0.95]
