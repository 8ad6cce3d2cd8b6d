"""The user's sound on its way to a service: one rate, one channel, pieces of a useful length."""

from __future__ import annotations

import importlib
import math
from collections import deque
from typing import Any, Final

from rejoinder._core.realtime.messages import Command
from rejoinder.errors import ConfigurationError
from rejoinder.media import AudioFrame

__all__ = ["KeptSound", "SoundInput", "is_loud"]

_PIECE_MS: Final = 50
_SAMPLE_BYTES: Final = 2
_COMMIT: Final = -1.0
"""Stands in the place of a length where a commit is kept."""
_LOUD: Final = 328
"""A hundredth of the full scale."""
_UNHEARD_MS: Final = 6000.0
"""Milliseconds of quiet after which a service has made up its mind about what it heard."""


class SoundInput:
    """Turns frames of any rate and number of channels into pieces for a service.

    Frames of at least 50 ms in the right form pass as they are, without a copy; shorter ones are
    collected up to that length.

    Args:
        sample_rate: samples a second that the service takes, of one channel.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._piece = sample_rate * _SAMPLE_BYTES * _PIECE_MS // 1000
        self._rest = bytearray()
        self._resampler: tuple[int, int, Any] | None = None

    def feed(self, frame: AudioFrame) -> bytes | bytearray | memoryview | None:
        """The next piece, or ``None`` while too little has come.

        Raises:
            ConfigurationError: the frame has another form and ``soxr`` is not installed.
        """
        data: bytes | bytearray | memoryview = frame.data
        if frame.sample_rate != self._rate or frame.num_channels != 1:
            data = self._converted(frame)
        size = len(data) if not isinstance(data, memoryview) else data.nbytes
        if not self._rest and size >= self._piece:
            return data
        self._rest += data
        if len(self._rest) < self._piece:
            return None
        return self.flush()

    def flush(self) -> bytearray | None:
        """What has been collected and not handed out."""
        if not self._rest:
            return None
        rest, self._rest = self._rest, bytearray()
        return rest

    def clear(self) -> None:
        """Forget what has been collected."""
        self._rest.clear()

    def _converted(self, frame: AudioFrame) -> bytes:
        try:
            numpy = importlib.import_module("numpy")
            soxr = importlib.import_module("soxr")
        except ImportError:
            raise ConfigurationError(
                f"push_audio: expected {self._rate} Hz and 1 channel, got {frame.sample_rate} Hz and "
                f"{frame.num_channels}; push frames in that form, or pip install 'rejoinder[audio]' "
                "to have them converted"
            ) from None
        form = (frame.sample_rate, frame.num_channels)
        if self._resampler is None or self._resampler[:2] != form:
            stream = soxr.ResampleStream(frame.sample_rate, self._rate, 1, dtype="int16")
            self._resampler = (*form, stream)
        samples = numpy.frombuffer(frame.data, dtype=numpy.int16)
        if frame.num_channels > 1:
            samples = samples.reshape(-1, frame.num_channels).mean(axis=1).astype(numpy.int16)
        return self._resampler[2].resample_chunk(samples).tobytes()


def is_loud(piece: bytes | bytearray | memoryview) -> bool:
    """Whether a piece of 16-bit sound may hold speech: one of its samples is above -40 dB. Every
    eighth is looked at."""
    samples = memoryview(piece).cast("B").cast("h")[::8]
    return bool(samples) and (max(samples) > _LOUD or min(samples) < -_LOUD)


class KeptSound:
    """The user's sound that a next connection needs: that of the turn that is not over.

    Args:
        longest: milliseconds kept while the user speaks or no connection is there.
        pause: milliseconds kept while the user is silent, for a word that has just begun.
    """

    def __init__(self, longest: float, pause: float = 1000.0) -> None:
        self._longest = longest
        self._pause = pause
        self._kept: deque[tuple[float, Command]] = deque()
        self._length = 0.0
        self._commits = 0
        self._quiet_for = math.inf
        self.dropped_ms = 0.0
        """Milliseconds that no longer fitted while they were wanted."""

    @property
    def loud(self) -> bool:
        """Whether what is kept holds words that the service has not told yet. A noise that it made
        nothing of is forgotten after some seconds of quiet."""
        return self._quiet_for < _UNHEARD_MS

    def add(self, ms: float, command: Command, *, wanted: bool, loud: bool = False) -> None:
        """Keep sound. `wanted`: the user speaks, or no connection is there. `loud`: it may hold
        speech of which a service that tells late has not told."""
        self._quiet_for = 0.0 if loud else self._quiet_for + ms
        wanted = wanted or self.loud
        self._kept.append((ms, command))
        self._length += ms
        limit = self._longest if wanted else self._pause
        while self._length > limit and len(self._kept) > 1:
            old, _ = self._kept.popleft()
            if old == _COMMIT:
                self._commits -= 1
                continue
            self._length -= old
            if wanted:
                self.dropped_ms += old

    def add_commit(self, command: Command) -> None:
        """Keep a commit of what was pushed before it."""
        self._kept.append((_COMMIT, command))
        self._commits += 1

    def committed(self) -> None:
        """The service confirmed a commit, the oldest of those that are kept or one of its own."""
        if not self._commits:
            self.clear()
            return
        while self._kept:
            ms, _ = self._kept.popleft()
            if ms == _COMMIT:
                self._commits -= 1
                return
            self._length -= ms

    def clear(self) -> None:
        """Nothing of what was pushed is wanted any more."""
        self._kept.clear()
        self._length = 0.0
        self._commits = 0
        self._quiet_for = math.inf

    def commands(self) -> list[Command]:
        """All that is kept, oldest first."""
        return [command for _, command in self._kept]
