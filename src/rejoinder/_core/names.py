"""Names of tools and of their arguments as providers take them.

Pure. The name that is sent is a function of the name alone (and of those beside it), so that it can
be found again without a table: the reply to one provider may be run after the conversation moved on
to another.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Final

__all__ = ["KEY", "meant_name", "portable_keys", "portable_name", "portable_names"]

KEY: Final = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
"""Names of arguments that every provider takes; Anthropic's rule is the narrowest."""
_STRANGE_IN_KEYS: Final = re.compile(r"[^a-zA-Z0-9_.-]+")
_STRANGE_IN_NAMES: Final = re.compile(r"[^a-zA-Z0-9_-]+")
_MAX_NAME = 64


def portable_name(name: str, accepted: re.Pattern[str]) -> str:
    """`name`, or what is sent instead where a provider takes `accepted` names only.

    Letters, digits, ``_`` and ``-`` stay; a name that begins otherwise gets an underscore in front,
    one that is too long is cut, with six characters of its hash at the end.
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


def portable_names(names: Iterable[str], accepted: re.Pattern[str]) -> Mapping[str, str]:
    """For each name of a tool the one that is sent: no two are alike."""
    names = list(names)
    if all(map(accepted.fullmatch, names)):
        return dict(zip(names, names, strict=True))
    sent: dict[str, str] = {}
    taken: set[str] = set()
    # Those that stay as they are have the right to their names.
    for name in sorted(names, key=lambda name: not accepted.fullmatch(name)):
        other = portable_name(name, accepted)
        salt = name
        while other in taken:
            other, salt = f"{other[: _MAX_NAME - 7]}_{_digest(salt)}", f"{salt}'"
        sent[name] = other
        taken.add(other)
    return sent


def meant_name(sent: str, names: Iterable[str]) -> str | None:
    """The tool that a model means by `sent`, if it is one that goes by another name."""
    known = list(names)
    if all(map(_NARROW.fullmatch, known)):
        return None
    for accepted in (_WIDE, _NARROW):
        for name, other in portable_names(known, accepted).items():
            if other == sent and name != sent:
                return name
    return None


_WIDE: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""What all providers but Google take as the name of a tool."""
_NARROW: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")
"""What all of them take."""


def portable_keys(keys: Iterable[str]) -> Mapping[str, str]:
    """For each name of an argument the one that is sent: no two are alike."""
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
