"""Which of the notices about environments are shown."""

from __future__ import annotations

from collections import Counter

from coach.core.source import Notice

_FIRST, _EVERY = 5, 100  # of the notices without a topic that are shown


class Sifter:
    """Decides which notices are shown: each topic once, and only the first of very many."""

    def __init__(self) -> None:
        self._topics: Counter[str] = Counter()

    def __call__(self, notices: list[Notice]) -> list[str]:
        """The texts to show."""
        shown = []
        for notice in notices:
            self._topics[notice.topic] += 1
            count = self._topics[notice.topic]
            if notice.topic:
                if count == 1:
                    shown.append(notice.text)
            elif count <= _FIRST or count % _EVERY == 0:
                more = " (from now on every hundredth is shown)" if count == _FIRST else ""
                shown.append(f"{notice.text} [{count} so far]{more}")
        return shown
