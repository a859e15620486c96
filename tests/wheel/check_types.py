"""Install a wheel into an empty environment and run mypy over what got installed.

Types are checked the way users meet them: `coach` is a namespace package whose parts come from
top-level folders, so a check of the checkout would not see what a wheel really holds.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path


def main(wheel: str) -> int:
    """Check one wheel; returns mypy's exit status."""
    config = Path(__file__).resolve().parents[2] / "pyproject.toml"
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--target", folder, wheel], check=True)
        packages = sorted(path.name for path in (Path(folder) / "coach").iterdir())
        names = [option for name in packages for option in ("-p", f"coach.{name}")]
        command = [sys.executable, "-m", "mypy", "--config-file", str(config), *names]
        checked = subprocess.run(
            [*command, "-m", "coach_cli"], cwd=folder, env=_environment(folder), check=False
        )
        return checked.returncode


def _environment(folder: str) -> dict[str, str]:
    import os

    return {**os.environ, "MYPYPATH": folder}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
