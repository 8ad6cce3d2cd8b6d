"""The errors of Bedrock, before a stream and inside it.

Pure. Both become an `APIStatusError` with the HTTP status of the exception's name, so both are treated
the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rejoinder._core import jsontext
from rejoinder._core.bodies import plain_text, read_json_object
from rejoinder.errors import APIStatusError, create_api_error_from_http
from rejoinder.wire.eventstream import Message

__all__ = ["STALE_CREDENTIALS", "error_name", "frame_error", "http_error"]

_STATUS: Final[Mapping[str, int]] = {
    "ValidationException": 400,
    "AccessDeniedException": 403,
    "ResourceNotFoundException": 404,
    "ModelTimeoutException": 408,
    "ModelErrorException": 424,
    "ModelStreamErrorException": 424,
    "ThrottlingException": 429,
    "ModelNotReadyException": 429,
    "InternalServerException": 500,
    "InternalFailure": 500,
    "ServiceUnavailableException": 503,
}

STALE_CREDENTIALS: Final = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "UnrecognizedClientException",
        "InvalidSignatureException",
    }
)
"""Names of errors that fresh credentials may resolve."""


def error_name(headers: Mapping[str, str], body: Mapping[str, Any]) -> str:
    """The bare name of an exception: without ``:http://...`` after it, or ``namespace#`` before."""
    found = headers.get("x-amzn-errortype") or body.get("__type") or body.get("code") or ""
    if not isinstance(found, str):
        return ""
    return found.partition(":")[0].rpartition("#")[2].strip()


def http_error(status: int, headers: Mapping[str, str], body: bytes) -> APIStatusError:
    """The error for a response with an error status. `headers` by lower-case name."""
    request_id = headers.get("x-amzn-requestid")
    answer = read_json_object(body)
    if answer is None:
        shown = plain_text(body)
        name, text, detail = error_name(headers, {}), shown, shown or None
    else:
        name = error_name(headers, answer)
        text = _message(answer)
        detail = dict(answer)
    words = ": ".join(word for word in (name, text) if word)
    return create_api_error_from_http(words, status=status, request_id=request_id, body=detail)


def frame_error(message: Message) -> APIStatusError:
    """The error for an exception or error frame of an event stream."""
    answer = read_json_object(message.payload) or {}
    named = message.headers.get(":error-message")
    text = _message(answer) or (named if isinstance(named, str) else "")
    name = message.name[:1].upper() + message.name[1:]
    status = _STATUS.get(name, 500)
    original = answer.get("originalStatusCode")
    if isinstance(original, int) and 400 <= original < 600:
        status = original
    words = ": ".join(word for word in (name, text) if word)
    return create_api_error_from_http(
        jsontext.heal(words), status=status, body=dict(answer) or None
    )


def _message(answer: Mapping[str, Any]) -> str:
    for key in ("message", "Message", "errorMessage", "originalMessage"):
        value = answer.get(key)
        if isinstance(value, str) and value:
            return jsontext.heal(value)
    return ""
