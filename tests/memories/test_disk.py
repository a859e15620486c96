"""Observations on a disk: the same memory, in files that nobody has to remove."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from coach.core.errors import ResourceError, SettingError
from coach.memories.replay import Replay
from naive import SPECS, World


def memory(kind: str, disk: Path | None, capacity: int = 60) -> Replay:
    return Replay(
        SPECS[kind], 2, capacity=capacity, batch_size=8, warmup=0, updates_per_step=0.25, disk=disk
    )


@pytest.mark.parametrize("kind", list(SPECS))
def test_hands_out_what_a_memory_in_ram_does(kind: str, tmp_path: Path) -> None:
    ram, disk = memory(kind, None), memory(kind, tmp_path)
    world = World(SPECS[kind], 2, 0)
    for _ in range(6):  # several times round the ring
        fragment = world.fragment(11)
        ram.write(fragment), disk.write(fragment)
        pairs = zip(ram.batches(lambda b: b), disk.batches(lambda b: b), strict=True)
        for one, two in pairs:
            assert all(map(torch.equal, one.tensors(), two.tensors()))
    assert list(tmp_path.iterdir()) == []  # files without a name


def test_a_state_goes_from_disk_to_ram(tmp_path: Path) -> None:
    disk, ram = memory("vector", tmp_path), memory("vector", None)
    disk.write(World(SPECS["vector"], 2, 0).fragment(20))
    rows, _ = disk.rows([])
    ram.load_rows(rows)
    ram.load_state_dict(disk.state_dict())
    for one, two in zip(disk.batches(lambda b: b), ram.batches(lambda b: b), strict=True):
        assert torch.equal(one.obs, two.obs)


def test_needs_no_ram_for_observations(tmp_path: Path) -> None:
    ram, disk = memory("vector", None), memory("vector", tmp_path)
    assert disk.nbytes == ram.nbytes - ram.stripes.observation_bytes


def test_no_folder_and_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match=r"disk.*is no folder"):
        memory("vector", tmp_path / "nowhere")
    with pytest.raises(ResourceError, match=r"memory\.disk: observations need .* GiB left"):
        memory("vector", tmp_path, capacity=10**13)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    late = memory("vector", tmp_path)
    with pytest.raises(ResourceError, match=r"memory\.disk.*No space left(.|\n)*memory\.capacity"):
        late.write(World(SPECS["vector"], 2, 0).fragment(4))
