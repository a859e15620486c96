"""What workers have to say about their environments, on its way to the run."""

from __future__ import annotations

import json

from coach.core.source import Notice

#: Kind of a message that brings only notices; others may have them as their data.
NOTICES = b"i"


def packed(notices: list[Notice]) -> bytes:
    """Notices as the data of a message."""
    return json.dumps([[one.text, one.topic] for one in notices]).encode() if notices else b""


def unpacked(data: bytes) -> list[Notice]:
    """The notices in the data of a message."""
    return [Notice(*one) for one in json.loads(data)] if data else []
