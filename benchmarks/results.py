"""Writes the table of docs/results.md from docs/results.json, which `coach verify --record` fills.

coach verify CartPole_C51 --record docs/results.json
python benchmarks/results.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent / "docs"
COLUMNS = [
    "preset", "agent", "environment", "env steps", "target", "seeds", "policy", "lowest",
    "IQM (95 % interval)", "reach target", "s per seed", "published",
]  # fmt: skip


def main() -> None:
    """Replace what stands between the two marks."""
    entries = json.loads((DOCS / "results.json").read_text(encoding="utf-8"))
    rows = [
        COLUMNS,
        ["---"] * len(COLUMNS),
        *(row for entry in entries.items() for row in _rows(*entry)),
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    page = DOCS / "results.md"
    begin, end = "<!-- table -->", "<!-- end of table -->"
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(f"{begin}.*?{end}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{page} has no {begin} ... {end}")
    page.write_text(pattern.sub(lambda _: f"{begin}\n{table}\n{end}", text), encoding="utf-8")


def _rows(preset: str, entry: dict[str, Any]) -> list[list[str]]:
    """A row for the kept policies and one for the last ones."""
    about = [
        preset,
        entry["agent"] or "",
        entry["environment"],
        f"{entry['env_steps']:,}",
        f"{entry['target']:g}",
    ]
    rest = [f"{entry['seconds']:.0f}", entry["published"] or ""]
    if "kept" not in entry:  # written before both policies were judged
        count = len(entry["means"])
        kept = _policy("kept, old record", entry["means"], entry["target"], None)
        return [[*about, str(count), *kept, *rest]]
    seeds = entry["seeds"]
    span = f"{len(seeds)} ({seeds[0]} to {seeds[-1]})"
    kept, last = (
        _policy(name, entry[name]["means"], entry["target"], entry[name])
        for name in ("kept", "last")
    )
    return [[*about, span, *kept, *rest], [*[""] * (len(about) + 1), *last, "", ""]]


def _policy(
    name: str, means: list[float], target: float, summary: dict[str, Any] | None
) -> list[str]:
    """Cells of one policy; ``summary`` is missing in old records, whose IQM pooled episodes."""
    iqm = "not verified again"
    if summary is not None:
        low, high = summary["interval"]
        iqm = f"{summary['interquartile_mean']:.4g} ({low:.4g} to {high:.4g})"
    reached = sum(mean >= target for mean in means)
    return [name, f"{min(means):.4g}", iqm, f"{reached} of {len(means)}"]


if __name__ == "__main__":
    main()
