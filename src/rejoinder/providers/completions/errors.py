"""Reads errors of the Chat Completions and Responses dialects. Pure.

Any JSON value, any bytes, any status in; one `APIError` with a readable message out. If no status shows
what happened (inside a stream, or in a body with status 200), the table below maps the server's own
code, else its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from rejoinder._core import jsontext
from rejoinder._core.bodies import plain_text
from rejoinder.errors import APIError, APIStatusError, RefusalError, WireError
from rejoinder.providers.answering.errors import asked_pause, retry_after

__all__ = ["decode_error", "error_from", "event_error", "message_of"]

# MiniMax's own numbers, from its reference.
_BASE_RESP: Final[dict[int, int]] = {
    1000: 500,
    1001: 504,
    1002: 429,
    1004: 401,
    1008: 402,
    1013: 500,
    1024: 500,
    1026: 400,
    1027: 400,
    1039: 429,
    2013: 400,
}
# Names of errors without a status: inside a stream, or in a body with status 200.
_STATUS_OF: Final[dict[str, int]] = {
    "authentication_error": 401,
    "bad_request": 400,
    "bad_request_error": 400,
    "billing_error": 402,
    "context_length_exceeded": 400,
    "deadline_exceeded": 504,
    "engine_overloaded_error": 503,
    "exceeded_current_quota_error": 429,
    "insufficient_quota": 429,
    "internal_error": 500,
    "internal_server_error": 500,
    "invalid_api_key": 401,
    "invalid_prompt": 400,
    "invalid_request": 400,
    "invalid_request_error": 400,
    "invalid_value": 400,
    "model_not_found": 404,
    "not_found": 404,
    "not_found_error": 404,
    "overloaded": 503,
    "overloaded_error": 503,
    "permission_denied": 403,
    "permission_error": 403,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "rate_limited": 429,
    "request_timeout": 408,
    "resource_exhausted": 429,
    "server_error": 500,
    "server_is_overloaded": 503,
    "service_unavailable": 503,
    "service_unavailable_error": 503,
    "slow_down": 503,
    "stream_disconnected": 502,
    "timeout": 504,
    "timeout_error": 504,
    "tool_use_failed": 400,
    "unauthorized": 401,
    "unavailable": 503,
    "upstream_error": 502,
}
# Waiting a second does not help against a used-up quota.
_HOPELESS: Final = frozenset(
    {"insufficient_quota", "exceeded_current_quota_error", "billing_hard_limit_reached"}
)
_REFUSALS: Final = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "data_inspection_failed",
        "moderation_blocked",
        "responsibleaipolicyviolation",
    }
)


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
    """The error for a response with an error status.

    Args:
        status: HTTP status.
        headers: by lower-case name.
        body: body of any kind, as far as it was read.
    """
    error: APIError
    if status < 400:
        found = headers.get("content-type", "an answer without a type")
        shown = plain_text(body)
        return WireError(f"expected server-sent events, got {found}: {shown}", body=shown)
    try:
        value = jsontext.decode(body)
    except ValueError:
        shown = plain_text(body)
        error = APIStatusError(shown or _phrase(status), status_code=status, body=shown or None)
    else:
        error = error_from(value, status=status)
    if isinstance(error, APIStatusError):
        for name in ("x-request-id", "apim-request-id", "request-id"):
            if headers.get(name):
                error = error.but(request_id=headers[name])
                break
    asked = retry_after(headers)
    return error if asked is None else error.but(retry_after=asked)


def error_from(value: object, *, status: int = -1) -> APIError:
    """The error in a JSON value: the body of an error response, or an object inside a stream."""
    if isinstance(value, list):
        entries = cast("list[Any]", value)
        value = entries[0] if entries else None
    data = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    body: Any = cast("Any", value)
    inner: Any = data.get("error")
    if inner and isinstance(inner, (dict, str)):
        body = cast("Any", inner)
        data = cast("dict[str, Any]", inner) if isinstance(inner, dict) else {}
    words = _codes(data)
    if status < 0:
        status = _status(data, words)
    message = message_of(body) or _phrase(status)
    detail = _upstream(data)
    if detail and detail not in message:
        message = f"{message}: {detail}"
    refused = next((word for word in words if _is_refusal(word)), None)
    metadata: Any = data.get("metadata")
    if refused is None and isinstance(metadata, dict) and "flagged_input" in metadata:
        refused = "moderation"
    if refused is not None:
        return RefusalError(
            message,
            reason="content_filter" if refused == "responsibleaipolicyviolation" else refused,
            status_code=status,
            body=body,
        )
    error = APIStatusError(
        message,
        status_code=status,
        body=body,
        retryable=False if any(word in _HOPELESS for word in words) else None,
    )
    return error.but(retry_after=asked_pause(data, message if status in _PAUSING else ""))


_PAUSING: Final = frozenset({429, 503, 529})


def _is_refusal(word: str) -> bool:
    """Whether a code means that a policy blocked the request. OpenAI's ``cyber_policy`` and
    ``bio_policy`` replaced ``invalid_prompt`` (openai/codex PR#31439)."""
    return word in _REFUSALS or word.endswith("_policy") or "policy_violation" in word


def _codes(data: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for holder in (data, data.get("innererror"), data.get("metadata")):
        if isinstance(holder, Mapping):
            entries = cast("Mapping[str, Any]", holder)
            for key in ("code", "type", "status", "error_type"):
                word = entries.get(key)
                if isinstance(word, str) and word:
                    words.append(word.lower())
    return words


def _status(data: Mapping[str, Any], words: list[str]) -> int:
    for key in ("status_code", "code", "status", "raw_status_code"):
        number = _number(data.get(key))
        if number is not None and 100 <= number <= 599:
            return number
    for word in words:
        if word in _STATUS_OF:
            return _STATUS_OF[word]
    own = data.get("status_code")
    return _BASE_RESP.get(own, -1) if isinstance(own, int) and "status_msg" in data else -1


_MESSAGES: Final = (
    "message",
    "detail",
    "details",
    "error",
    "msg",
    "error_message",
    "error_msg",
    "status_msg",
    "errors",
    "title",
)


def message_of(value: object, depth: int = 0) -> str:
    """The readable message in a server's error object, whatever its form."""
    if isinstance(value, str):
        return jsontext.heal(value)
    if depth > 3:
        return ""
    if isinstance(value, dict):
        data = cast("dict[str, Any]", value)
        for key in _MESSAGES:
            text = message_of(data.get(key), depth + 1)
            if text:
                if key == "msg" and isinstance(data.get("loc"), list):
                    text += f" (at {'.'.join(str(step) for step in data['loc'])})"
                return text
        return ""
    if isinstance(value, list):
        entries = cast("list[Any]", value)
        return "; ".join(filter(None, (message_of(entry, depth + 1) for entry in entries[:5])))
    return ""


def _upstream(data: Mapping[str, Any]) -> str:
    """The message of the model's own host, if a gateway's own message only reports an upstream error."""
    metadata = data.get("metadata")
    if not isinstance(metadata, dict):
        return ""
    raw = cast("dict[str, Any]", metadata).get("raw")
    if isinstance(raw, str) and raw:
        try:
            return message_of(jsontext.decode(raw)) or plain_text(raw.encode("utf-8", "replace"))
        except ValueError:
            return plain_text(raw.encode("utf-8", "replace"))
    return message_of(raw)


def event_error(name: str | None, payload: bytes) -> object | None:
    """The error in an event that is not marked as an error, or ``None``.

    Args:
        name: name of the event.
    """
    if name not in (None, "", "message", "error"):
        return None
    try:
        value = jsontext.decode(payload)
    except ValueError:
        return (plain_text(payload) or "error") if name == "error" else None
    if name == "error":
        return cast("object", value or "error")
    data = jsontext.as_mapping(value)
    if data is None:
        return None
    status = jsontext.as_mapping(data.get("base_resp"))
    if status is not None:  # MiniMax
        return status if status.get("status_code") else None
    if data.get("object") == "error" or ("usage" not in data and message_of(data)):
        return data
    return None


def _phrase(status: int) -> str:
    return f"the server answered with status {status}" if status > 0 else "the server failed"


def _number(value: object) -> int | None:
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
        return int(value)
    return None
