"""Names of folders by what is in them: what changed is made anew, the rest is found."""

from __future__ import annotations

import hashlib
from typing import Any


def digest(*parts: Any) -> str:
    """Eight hexadecimal digits of bytes and of whatever else tells itself by its repr."""
    found = hashlib.blake2b(digest_size=4)
    for part in parts:
        found.update(part if isinstance(part, bytes) else repr(part).encode())
        found.update(b"\0")
    return found.hexdigest()
