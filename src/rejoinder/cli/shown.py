"""Shows a turn: as text for the user, or as one JSON object per line for a program."""

from __future__ import annotations

import json
import os
import time
import traceback
from typing import TYPE_CHECKING, Any, Protocol

from rejoinder.cli.render import one_line, render_call, render_result, sentence

if TYPE_CHECKING:
    from rejoinder.cli.screen import Screen

__all__ = ["JsonShown", "Shown", "TextShown"]

WAITING = "waiting for the model"


class Shown(Protocol):
    """Receives the events of turns.

    Attributes:
        doing: what the turn is waiting for.
        first: seconds from `begin` to the first text of the turn; ``None`` before it.
    """

    doing: str
    first: float | None

    def begin(self) -> None:
        """A turn begins."""
        ...

    def take(self, event: Any) -> None:
        """An event of `run_turn`."""
        ...

    def end(self) -> None:
        """The turn is over; the next output begins a new line."""
        ...


class TextShown:
    """Writes the reply to standard output, and notes to standard error.

    Args:
        whole: write the finished output as JSON, instead of the text as it arrives.
    """

    def __init__(self, screen: Screen, *, whole: bool = False) -> None:
        self._screen = screen
        self._whole = whole
        self._began = 0.0
        self._said = False
        self.doing = WAITING
        self.first: float | None = None

    def begin(self) -> None:
        self._began = time.monotonic()
        self._said = False
        self.doing = WAITING
        self.first = None

    def take(self, event: Any) -> None:
        from rejoinder.turn import Done, Restarted, Text, Thinking, ToolFinished, ToolStarted

        screen = self._screen
        match event:
            case Text(text=piece):
                if self.first is None:
                    self.first = time.monotonic() - self._began
                if self._whole:
                    return
                if not self._said:
                    piece = piece.lstrip("\n")
                self._said = self._said or bool(piece)
                screen.reply(piece)
            case Thinking():
                self.doing = "thinking"
            case Restarted(discard=text):
                if text.strip() and not self._whole:
                    screen.end_line()
                    screen.note("[the answer broke off; another one follows]")
                    self._said = False
            case ToolStarted(call=call):
                screen.end_line()
                self._said = False
                screen.note(f"-> {render_call(call.name, call.arguments)}")
                self.doing = f"{one_line(call.name, 40)} is running"
            case ToolFinished(output=output, duration=seconds, exception=error):
                result = render_result(
                    _reason(error, output.output), is_error=output.is_error, seconds=seconds
                )
                screen.note(f"<- {result}")
                self.doing = WAITING
            case Done() if self._whole and (value := _output(event)) is not None:
                screen.reply(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
            case _:
                pass

    def end(self) -> None:
        self._screen.end_line()


class JsonShown:
    """Writes one JSON object per line to standard output."""

    def __init__(self, screen: Screen, *, conversation: str | None) -> None:
        self._screen = screen
        self._conversation = conversation
        self._began = 0.0
        self.doing = WAITING
        self.first: float | None = None

    def begin(self) -> None:
        self._began = time.monotonic()
        self.first = None

    def take(self, event: Any) -> None:
        from rejoinder.turn import Text

        if isinstance(event, Text) and self.first is None:
            self.first = time.monotonic() - self._began
        data = _as_json(event)
        if data is None:
            return
        data["seconds"] = round(time.monotonic() - self._began, 4)
        if data["event"] == "done" and self._conversation is not None:
            data["conversation"] = self._conversation
        self._screen.data(json.dumps(data, default=str))

    def end(self) -> None:
        pass

    def fail(self, message: str) -> None:
        """The last event if there is no answer."""
        data = {"event": "error", "message": sentence(message)}
        self._screen.data(json.dumps(data))


def _output(done: Any) -> Any:
    return done.output


def _as_json(event: Any) -> dict[str, Any] | None:
    from rejoinder.turn import (
        Done,
        Partial,
        Restarted,
        Text,
        Thinking,
        ToolFinished,
        ToolPaused,
        ToolStarted,
        Usage,
    )

    match event:
        case Text(text=text):
            return {"event": "text", "text": text}
        case Thinking(text=text):
            return {"event": "thinking", "text": text}
        case Partial(value=value):
            return {"event": "partial", "value": value}
        case Restarted(discard=text):
            return {"event": "restarted", "discard": text}
        case ToolStarted(call=call) | ToolPaused(call=call):
            kind = "tool_started" if isinstance(event, ToolStarted) else "tool_paused"
            return {
                "event": kind, "call_id": call.call_id, "name": call.name,
                "arguments": call.arguments,
            }  # fmt: skip
        case ToolFinished(call=call, output=output, duration=seconds):
            return {
                "event": "tool_finished", "call_id": call.call_id, "name": call.name,
                "output": output.output, "is_error": output.is_error, "duration": round(seconds, 4),
            }  # fmt: skip
        case Usage(usage=usage):
            return {"event": "usage", **usage.model_dump(exclude_none=True)}
        case Done(reason=reason, steps=steps, cost=cost):
            return {
                "event": "done", "reason": reason, "steps": steps, "text": event.text,
                **({} if cost is None else {"cost": cost}),
                **({} if _output(event) is None else {"output": _output(event)}),
            }  # fmt: skip
        case _:
            return None


def _reason(error: BaseException | None, output: str) -> str:
    """The output of a tool, or the reason of its failure: its author needs more detail than the
    model may see."""
    from rejoinder.llm.tool_context import ToolError

    if error is None or isinstance(error, ToolError) or str(error) in output:
        return output
    if type(error).__name__.startswith("_") or error.__traceback__ is None:
        return output  # raised by this package; the output explains it
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(frame.filename)}, line {frame.lineno}"
    return f"{type(error).__name__}: {error} ({where})"
