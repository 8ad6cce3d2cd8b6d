"""The events of a turn that its model causes; `rejoinder.turn` has their public names. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias

from typing_extensions import TypeVar

from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.items import ChatMessage

__all__ = ["Done", "OutputT", "Partial", "Reason", "Restarted", "Text", "Thinking", "Usage"]

OutputT = TypeVar("OutputT", default=Any)


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Thinking:
    """A piece of the reasoning that the model shows. Not part of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Partial:
    """The output so far, while its text streams (with `response_format`).

    Attributes:
        value: plain JSON data, not validated: parts may be missing, and the last text may continue.
    """

    value: Any


@dataclass(frozen=True, slots=True)
class Restarted:
    """The answer begins again: discard the text of this request. A `FallbackAdapter` with
    ``on_cut="restart"`` asked another model, or the answer did not fit `response_format`."""

    discard: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request of the turn."""

    usage: CompletionUsage


Reason: TypeAlias = Literal["complete", "stop_response", "max_steps", "paused", "interrupted"]


@dataclass(frozen=True, slots=True)
class Done(Generic[OutputT]):
    """The last event.

    Attributes:
        reason: ``"complete"``: the model has answered. ``"stop_response"``: a tool raised
            `StopResponse`. ``"max_steps"``: the model had to answer without tools, because it had
            reached the limit or kept repeating itself. ``"paused"``: `approve` left a decision
            open, and a later turn on the same context continues there. ``"interrupted"``: the turn
            was cut.
        message: the last message of the assistant in the context, if any.
        steps: the number of requests.
        usage: the sum of their tokens; ``None`` if the provider reported none.
        cost: US dollars of all its requests, including hedges. Tokens of a cut reply that the
            provider had not counted yet are estimated, as in `LLMMetrics.cost`. ``None`` if the price
            of a model is unknown, or a reply was cut before it sent anything.
        output: the answer as an instance of `response_format`, or its JSON value if that is a
            schema; ``None`` without `response_format` and for a turn without an answer.
    """

    reason: Reason
    message: ChatMessage | None
    steps: int
    usage: CompletionUsage | None
    output: OutputT | None = None
    cost: float | None = None

    @property
    def text(self) -> str:
        """The last answer."""
        return (self.message.text_content or "") if self.message is not None else ""
