"""The promises of every decoder.

1. The same results for every way of cutting the same bytes. `feed` returns what it decoded before
   an error and raises the error at the next call; `failure` holds it meanwhile.
2. For any bytes: results or an `APIError`, never another exception. After it, only that error.
3. Memory is bounded.
4. Unknown events are skipped and counted, never fatal.
5. `close` raises when the bytes ended before the protocol's own end.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from rejoinder.errors import APIError

__all__ = ["Decoder"]

T = TypeVar("T")


class Decoder(Protocol[T]):
    """Bytes in, values out. It knows no socket and no clock."""

    @property
    def failure(self) -> APIError | None:
        """The error that the next call of `feed` or `close` will raise, if any."""
        ...

    def feed(self, data: bytes, /) -> list[T]:
        """Decode as far as `data` allows. ``b""`` is allowed and adds nothing."""
        ...

    def close(self) -> list[T]:
        """No more bytes follow. Returns the remaining results."""
        ...
