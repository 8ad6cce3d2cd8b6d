"""Failures of a session, and the conversion of the SDK's errors into plain ones."""

from __future__ import annotations

from typing import cast

from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from rejoinder._foreign import read
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, APITimeoutError
from rejoinder.mcp import results
from rejoinder.mcp.notes import TOO_LARGE, BadAnswer, Call

__all__ = [
    "MADE_UP",
    "REFUSALS",
    "ConnectionGone",
    "ModernServer",
    "ServerRefused",
    "SessionForgotten",
    "innermost",
    "plain_error",
]

_LONGEST_ERROR = 2000  # characters
REFUSALS = frozenset({401, 403, 407, 408, 429})
"""HTTP statuses that refuse this client, for now or for good, whatever it requests."""


class ConnectionGone(Exception):
    """The session ended before or during its use. The supervisor knows why."""


class SessionForgotten(Exception):
    """The server no longer knows this session.

    Attributes:
        error: the refusal.
        again: the server did not process the request, so it can be sent again.
    """

    def __init__(self, error: Exception, *, again: bool = True) -> None:
        super().__init__(str(error))
        self.error = error
        self.again = again


class ModernServer(Exception):
    """The server refused the initialize handshake, as servers of protocol 2026-07-28 do.

    Attributes:
        error: the refusal.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class ServerRefused(APIError):
    """The server answered with a JSON-RPC error, whose message this error has."""


# The SDK's transports make up errors that begin with these words. They are not answers of the server,
# and may quote addresses or foreign data.
MADE_UP = (
    "Connection closed",
    "Failed to parse",
    "Not Found",
    "Redirect to ",
    "SSE stream",
    "Server returned an error response",
    "Session terminated",
    "Unexpected content type",
    "server answered a request with 202",
)


def plain_error(error: BaseException, *, call: Call | None = None) -> BaseException:
    """Convert an error of the SDK, its HTTP client or its task groups into one plain error.

    Args:
        error: the raised error.
        call: the request that failed, with its HTTP status if it was refused with one.
    """
    leaf = innermost(error)
    if isinstance(leaf, APIError):
        return leaf
    status = call.status if call is not None else None
    if isinstance(leaf, MCPError):
        text = results.cut(leaf.message, _LONGEST_ERROR)
        if leaf.code == TOO_LARGE:
            return BadAnswer(text)
        made_up = leaf.message.startswith(MADE_UP)
        if status is not None and (made_up or status >= 500 or status in REFUSALS):
            words = call.refusal if call is not None else ""
            return APIStatusError(
                f"HTTP {status}: {words}" if words else f"HTTP {status}", status_code=status
            )
        if made_up:
            return APIConnectionError(text)
        return ServerRefused(text, body={"code": leaf.code, "message": text}, retryable=False)
    if isinstance(leaf, ValidationError):
        first = leaf.errors(include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        return APIError(
            f"the server's answer is not valid ({leaf.title}): {where}: {first['msg']}",
            retryable=False,
        )
    name = type(leaf).__name__
    text = results.cut(str(leaf) or name, _LONGEST_ERROR)
    answered = read(leaf, "response.status_code", int)
    if answered is not None:
        return APIStatusError(text.partition("\n")[0], status_code=answered)
    if "Timeout" in name or isinstance(leaf, TimeoutError):
        return APITimeoutError(text)
    foreign = type(leaf).__module__.startswith(("httpx2", "httpcore2", "anyio"))
    if foreign or isinstance(leaf, OSError):
        return APIConnectionError(text)
    return APIError(text if isinstance(leaf, RuntimeError) else f"{name}: {text}", retryable=False)


def innermost(error: BaseException) -> BaseException:
    """The error that a task group has wrapped in groups."""
    while isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        error = group.exceptions[0]
    return error
