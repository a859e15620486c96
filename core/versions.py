"""What a run was made with: versions of packages, and the revision of the user's code.

Imports nothing but the standard library, so that ``coach --version`` answers at once.
"""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("coach-rl", "torch", "gymnasium", "numpy", "safetensors", "mujoco", "ale-py")


def versions() -> dict[str, str]:
    """Versions of Coach, of the packages that results depend on, and of Python, in this order."""
    return {**_installed(), "python": platform.python_version()}


@cache
def _installed() -> dict[str, str]:
    """Versions of the packages that are installed; their metadata is read once per process."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """Revision of the working directory's repository, marked if it has uncommitted changes."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
