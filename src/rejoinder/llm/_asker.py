"""Who asks a model on behalf of another reply."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rejoinder.metrics import Purpose

__all__ = ["ASKED_FOR_ITSELF", "Asker"]


class Asker:
    """What asks a model on behalf of another reply, such as an attempt of a `FallbackAdapter`.

    Args:
        purpose: what the call is for; ``None``: not decided yet.
    """

    index: int = 0
    """Place of the model among those that may be asked."""

    def __init__(self, purpose: Purpose | None) -> None:
        self.purpose: Purpose | None = purpose
        self._pending: list[Callable[[Purpose], None]] = []

    def when_decided(self, tell: Callable[[Purpose], None]) -> None:
        """Call `tell` with the purpose, as soon as it is decided."""
        if self.purpose is None:
            self._pending.append(tell)
        else:
            tell(self.purpose)

    def decide(self, purpose: Purpose) -> None:
        """The purpose of the call is decided; only the first decision counts."""
        if self.purpose is None:
            self.purpose = purpose
            pending, self._pending = self._pending, []
            for tell in pending:
                tell(purpose)


ASKED_FOR_ITSELF: Final = Asker("reply")
"""In place of the asker of a reply that belongs to no other one."""
