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

__all__ = ["KEY", "portable_keys", "portable_name"]

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
