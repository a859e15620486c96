"""Nothing that a run folder names is executed or touched without being asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from coach.runners.trust import (
    UntrustedRunError,
    command,
    named_in,
    require_trust,
    same_reference,
    with_plugins,
    with_references,
)

PLAIN: dict[str, Any] = {
    "about": "see https://example.org/a: b",
    "environment": {"id": "ALE/Pong-v5", "kwargs": {"frameskip": 4}, "wrappers": ["ClipReward"]},
    "agent": {"type": "dqn", "network": {"embedder": {"type": "mlp", "hidden": [8, 8]}}},
    "memory": {"type": "replay", "sampler": {"type": "uniform"}},
    "target": {"published": "arXiv:1312.5602, table 2"},
}


def with_setting(path: str, value: Any) -> dict[str, Any]:
    from coach.runners.preset import override

    settings = override(PLAIN, [])
    *parents, last = path.split(".")
    node = settings
    for name in parents:
        node = node[name]
    node[last] = value
    return settings


def test_what_is_ours_needs_no_trust() -> None:
    assert named_in(PLAIN) == []
    require_trust(Path("run"), PLAIN, [], [], {}, "coach evaluate run")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("environment.id", "odd_world:World"),
        ("environment.id", "/tmp/odd world.py:World"),
        ("environment.id", "module:Registered-v0"),
        ("environment.wrappers", ["ClipReward", {"odd:Wrapper": {"x": 1}}]),
        ("environment.wrappers", [{"RecordVideo": {"video_folder": "/home/me"}}]),
        ("environment.kwargs", {"model": "~/secret"}),
        ("environment.kwargs", {"model": "..\\secret"}),
        ("agent.type", "odd:Agent"),
        ("agent.network", {"embedder": "odd:Embedder"}),
        ("memory.sampler", {"type": "odd:Sampler"}),
        ("memory.disk", "/home/me"),
        ("optimizer", "odd:Optimizer"),
        ("optimizers", {"critic": {"type": "odd:Optimizer"}}),
    ],
)
def test_code_and_places_are_named(path: str, value: Any) -> None:
    settings = with_setting(path, value)
    with pytest.raises(UntrustedRunError, match=r"--trust") as raised:
        require_trust(Path("run"), settings, [], [], {}, "coach evaluate run")
    assert path in raised.value.problem
    require_trust(Path("run"), settings, [], [], settings, "")  # the user has given it


def test_a_plugin_that_is_given_again_is_asked_for() -> None:
    settings = with_setting("environment.id", "/old/place/my world.py:World")
    recorded = ["/old/place/my world.py", "other_parts"]
    with pytest.raises(UntrustedRunError) as raised:
        require_trust(Path("r"), settings, recorded, [], {}, "coach train r --resume")
    assert (
        "coach train r --resume --plugin 'my world.py' --plugin other_parts" in raised.value.remedy
    )
    with pytest.raises(UntrustedRunError, match="other_parts") as raised:
        require_trust(Path("r"), settings, recorded, ["new/my world.py"], {}, "coach evaluate r")
    assert "my world" not in raised.value.problem
    given = ["new/my world.py", "other_parts"]
    require_trust(Path("r"), settings, recorded, given, {}, "coach evaluate r")


def test_given_plugins_take_the_place_of_those_of_the_same_name(tmp_path: Path) -> None:
    new = str(tmp_path / "world.py")
    assert with_plugins(["/old/world.py", "b"], [new, "c"]) == [new, "b", "c"]
    settings = {"id": "/old/world.py:World", "wrappers": [{"/old/world.py:Wrap": {"a": 1}}, "x"]}
    assert with_references(settings, [new]) == {
        "id": f"{new}:World",
        "wrappers": [{f"{new}:Wrap": {"a": 1}}, "x"],
    }
    assert same_reference("/old/world.py:World", f"{new}:World")
    assert same_reference("world:World", f"{new}:World")
    assert not same_reference("/old/world.py:World", f"{new}:Other")
    assert not same_reference("CartPole-v1", "CartPole-v1")


def test_commands_can_be_pasted() -> None:
    assert command("coach", "train", Path("a b/[red]c")) == "coach train 'a b/[red]c'"
