"""A server's question to the user, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rejoinder._options import check_fields

__all__ = ["Elicitation", "ElicitationAnswer"]


@dataclass(frozen=True, slots=True)
class Elicitation:
    """A question that a server asks during a tool call.

    Attributes:
        message: the question, for people.
        schema: JSON schema of the answer (an object of plain values), for a form.
        url: a page on which the user should answer instead.
        server: the server that asks.
    """

    message: str
    schema: Mapping[str, Any] | None = None
    url: str | None = None
    server: str = ""


@dataclass(frozen=True, slots=True)
class ElicitationAnswer:
    """`accept` with the values of the form, `decline`, or `cancel` without an answer."""

    action: Literal["accept", "decline", "cancel"]
    content: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
