"""Names of tools and arguments in the form that providers accept.

Pure. The sent name depends only on the tool's name and the names beside it, so it can be found again
without a table. A call from one provider may run after the conversation has moved to another.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

__all__ = ["KEY", "meant_name", "portable_keys", "portable_name", "portable_names"]

KEY: Final = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
"""Argument names that every provider accepts; Anthropic's rule is the narrowest."""
_STRANGE_IN_KEYS: Final = re.compile(r"[^a-zA-Z0-9_.-]+")
_STRANGE_IN_NAMES: Final = re.compile(r"[^a-zA-Z0-9_-]+")
_MAX_NAME = 64


def portable_name(name: str, accepted: re.Pattern[str]) -> str:
    """`name`, or a replacement if it does not match `accepted`.

    Letters, digits, ``_`` and ``-`` stay. A name that begins with another character gets an underscore
    in front; a name that is too long is cut, with six characters of its hash at the end.
    """
    if accepted.fullmatch(name):
        return name
    changed = _STRANGE_IN_NAMES.sub("_", name) or "_"
    for candidate in (changed, f"_{changed}"):
        if accepted.fullmatch(candidate):
            return candidate
    if not changed[0].isalpha():
        changed = f"_{changed}"
    return f"{changed[: _MAX_NAME - 7]}_{_digest(name)}"


@lru_cache(maxsize=256)  # every request asks for the names of its tools, nearly always the same
def portable_names(names: tuple[str, ...], accepted: re.Pattern[str]) -> Mapping[str, str]:
    """The sent name for each tool name; all are different. Not to be changed."""
    if all(map(accepted.fullmatch, names)):
        return dict(zip(names, names, strict=True))
    sent: dict[str, str] = {}
    taken: set[str] = set()
    # Names that need no change have priority.
    for name in sorted(names, key=lambda name: not accepted.fullmatch(name)):
        other = portable_name(name, accepted)
        salt = name
        while other in taken:
            other, salt = f"{other[: _MAX_NAME - 7]}_{_digest(salt)}", f"{salt}'"
        sent[name] = other
        taken.add(other)
    return sent


def meant_name(sent: str, names: Iterable[str]) -> str | None:
    """The tool that was sent under the name `sent`, if its own name differs."""
    known = tuple(names)
    if all(map(_NARROW.fullmatch, known)):
        return None
    for accepted in (_WIDE, _NARROW):
        for name, other in portable_names(known, accepted).items():
            if other == sent and name != sent:
                return name
    return None


_WIDE: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""Tool names that all providers except Google accept."""
_NARROW: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")
"""Tool names that all providers accept."""


def portable_keys(keys: Iterable[str]) -> Mapping[str, str]:
    """The sent name for each argument name; all are different."""
    names = list(keys)
    sent = {name: name for name in names if KEY.fullmatch(name)}
    if len(sent) == len(names):
        return sent
    taken = set(sent)
    for name in names:
        if name in sent:
            continue
        changed = _STRANGE_IN_KEYS.sub("_", name).strip("_")[:_MAX_NAME] or "value"
        salt = name
        while changed in taken:
            changed, salt = f"{changed[: _MAX_NAME - 7]}_{_digest(salt)}", f"{salt}'"
        sent[name] = changed
        taken.add(changed)
    return sent


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
