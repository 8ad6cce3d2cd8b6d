"""Shared handling of errors: how long to wait, which secrets to redact, and one retry with new
credentials. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeAlias, cast

from rejoinder import _stamps
from rejoinder._core import jsontext
from rejoinder._core.bodies import plain_text
from rejoinder._core.retry import retry_after_seconds
from rejoinder._secrets import one_line, redact, shorten
from rejoinder.errors import APIError, APIStatusError, WireError

__all__ = [
    "DecodeError",
    "asked_pause",
    "redact_error",
    "retry_after",
    "unexpected_body",
    "with_second_chance",
]

DecodeError: TypeAlias = Callable[[int, Mapping[str, str], bytes], APIError]
"""Converts status, header fields (lower-case names) and body of an error response to an `APIError`."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks us to wait, from its header fields (lower-case names)."""
    return retry_after_seconds(headers, _stamps.wall_now())


_PAUSE_WORDS: Final = re.compile(
    r"\b(?:try again|retry) (?:in|after) (?:(\d{1,6})m)? ?(\d{1,6}(?:\.\d{1,9})?) ?(ms|m|s|)",
    re.IGNORECASE,
)
_DELAY: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")


def asked_pause(error: Mapping[str, Any], message: str = "") -> float | None:
    """Seconds that the server asks us to wait, from the body of an error.

    Reads Google's ``RetryInfo`` (also from its endpoint for Chat Completions, which sends no header), a
    member ``retry_after``, or the message of OpenAI and Groq. For an error inside a stream, these put
    it only into the message: "Please try again in 1.5s".

    Args:
        error: the error object.
        message: its text, if a pause in it can be trusted.
    """
    for entry in jsontext.as_list(error.get("details")):
        delay = (jsontext.as_mapping(entry) or {}).get("retryDelay")
        if isinstance(delay, str) and (match := _DELAY.fullmatch(delay)):
            return float(match[1])
    for name, unit in (("retry_after_ms", 1000), ("retry_after", 1), ("retryAfter", 1)):
        value = error.get(name)
        if (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and 0 <= value < _LONGEST
        ):
            return float(value) / unit
    found = _PAUSE_WORDS.search(message)
    if found is None:
        return None
    unit = {"ms": 0.001, "m": 60.0}.get(found[3].lower(), 1.0)
    return 60.0 * int(found[1] or 0) + float(found[2]) * unit


_LONGEST: Final = 1e6


def unexpected_body(stray: bytes, expected: str) -> APIError:
    """The error for a response that is not a stream: a web page, a JSON text, an empty body."""
    shown = plain_text(stray)
    if not shown:
        return WireError(f"the answer ended without a single event; expected {expected}")
    return WireError(f"expected {expected}, got: {shown}", body=shown)


def redact_error(error: APIError, secrets: Sequence[str]) -> APIError:
    """`error` without `secrets` in its texts, because servers quote rejected keys, and errors are
    logged. The message is one line without control characters."""
    changes: dict[str, Any] = {
        "message": redact(one_line(error.message), secrets),
        "body": _without(secrets, error.body, 0),
    }
    if isinstance(error, APIStatusError) and error.request_id is not None:
        changes["request_id"] = shorten(redact(one_line(error.request_id), secrets), _MAX_ID)
    return error.but(**changes)


_MAX_ID: Final = 200
_MAX_DEPTH: Final = 50
_MAX_ENTRIES: Final = 1000


def _without(secrets: Sequence[str], value: object, depth: int) -> object:
    if isinstance(value, str):
        return redact(value, secrets)
    if depth > _MAX_DEPTH:
        return "..."
    if isinstance(value, Mapping):
        entries = islice(cast("Mapping[object, object]", value).items(), _MAX_ENTRIES)
        return {
            _without(secrets, key, depth + 1): _without(secrets, entry, depth + 1)
            for key, entry in entries
        }
    if isinstance(value, (list, tuple)):
        found = islice(cast("list[object]", value), _MAX_ENTRIES)
        return [_without(secrets, entry, depth + 1) for entry in found]
    return value


def with_second_chance(
    decode: DecodeError, stale: Callable[[APIStatusError], bool], renew: Callable[[], bool]
) -> DecodeError:
    """Wrap `decode`, so that an error due to old credentials is retried once.

    Args:
        stale: whether the error means that the credentials are old.
        renew: discards the credentials; returns whether other ones can be obtained.
    """
    used = False

    def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
        nonlocal used
        error = decode(status, headers, body)
        if not used and isinstance(error, APIStatusError) and stale(error) and renew():
            used = True
            return error.but(retryable=True)
        return error

    return decode_error
