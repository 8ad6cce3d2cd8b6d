"""The answers of a test server, as values, and the interface of a wire format.

Only values and one Protocol; `_dialects` holds the formats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from rejoinder._options import WHOLE, check_fields

__all__ = ["Call", "Dialect", "Format", "Rendered", "Usage"]

Format = Literal[
    "openai",
    "responses",
    "anthropic",
    "google",
    "google-array",
    "bedrock",
    "bedrock-anthropic",
    "mistral",
]


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call the model makes: `arguments` is JSON text."""

    name: str
    arguments: str = "{}"
    call_id: str = "call_1"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens the server reports."""

    prompt: int = 11
    completion: int = 7

    def __post_init__(self) -> None:
        check_fields(self, prompt=WHOLE, completion=WHOLE)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A streamed answer in its parts, each a whole event."""

    opening: list[bytes]
    """Events before the first output. They have no text for the user."""
    outputs: list[bytes]
    """One event for each piece of text, then those of the tool calls."""
    closing: list[bytes]
    """Finish, usage and end mark."""
    usage_only: list[bytes] = field(default_factory=list[bytes])
    """A closing with usage, for a reply without output."""


class Dialect(Protocol):
    """One wire format."""

    @property
    def frame(self) -> tuple[bytes, bytes, bytes]:
        """The bytes before the first event, between two events, and after the last."""
        ...

    @property
    def content_type(self) -> str: ...

    @property
    def keep_alive(self) -> bytes:
        """The bytes that keep a connection open."""
        ...

    @property
    def nothing(self) -> bytes:
        """An event that announces an output and has none."""
        ...

    def counting(self, usage: Usage) -> bytes:
        """An event in mid-answer that counts tokens and holds no output."""
        ...

    @property
    def unknown(self) -> bytes:
        """An event of a kind no client knows."""
        ...

    @property
    def endless(self) -> tuple[bytes, bytes]:
        """The start of an event without end, and what to repeat."""
        ...

    @property
    def broken(self) -> bytes:
        """A whole event whose payload is not JSON."""
        ...

    def render(
        self, text: tuple[str, ...], calls: tuple[Call, ...], thinking: str, usage: Usage
    ) -> Rendered: ...

    def error_event(self) -> bytes:
        """The server fails in mid-stream: a failure that may pass."""
        ...

    def error_body(self, status: int, message: str) -> tuple[bytes, dict[str, str]]:
        """Body and further header fields of an answer with an error status."""
        ...
