"""WAV files: sound in from any common kind, sound out as 16-bit PCM.

Python's `wave` refuses 32-bit floats and, before 3.12, the extensible header that most recorders
write for more than two channels or more than 16 bits. Pure, except for `WavWriter`.
"""

from __future__ import annotations

import math
import struct
import sys
import wave
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from rejoinder.media import AudioFrame

__all__ = ["WavError", "WavWriter", "read_wav"]

_PCM: Final = 1
_FLOAT: Final = 3
_EXTENSIBLE: Final = 0xFFFE
_FORM: Final = struct.Struct("<HHIIHH")


class WavError(ValueError):
    """The bytes are not a WAV file, or one of an unsupported kind."""


def read_wav(data: bytes) -> AudioFrame:
    """The sound of a WAV file.

    Whole-number samples of 8, 16, 24 and 32 bits and floats of 32 and 64 bits become 16 bits; rate
    and channels stay. The length in the header is a maximum: programs that write into a pipe do not
    know it.

    Raises:
        WavError: it is not a WAV file, has another encoding, or holds no sound.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise WavError(f"expected a WAV file, got data that begins with {data[:4]!r}")
    form: bytes | None = None
    at = 12
    while at + 8 <= len(data):
        kind = data[at : at + 4]
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + size]
        if kind == b"fmt ":
            form = body
        elif kind == b"data":
            if form is None:
                raise WavError("the WAV file has no format before its sound")
            return _frame(form, body)
        at += 8 + size + size % 2
    raise WavError("the WAV file holds no sound")


def _frame(form: bytes, body: bytes) -> AudioFrame:
    if len(form) < _FORM.size:
        raise WavError("the WAV file is cut off within its format")
    encoding, channels, rate, _, _, bits = _FORM.unpack_from(form)
    if encoding == _EXTENSIBLE and len(form) >= 26:
        encoding = int.from_bytes(form[24:26], "little")
    convert = _SAMPLES.get((encoding, bits))
    if convert is None:
        raise WavError(
            "expected a WAV file of 8, 16, 24 or 32-bit whole numbers or of floats, got encoding "
            f"{encoding} with {bits} bits; convert it, for instance with: ffmpeg -i FILE -c:a pcm_s16le OUT.wav"
        )
    if not channels or not rate:
        raise WavError(f"the WAV file has {channels} channels at {rate} samples a second")
    whole = len(body) - len(body) % (channels * bits // 8)
    if not whole:
        raise WavError("the WAV file holds no sound")
    samples = convert(body[:whole])
    if sys.byteorder == "big":
        swapped = array("h", samples)
        swapped.byteswap()
        samples = swapped.tobytes()
    return AudioFrame(samples, rate, channels, len(samples) // 2 // channels)


def _from_8(data: bytes) -> bytes:
    made = bytearray(2 * len(data))
    made[1::2] = data.translate(bytes(value ^ 0x80 for value in range(256)))  # unsigned
    return bytes(made)


def _highest(width: int) -> Callable[[bytes], bytes]:
    """The highest two bytes of each sample."""

    def convert(data: bytes) -> bytes:
        made = bytearray(2 * len(data) // width)
        made[0::2] = data[width - 2 :: width]
        made[1::2] = data[width - 1 :: width]
        return bytes(made)

    return convert


def _from_float(code: str) -> Callable[[bytes], bytes]:
    def convert(data: bytes) -> bytes:
        count = len(data) // struct.calcsize(code)
        values = struct.unpack(f"<{count}{code}", data)
        limited = (max(-1.0, min(1.0, value)) if math.isfinite(value) else 0.0 for value in values)
        return struct.pack(f"<{count}h", *(round(value * 32767) for value in limited))

    return convert


_SAMPLES: Final[Mapping[tuple[int, int], Callable[[bytes], bytes]]] = {
    (_PCM, 8): _from_8,
    (_PCM, 16): bytes,
    (_PCM, 24): _highest(3),
    (_PCM, 32): _highest(4),
    (_FLOAT, 32): _from_float("f"),
    (_FLOAT, 64): _from_float("d"),
}


class WavWriter:
    """Writes frames into a WAV file of 16 bits, in the rate and channels of the first frame.

    Use it in ``with``. The file is created at once, so an unwritable path raises an error before
    anything else happens.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._wave: wave.Wave_write | None = None
        self.seconds = 0.0

    def write(self, frame: AudioFrame) -> None:
        """Append a frame."""
        if self._wave is None:
            self._wave = wave.open(self._file, "wb")  # noqa: SIM115  closed with this object
            self._wave.setparams((frame.num_channels, 2, frame.sample_rate, 0, "NONE", "NONE"))
        self._wave.writeframesraw(bytes(frame.data))
        self.seconds += frame.duration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._wave is not None:
            self._wave.close()
        self._file.close()
