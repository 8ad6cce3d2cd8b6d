"""Who asks a model on behalf of another reply."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rejoinder.metrics import Purpose

__all__ = ["Asker"]


class Asker:
    """What asks a model on behalf of another reply, such as an attempt of a `FallbackAdapter`."""

    purpose: Purpose | None = None
    """What the call is for; ``None``: not decided yet."""
    index: int = 0
    """Place of the model among those that may be asked."""
