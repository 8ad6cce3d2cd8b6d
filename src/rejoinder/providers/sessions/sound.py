"""The user's sound on its way to a service: one rate, one channel, pieces of a useful length."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable
from typing import Final, TypeAlias

from rejoinder._core.items import AudioContent, ChatContent, ChatItem, ChatMessage, parts_of
from rejoinder._core.realtime.speech import UNTRANSCRIBED
from rejoinder._sections import explained
from rejoinder.errors import ConfigurationError
from rejoinder.media import AudioFrame, audio_bytes

__all__ = ["SoundInput", "is_loud", "with_sound_at"]

Converter: TypeAlias = Callable[[memoryview, bool], bytes]
"""A function that takes sound, and whether it is the last."""

_PIECE_MS: Final = 50
_SAMPLE_BYTES: Final = 2
_HIGH_BYTE: Final = 1 if sys.byteorder == "little" else 0
_QUIET: Final = b"\x00\xff"
"""The high bytes of samples from -256 to 255."""


class SoundInput:
    """Turns frames of any rate and number of channels into pieces for a service.

    Frames of at least 50 ms in the right form pass through without a copy. Shorter ones are
    collected up to that length. Other rates and channels are converted by ``soxr``.

    Args:
        sample_rate: samples a second that the service takes, of one channel.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._piece = sample_rate * _SAMPLE_BYTES * _PIECE_MS // 1000
        self._rest = bytearray()
        self._converter: tuple[tuple[int, int], Converter] | None = None

    def feed(self, frame: AudioFrame) -> bytes | bytearray | memoryview | None:
        """The next piece, or ``None`` while there is too little sound.

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
        """The remaining sound that was collected but not returned."""
        if not self._rest:
            return None
        rest, self._rest = self._rest, bytearray()
        return rest

    def clear(self) -> None:
        """Discard the collected sound."""
        self._rest.clear()

    def _converted(self, frame: AudioFrame) -> bytes:
        form = _form(frame)
        if self._converter is None or self._converter[0] != form:
            self._converter = (form, _converter(*form, self._rate))
        return self._converter[1](frame.data, False)


def _form(frame: AudioFrame) -> tuple[int, int]:
    return frame.sample_rate, frame.num_channels


def _converter(source: int, channels: int, target: int) -> Converter:
    """A conversion to `target` samples a second of one channel.

    Raises:
        ConfigurationError: the packages that convert are not installed.
    """
    try:
        numpy = importlib.import_module("numpy")
        soxr = importlib.import_module("soxr")
    except ImportError:
        raise ConfigurationError(
            explained(
                f"push_audio: expected {target} Hz and 1 channel, got {source} Hz and {channels}; push "
                "frames in that form, or install soxr to have them converted: "
                "pip install 'rejoinder[audio]'",
                "missing package",
            )
        ) from None
    stream = None if source == target else soxr.ResampleStream(source, target, 1, dtype="int16")

    def convert(data: memoryview, last: bool) -> bytes:
        samples = numpy.frombuffer(data, dtype=numpy.int16)
        if channels > 1:
            samples = samples.reshape(-1, channels).mean(axis=1).astype(numpy.int16)
        return (samples if stream is None else stream.resample_chunk(samples, last)).tobytes()

    return convert


def with_sound_at(item: ChatItem, sample_rate: int) -> ChatItem:
    """`item`, with untranscribed speech of the user converted to the form that the service takes.
    Sound that cannot be converted becomes a text that mentions it.

    Args:
        item: an item of a history.
        sample_rate: samples a second that the service takes, of one channel.
    """
    if not isinstance(item, ChatMessage) or item.role != "user":
        return item
    parts = parts_of(item)
    fitting = [_sound_at(part, sample_rate) for part in parts]
    if all(map(lambda new, old: new is old, fitting, parts)):
        return item
    return item.model_copy(update={"content": fitting})


def _sound_at(part: ChatContent, sample_rate: int) -> ChatContent:
    if not isinstance(part, AudioContent) or part.transcript:
        return part
    if not part.frame:
        return UNTRANSCRIBED
    if all(frame.sample_rate == sample_rate and frame.num_channels == 1 for frame in part.frame):
        return part
    data = b""
    try:
        for form, frames in itertools.groupby(part.frame, _form):
            joined = b"".join(audio_bytes(frame) for frame in frames)
            data += _converter(*form, sample_rate)(memoryview(joined), True)
    except ConfigurationError:
        return UNTRANSCRIBED
    frame = AudioFrame(data, sample_rate, 1, len(data) // _SAMPLE_BYTES)
    return AudioContent(frame=[frame])


def is_loud(piece: bytes | bytearray | memoryview) -> bool:
    """Whether a piece of 16-bit sound may hold speech: a sample exceeds -42 dB. Checks every 16th
    sample."""
    high = memoryview(piece).cast("B")[_HIGH_BYTE::32].tobytes()
    return bool(high.strip(_QUIET))
