"""The calls of a session: each is passed to the application once and answered once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import Final, Literal, TypeAlias

from rejoinder._core.items import FunctionCall, FunctionCallOutput
from rejoinder._core.results import refusal
from rejoinder.errors import ConfigurationError
from rejoinder.providers.sessions.conversation import keep

__all__ = ["INTERRUPTED", "Calls"]

INTERRUPTED: Final = "The call was interrupted before it ran."

State: TypeAlias = Literal["open", "answered", "cancelled"]


class Calls:
    """Bounded; the oldest calls are forgotten.

    Args:
        media: types of pictures and documents that the model takes as results.
    """

    def __init__(self, media: Collection[str] = ()) -> None:
        self._media = media
        self._states: OrderedDict[str, State] = OrderedDict()
        self._open: OrderedDict[str, FunctionCall] = OrderedDict()

    def knows(self, call_id: str) -> bool:
        """Whether the service has made this call before."""
        return call_id in self._states

    @property
    def open(self) -> list[FunctionCall]:
        """The calls that the application received and has not answered."""
        return list(self._open.values())

    def hand_out(self, call: FunctionCall) -> None:
        """The application received the call."""
        keep(self._states, call.call_id, "open")
        keep(self._open, call.call_id, call)

    def answer(self, output: FunctionCallOutput) -> bool:
        """The call gets its answer now. Return whether the service still wants one.

        Raises:
            ConfigurationError: the model cannot take it; the call stays open for another answer.
        """
        call_id = output.call_id
        wrong = refusal(output, self._media) if call_id in self._open else None
        if wrong is not None:
            raise ConfigurationError(wrong)
        wanted = self._states.get(call_id) not in ("answered", "cancelled")
        if wanted:
            self.settle(call_id, "answered")
        return wanted

    def settle(self, call_id: str, state: State) -> None:
        """The call no longer needs an answer."""
        keep(self._states, call_id, state)
        self._open.pop(call_id, None)

    def refuse(self, call: FunctionCall, why: str) -> FunctionCallOutput:
        """Return an answer for a call that the application will not run, because some services stay
        silent until a call has an answer."""
        self.settle(call.call_id, "answered")
        return FunctionCallOutput(call_id=call.call_id, name=call.name, output=why, is_error=True)
