"""The origin of a call that is made on behalf of another reply."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rejoinder.metrics import Purpose

__all__ = ["ASKED_FOR_ITSELF", "Asker"]


class Asker:
    """The origin of a call that is made for another reply, such as an attempt of a `FallbackAdapter`.

    Args:
        purpose: the purpose of the call; ``None``: not decided yet.
    """

    index: int = 0
    """Position of the model among the candidates."""

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
        """Decide the purpose of the call. Only the first decision counts."""
        if self.purpose is None:
            self.purpose = purpose
            pending, self._pending = self._pending, []
            for tell in pending:
                tell(purpose)


ASKED_FOR_ITSELF: Final = Asker("reply")
"""The origin of a reply that is not part of another one."""
