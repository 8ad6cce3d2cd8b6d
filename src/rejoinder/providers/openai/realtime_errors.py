"""Errors that OpenAI's speech services report in their events. Pure."""

from __future__ import annotations

from typing import Any, Final, cast

from rejoinder._core.realtime.messages import ServiceFailed
from rejoinder.errors import APIConnectionError, APIError, APIStatusError

__all__ = ["api_error", "closed_in_setup", "refused_setup"]

_SETUP_CODES: Final = frozenset({1003, 1007, 1008})
"""Codes with which a service closes a connection whose settings it does not accept."""

# Values of `error.code` and `error.type`. OpenAI has changed the code of an error and kept its
# type.
_FATAL: Final = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "invalid_api_key",
        "account_deactivated",
        "billing_hard_limit_reached",
        "model_not_found",
        "invalid_model",
    }
)


def api_error(raw: object, what: str) -> tuple[APIError, bool, str | None]:
    """The error, whether it ends the session, and its code. `what` stands in for a missing
    message."""
    if not isinstance(raw, dict):
        return APIError(f"{what}: {raw!r}" if raw else what, body=raw), False, None
    fields = cast("dict[str, Any]", raw)
    code = fields.get("code")
    kind = fields.get("type")
    words = {word for word in (code, kind) if isinstance(word, str)}
    fatal = bool(words & _FATAL)
    message = fields.get("message")
    text = message if isinstance(message, str) and message else what
    error = APIStatusError(text, body=fields, retryable=not fatal)
    return error, fatal, code if isinstance(code, str) else None


def refused_setup(error: APIError, *, fatal: bool, code: str | None) -> ServiceFailed:
    """The event for an error that names the first frame."""
    error.message = f"the service refused the session: {error.message}"
    error.args = (error.message,)
    return ServiceFailed(error, fatal=fatal, code=code)


def closed_in_setup(model: str, code: int | None, reason: str) -> ServiceFailed | None:
    """The event for the end of a connection whose session had not begun; ``None`` if a new
    connection repairs it."""
    if code is None or not (code in _SETUP_CODES or code >= 3000):
        return None
    error = APIConnectionError(
        f"the service closed the session before it began, with code {code}: "
        f"{reason or 'no reason given'}; check `model` ({model!r}), the API key and `base_url`",
        retryable=False,
    )
    return ServiceFailed(error, fatal=True)
