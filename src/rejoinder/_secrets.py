"""Credentials: where requests carry them, and how to keep them out of what people read.

The law of this file: texts in, texts out. Errors are worded and recordings are written with it, so
that a key is known, and hidden, in the same way everywhere.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

__all__ = ["MIN_SECRET", "credentials", "redact", "is_secret_name", "secrets_of", "redacted_url"]

MIN_SECRET: Final = 6
"""Characters; what is shorter occurs in texts by chance."""

_NAME: Final = re.compile(
    r"auth|key|token|secret|cookie|session|^sig$|signature|credential|passw", re.IGNORECASE
)
_CUT: Final = "..."
"""What stands after a text that was cut, everywhere in this package."""


def is_secret_name(name: str) -> bool:
    """Whether a header field or a parameter of this name carries a credential."""
    return _NAME.search(name) is not None


def secrets_of(url: str, headers: Mapping[str, str]) -> list[str]:
    """What a request holds that nobody must see, longest first.

    Args:
        url: with user, password and query.
        headers: all of its fields.
    """
    found: set[str] = set()
    for name, value in headers.items():
        if is_secret_name(name):
            found |= credentials(value)
    try:
        parts = urlsplit(url)
    except ValueError:
        return sorted(found, key=len, reverse=True)
    for text in (parts.username, parts.password):
        if text:
            found |= {text, unquote(text)}
    for name, value in parse_qsl(parts.query):
        if is_secret_name(name):
            found.add(value)
    return sorted((text for text in found if len(text) >= MIN_SECRET), key=len, reverse=True)


def credentials(value: str) -> set[str]:
    """What could be secret in the value of a header field: all of it, what follows its scheme, its
    longer words, and what Basic hides."""
    parts = {value.strip()}
    for word in re.split(r"[\s,;=/&]+", value):
        if len(word) >= 16:
            parts.add(word)
    scheme, _, rest = value.strip().partition(" ")
    if rest:
        parts.add(rest.strip())
        if scheme.lower() == "basic":
            try:
                user, _, password = base64.b64decode(rest).decode().partition(":")
                parts |= {user, password}
            except ValueError:
                pass
    return parts


def redact(text: str, secrets: Iterable[str]) -> str:
    """`text` without `secrets`, and without the beginning of one that ends where `text` was cut."""
    for secret in secrets:
        if len(secret) < MIN_SECRET:
            continue
        for form in {secret, quote(secret, safe="")}:
            text = text.replace(form, "***")
            if form[:MIN_SECRET] in text and _CUT in text:
                for size in range(len(form) - 1, MIN_SECRET - 1, -1):
                    text = text.replace(form[:size] + _CUT, "***" + _CUT)
    return text


def redacted_url(url: str) -> str:
    """`url`, even if it is none, for a message: without user, password, query and fragment."""
    text = re.split(r"[?#]", url, maxsplit=1)[0]
    head, at, tail = text.rpartition("@")
    if not at:
        return text
    scheme, slashes, _ = head.partition("://")
    return f"{scheme}://...@{tail}" if slashes else f"...@{tail}"
