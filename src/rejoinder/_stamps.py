"""New ids and wall-clock stamps: the only impure functions that pure code may call.

Tests replace `new_id` and `wall_now` through `rejoinder._stamps` to make outputs repeatable.
"""

from __future__ import annotations

import os
import time

__all__ = ["new_id", "wall_now"]


def new_id(prefix: str = "") -> str:
    """`prefix` and 12 random hexadecimal characters."""
    return prefix + os.urandom(6).hex()


def wall_now() -> float:
    """Seconds since the epoch."""
    return time.time()
