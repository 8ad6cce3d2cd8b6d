"""The user's turns: when each began, and one final transcript for each."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from rejoinder import _stamps
from rejoinder._core.realtime.messages import Transcript
from rejoinder.llm.realtime import InputTranscriptionCompleted
from rejoinder.providers.sessions.conversation import keep

__all__ = ["UserTurns"]

_LATE_WORDS: Final = 5.0
"""Seconds that a change of connections waits for the transcript of a turn."""

logger = logging.getLogger("rejoinder")


class UserTurns:
    """Bounded; the oldest turns are forgotten.

    Attributes:
        hearing: the item of the current turn, if it has one and is not a message yet.
    """

    def __init__(self) -> None:
        self._began: OrderedDict[str, float] = OrderedDict()
        self._final: OrderedDict[str, None] = OrderedDict()
        self._committed: OrderedDict[str, None] = OrderedDict()
        self._open: dict[str, float] = {}
        self.hearing: str | None = None

    def began(self, item_id: str) -> None:
        """The turn of this item began now, unless it has before."""
        self.hearing = item_id
        if item_id not in self._began:
            keep(self._began, item_id, _stamps.wall_now())

    def committed(self, item_id: str) -> bool:
        """The turn is over; its transcript follows. Return false if that was reported before."""
        self.began(item_id)
        self.hearing = None
        if item_id in self._committed:
            return False
        keep(self._committed, item_id, None)
        if item_id not in self._final:
            self._open[item_id] = asyncio.get_running_loop().time()
        return True

    def written(self, item_id: str) -> bool:
        """Whether the turn has its final transcript."""
        return item_id in self._final

    def unheard(self, item_ids: Iterable[str]) -> None:
        """The sound of these turns is sent again and becomes other items."""
        for item_id in item_ids:
            self._open.pop(item_id, None)
            if self.hearing == item_id:
                self.hearing = None

    @property
    def unwritten(self) -> bool:
        """Whether a transcript of the user is still expected. Gives up after some seconds."""
        now = asyncio.get_running_loop().time()
        self._open = {item_id: at for item_id, at in self._open.items() if now - at < _LATE_WORDS}
        return bool(self._open)

    def transcribed(self, event: Transcript) -> InputTranscriptionCompleted | None:
        """The event to emit; ``None`` after a final transcript. A failed transcript is final too,
        with its partial text."""
        if event.item_id in self._final:
            return None
        if event.final:
            self._open.pop(event.item_id, None)
            keep(self._final, event.item_id, None)
        if event.failed:
            logger.warning("the user's words of item %s could not be transcribed", event.item_id)
        return InputTranscriptionCompleted(
            item_id=event.item_id,
            transcript=event.text,
            is_final=event.final,
            confidence=event.confidence,
            turn_started_at=self._began.get(event.item_id),
        )
