"""The model's sound between the session, which receives it, and the speaker, which plays it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque

from rejoinder.media import AudioFrame

__all__ = ["Playback"]


class Playback:
    """A queue of sound that remembers how much of each message was played.

    The event loop feeds it, and the thread of the sound card takes from it.

    Args:
        rate: samples a second of one channel of 16 bits, which the speaker plays.
        latency: seconds from taking a sample to hearing it.
    """

    def __init__(self, rate: int, *, latency: float = 0.0) -> None:
        self._bytes_per_ms = rate * 2 / 1000
        self._latency_ms = latency * 1000
        self._lock = threading.Lock()
        self._queue: deque[tuple[str, memoryview]] = deque()
        self._taken: dict[str, int] = {}
        self._loop = asyncio.get_running_loop()
        self._empty = asyncio.Event()
        self._empty.set()

    def feed(self, message_id: str, frame: AudioFrame) -> None:
        """Append sound of a message, in the rate of the speaker."""
        with self._lock:
            self._queue.append((message_id, frame.data.cast("B")))
            self._taken.setdefault(message_id, 0)
            self._empty.clear()

    def take(self, size: int) -> bytes:
        """The next `size` bytes, with silence where there is no sound. Safe in any thread."""
        made = bytearray()
        with self._lock:
            while self._queue and len(made) < size:
                message_id, data = self._queue.popleft()
                piece, rest = data[: size - len(made)], data[size - len(made) :]
                made += piece
                self._taken[message_id] += len(piece)
                if rest:
                    self._queue.appendleft((message_id, rest))
            empty = not self._queue
        if empty and made:
            self._loop.call_soon_threadsafe(self._notice)
        return bytes(made).ljust(size, b"\0")

    def cut(self) -> list[tuple[str, int]]:
        """Discard what was not played. Return each message that was cut, and how many milliseconds of
        it were heard."""
        with self._lock:
            ids = list(dict.fromkeys(message_id for message_id, _ in self._queue))
            self._queue.clear()
            taken = {message_id: self._taken[message_id] for message_id in ids}
        self._empty.set()
        return [(message_id, self._heard(size)) for message_id, size in taken.items()]

    async def drained(self) -> None:
        """Wait until everything was taken."""
        await self._empty.wait()

    def _notice(self) -> None:
        with self._lock:
            if not self._queue:
                self._empty.set()

    def _heard(self, size: int) -> int:
        return max(0, round(size / self._bytes_per_ms - self._latency_ms))
