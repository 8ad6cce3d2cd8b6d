"""Deadlines and bounds of a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from rejoinder._foreign import has, method
from rejoinder._options import NUMBER, SECONDS, Rule, checked
from rejoinder.errors import APIError
from rejoinder.media import AudioFrame
from rejoinder.providers.asking.checks import OPTION_RULES
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions

__all__ = ["SESSION_RULES", "SessionOptions", "checked_session_options", "code_of"]


def _opens_sockets(value: object) -> bool:
    return method(value, "connect") is not None and method(value, "aclose") is not None


def _is_sound(value: object) -> bool:
    return has(value, "data", "sample_rate", "num_channels", "samples_per_channel")


SESSION_RULES: Final[Mapping[str, Rule]] = OPTION_RULES | {
    "transport": Rule("a WebSocketTransport", _opens_sockets).optional,
    "frame": Rule("an AudioFrame", _is_sound, kinds=(AudioFrame,)),
    "speed": NUMBER.optional,
    "reply_timeout": SECONDS,
    "generate_reply_timeout": SECONDS,
    "silence_timeout": SECONDS,
    "max_session_duration": SECONDS.optional,
}
"""Rules for the options of realtime models and their sessions, by name."""

checked_session_options: Final = checked(**SESSION_RULES)
"""Checks the arguments of a constructor or a call of realtime models and their sessions."""


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """Deadlines and bounds of a session, in seconds."""

    conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    reply_timeout: float = 10.0
    """From sending a request for a reply to its beginning."""
    update_timeout: float = 5.0
    """Time for the service to confirm a change of the conversation."""
    silence: float = 20.0
    """A service counts as dead if it sends nothing for this long although it receives sound and was
    probed. A reply without progress for this long has failed."""
    max_duration: float | None = None
    """Age at which a connection is replaced between two turns. ``None``: never."""
    kept_sound: float = 30.0
    """Maximum amount of the user's sound to keep for the next connection while disconnected."""


def code_of(error: APIError) -> str | None:
    """The service's own error code, if it sent one."""
    body: object = error.body
    code: object = cast("dict[str, Any]", body).get("code") if isinstance(body, dict) else None
    return code if isinstance(code, str) else None
