"""Writes the table of docs/results.md from docs/results.json, which `coach verify --record` fills.

coach verify CartPole_C51 --record docs/results.json
python benchmarks/results.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import fmean
from typing import Any

DOCS = Path(__file__).parent.parent / "docs"
COLUMNS = (
    "preset", "agent", "environment", "env steps", "target", "seeds", "mean",
    "IQM (95 % interval)", "s per seed", "published",
)  # fmt: skip


def main() -> None:
    """Replace what stands between the two marks."""
    entries = json.loads((DOCS / "results.json").read_text(encoding="utf-8"))
    rows = [COLUMNS, ["---"] * len(COLUMNS), *(_row(*entry) for entry in entries.items())]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    page = DOCS / "results.md"
    begin, end = "<!-- table -->", "<!-- end of table -->"
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(f"{begin}.*?{end}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{page} has no {begin} ... {end}")
    page.write_text(pattern.sub(lambda _: f"{begin}\n{table}\n{end}", text), encoding="utf-8")


def _row(preset: str, entry: dict[str, Any]) -> list[str]:
    low, high = entry["interval"]
    return [
        preset,
        entry["agent"],
        entry["environment"],
        f"{entry['env_steps']:,}",
        f"{entry['target']:g}",
        ", ".join(f"{mean:.4g}" for mean in entry["means"]),
        f"{fmean(entry['means']):.4g}",
        f"{entry['interquartile_mean']:.4g} ({low:.4g} to {high:.4g})",
        f"{entry['seconds']:.0f}",
        entry["published"] or "",
    ]


if __name__ == "__main__":
    main()
