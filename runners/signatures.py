"""Signatures by which a user's own run folders are told from those of others.

Each user has a random key in a file of their own, and run.json carries a signature made with it.
Where the signature is right, the run's settings are those that this user started, so code that they
name may be imported. A run folder from somebody else, or with changed settings, needs ``--trust``.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

_KEY_BYTES = 32


def sign(data: bytes) -> str:
    """The signature of ``data`` with this user's key; empty where there can be no key."""
    key = _key(make=True)
    return hmac.new(key, data, hashlib.sha256).hexdigest() if key else ""


def is_signed(data: bytes, signature: str) -> bool:
    """Whether ``signature`` was made of ``data`` with this user's key."""
    key = _key(make=False)
    if not key or not signature.isascii():
        return False
    return hmac.compare_digest(hmac.new(key, data, hashlib.sha256).hexdigest(), signature)


def can_sign() -> bool:
    """Whether runs that start now are signed."""
    return bool(_key(make=True))


def _path() -> Path:
    """Where the key lies: below ``$XDG_STATE_HOME``, or ``~/.local/state``."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "coach" / "key"


def _key(make: bool) -> bytes:
    """This user's key, made at the first use; empty where it cannot be had."""
    try:
        path = _path()
        if make and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f"key-{secrets.token_hex(8)}")
            with os.fdopen(
                os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
            ) as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
            try:
                with suppress(FileExistsError):  # another process was faster: its key is as good
                    os.link(fresh, path)
            finally:
                fresh.unlink()
        key = path.read_bytes()
    except (OSError, RuntimeError):  # no home, no permission, no links
        return b""
    return key if len(key) == _KEY_BYTES else b""
