"""The model's view of a server: the names of its tools, and the texts of failures. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

from rejoinder.errors import APIConnectionError, APIError, APIStatusError, APITimeoutError
from rejoinder.mcp.notes import BadAnswer, StartError

__all__ = ["exposed_names", "failure_text"]

# The characters that every provider accepts in the name of a tool. A server's dot or slash would make
# the provider refuse the whole request.
_FORBIDDEN: Final = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME: Final = 64


def failure_text(name: str, error: Exception) -> str:
    """The text of a failure for a model. A model is a third party, and its context is stored and traced,
    so the text has no command line, URL, stderr or exit code. These are in `error`, the log and
    `ToolFinished.exception`."""
    match error:
        case APITimeoutError():
            return f"the tool `{name}` did not answer in time; it may still be running"
        case APIStatusError():
            why = f"its server refused the call (HTTP {error.status_code})"
        case StartError():
            why = "its server cannot be started"
        case APIConnectionError() if not error.retryable:
            why = "its server is closed"
        case APIConnectionError():
            why = "its server has ended or cannot be reached"
        case APIError() if error.body is not None or isinstance(error, BadAnswer):
            # The server's own answer to the call, e.g. which argument is wrong.
            return f"the tool `{name}` failed: {error.message}"
        case _:
            return f"the tool `{name}` failed: its server's answer could not be used"
    return f"the tool `{name}` is not available: {why}"


def exposed_names(names: Sequence[str], prefix: str) -> dict[str, str]:
    """The names of tools for models: with the prefix, only with characters that providers accept, and
    all different.

    A name that is too long, or that another tool already has, ends with a hash of the original name,
    so that it does not depend on the server's other tools.
    """
    exposed: dict[str, str] = {}
    taken: set[str] = set()
    # Names that need no change keep theirs.
    for name in sorted(names, key=lambda name: _legal(prefix + name) != prefix + name):
        legal = _legal(prefix + name)
        mark = name
        while len(legal) > _LONGEST_NAME or legal in taken:
            mark = hashlib.sha256(mark.encode("utf-8", "replace")).hexdigest()[:8]
            legal = f"{_legal(prefix + name)[: _LONGEST_NAME - 9]}_{mark}"
        taken.add(legal)
        exposed[name] = legal
    return exposed


def _legal(name: str) -> str:
    return _FORBIDDEN.sub("_", name) or "_"
