"""One request to a server, and how its wait ends."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from rejoinder._aio import Alarm

__all__ = ["Again", "Question"]

T = TypeVar("T")


class Question(Generic[T]):
    """A future with a deadline.

    Attributes:
        answer: the future for which the caller waits.
        deadline: when the wait ends, in the loop's time.
        what: names the question in errors.
        timeout: seconds from the question, or a report of progress, to the deadline.
        limit: up to when reports of progress renew the deadline, in the loop's time.
        progress: the highest progress reported so far.
        timer: fires at the deadline.
    """

    __slots__ = ("answer", "deadline", "limit", "progress", "timeout", "timer", "what")

    def __init__(
        self, answer: asyncio.Future[T], deadline: float, what: str, timeout: float, limit: float
    ) -> None:
        self.answer = answer
        self.deadline = deadline
        self.what = what
        self.timeout = timeout
        self.limit = limit
        self.progress = float("-inf")
        self.timer: Alarm | None = None

    def stood_still(self, seconds: float) -> None:
        """Extend the deadline by the time in which the event loop was blocked, because no answer could
        arrive."""
        self.deadline += seconds
        self.limit += seconds

    def fail(self, error: Exception) -> None:
        """End the wait with `error`, if it has not ended."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Again(Exception):
    """The server did not process the question: ask again on a new connection.

    Attributes:
        error: how it refused the question.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error
