"""Frames of sound and pictures: our own small types, and conversion of frames of other packages.

A frame of ``livekit.rtc`` or PyAV is accepted wherever one of ours is. It is recognized by its shape,
without importing either package. LiveKit's frames are kept unchanged; PyAV's are converted to ours,
because they can be neither copied nor pickled.
"""

from __future__ import annotations

import base64
import binascii
from array import array
from collections.abc import Mapping
from enum import IntEnum
from operator import index
from typing import Any, Protocol, SupportsIndex, TypeAlias, cast

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from rejoinder._foreign import has, read
from rejoinder._options import COUNT, WHOLE, checked

__all__ = [
    "AudioFrame",
    "AudioFrameLike",
    "VideoBufferType",
    "VideoFrame",
    "VideoFrameLike",
    "audio_bytes",
    "picture_fault",
    "same_frame",
    "to_audio_frame",
    "to_video_frame",
]

Buffer: TypeAlias = bytes | bytearray | memoryview

_SAMPLE_SIZE = 2


class AudioFrameLike(Protocol):
    """The interface of a sound frame: signed 16-bit samples, interleaved by channel."""

    @property
    def data(self) -> Buffer: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def num_channels(self) -> int: ...
    @property
    def samples_per_channel(self) -> int: ...


class VideoFrameLike(Protocol):
    """The interface of a picture; `type` is a `VideoBufferType` or its number."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def type(self) -> int: ...
    @property
    def data(self) -> Buffer: ...


class VideoBufferType(IntEnum):
    """The layout of the pixels in memory. Names and numbers are those of ``livekit.rtc``."""

    RGBA = 0
    ABGR = 1
    ARGB = 2
    BGRA = 3
    RGB24 = 4
    I420 = 5
    I420A = 6
    I422 = 7
    I444 = 8
    I010 = 9
    NV12 = 10


class AudioFrame:
    """Interleaved signed 16-bit samples in the byte order of this machine.

    Args:
        data: at least ``num_channels * samples_per_channel`` samples of two bytes; copied, unless it is `bytes`.
        sample_rate: samples a second, per channel.
        num_channels: the number of interleaved channels.
        samples_per_channel: the number of samples of each channel.

    Raises:
        ValueError: a number is not whole or too small, or `data` is too short or half a sample too long.
        TypeError: `data` is not bytes.
    """

    __slots__ = ("_data", "_num_channels", "_sample_rate", "_samples_per_channel")

    def __init__(
        self, data: Buffer, sample_rate: int, num_channels: int, samples_per_channel: int
    ) -> None:
        self._data = _bytes(data, "AudioFrame")
        self._sample_rate = _whole(sample_rate, "AudioFrame.sample_rate", 1)
        self._num_channels = _whole(num_channels, "AudioFrame.num_channels", 1)
        self._samples_per_channel = _whole(samples_per_channel, "AudioFrame.samples_per_channel", 0)
        needed = num_channels * samples_per_channel * _SAMPLE_SIZE
        if len(self._data) < needed or len(self._data) % _SAMPLE_SIZE:
            raise ValueError(
                f"AudioFrame.data: expected at least {needed} bytes and an even number "
                f"({num_channels} channels of {samples_per_channel} 16-bit samples), "
                f"got {len(self._data)}"
            )

    @classmethod
    @checked(sample_rate=COUNT, num_channels=COUNT, samples_per_channel=WHOLE)
    def create(cls, sample_rate: int, num_channels: int, samples_per_channel: int) -> AudioFrame:
        """A frame of silence."""
        size = num_channels * samples_per_channel * _SAMPLE_SIZE
        return cls(bytes(size), sample_rate, num_channels, samples_per_channel)

    @property
    def data(self) -> memoryview:
        """The samples, as a read-only view of 16-bit integers."""
        return memoryview(self._data).cast("h")

    @property
    def sample_rate(self) -> int:
        """Samples a second, per channel."""
        return self._sample_rate

    @property
    def num_channels(self) -> int:
        """The number of interleaved channels."""
        return self._num_channels

    @property
    def samples_per_channel(self) -> int:
        """The number of samples of each channel."""
        return self._samples_per_channel

    @property
    def duration(self) -> float:
        """Seconds."""
        return self._samples_per_channel / self._sample_rate

    def __repr__(self) -> str:
        return (
            f"AudioFrame(sample_rate={self._sample_rate}, num_channels={self._num_channels}, "
            f"samples_per_channel={self._samples_per_channel}, duration={self.duration:.3f})"
        )

    def __eq__(self, other: object) -> bool:
        return _is_audio(other) and _audio_key(self) == _audio_key(other)

    def __hash__(self) -> int:
        return hash(_audio_key(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return AudioFrame, (
            self._data,
            self._sample_rate,
            self._num_channels,
            self._samples_per_channel,
        )

    def __copy__(self) -> AudioFrame:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> AudioFrame:
        return self  # nothing in it can change

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _frame_schema(
            to_audio_frame,
            _dump_audio,
            {
                "data": core_schema.str_schema(),
                "sample_rate": core_schema.int_schema(),
                "num_channels": core_schema.int_schema(),
                "samples_per_channel": core_schema.int_schema(),
            },
        )


class VideoFrame:
    """One picture.

    Args:
        width: in pixels.
        height: in pixels.
        type: the layout of the pixels in `data`; a `VideoBufferType`, its name or its number.
        data: the planes one after another, without padding; copied, unless it is `bytes`.

    Raises:
        ValueError: a size is not a whole number, `type` is not known, or `data` is too short for it.
        TypeError: `data` is not bytes.
    """

    __slots__ = ("_data", "_height", "_type", "_width")

    def __init__(
        self, width: int, height: int, type: VideoBufferType | str | int, data: Buffer
    ) -> None:
        self._width = _whole(width, "VideoFrame.width", 1)
        self._height = _whole(height, "VideoFrame.height", 1)
        self._type = _buffer_type(type)
        self._data = _bytes(data, "VideoFrame")
        needed = _buffer_size(self._type, width, height)
        if len(self._data) < needed:
            raise ValueError(
                f"VideoFrame.data: expected {needed} bytes for {width}x{height} "
                f"{self._type.name}, got {len(self._data)}"
            )

    @property
    def width(self) -> int:
        """In pixels."""
        return self._width

    @property
    def height(self) -> int:
        """In pixels."""
        return self._height

    @property
    def type(self) -> VideoBufferType:
        """The layout of the pixels in `data`."""
        return self._type

    @property
    def data(self) -> memoryview:
        """The planes one after another, as a read-only view of bytes."""
        return memoryview(self._data)

    def __repr__(self) -> str:
        return f"VideoFrame(width={self._width}, height={self._height}, type={self._type.name})"

    def __eq__(self, other: object) -> bool:
        return _is_video(other) and _video_key(self) == _video_key(other)

    def __hash__(self) -> int:
        return hash(_video_key(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return VideoFrame, (self._width, self._height, self._type.name, self._data)

    def __copy__(self) -> VideoFrame:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> VideoFrame:
        return self  # nothing in it can change

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _frame_schema(
            to_video_frame,
            _dump_video,
            {
                "width": core_schema.int_schema(),
                "height": core_schema.int_schema(),
                "type": core_schema.str_schema(),
                "data": core_schema.str_schema(),
            },
        )


# --- what is accepted ---


def to_audio_frame(value: Any) -> AudioFrameLike:
    """`value` as a frame of sound.

    A frame of ours or of ``livekit.rtc`` is returned unchanged. A PyAV frame, or a mapping with the
    keys of the frame (`data` as base64 or bytes), is converted to one of ours. Of a tuple, the first
    element is used.

    Raises:
        TypeError: it is something else.
        ValueError: a mapping lacks a key or holds a wrong value.
    """
    value = _first(value)
    if isinstance(value, AudioFrame) or _is_audio(value):
        return cast("AudioFrameLike", value)
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        _require(
            fields, "AudioFrame", ("data", "sample_rate", "num_channels", "samples_per_channel")
        )
        return AudioFrame(
            _decoded(fields["data"], "AudioFrame"),
            fields["sample_rate"],
            fields["num_channels"],
            fields["samples_per_channel"],
        )
    if has(value, "planes", "layout", "samples", "sample_rate", "format"):
        return _from_pyav_audio(value)
    raise TypeError(
        "expected an audio frame (rejoinder.media, livekit.rtc or PyAV) or a mapping with data, "
        f"sample_rate, num_channels and samples_per_channel, got {type(value).__name__}"
    )


def to_video_frame(value: Any) -> VideoFrameLike:
    """`value` as a picture; see `to_audio_frame`.

    Raises:
        TypeError: it is not a frame.
        ValueError: a mapping lacks a key or holds a wrong value.
    """
    value = _first(value)
    if isinstance(value, VideoFrame) or _is_video(value):
        return cast("VideoFrameLike", value)
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        _require(fields, "VideoFrame", ("width", "height", "type", "data"))
        return VideoFrame(
            fields["width"],
            fields["height"],
            fields["type"],
            _decoded(fields["data"], "VideoFrame"),
        )
    if has(value, "planes", "width", "height", "format", "reformat"):
        return _from_pyav_video(value)
    raise TypeError(
        "expected a video frame (rejoinder.media, livekit.rtc or PyAV) or a mapping with width, "
        f"height, type and data, got {type(value).__name__}"
    )


def picture_fault(frame: Any) -> str:
    """Why a frame of any package does not hold a picture; empty if it does."""
    try:
        width = _whole(frame.width, "width", 1)
        height = _whole(frame.height, "height", 1)
        needed = _buffer_size(_buffer_type(frame.type), width, height)
        size = memoryview(frame.data).nbytes
    except (AttributeError, TypeError, ValueError) as error:
        return str(error)
    return f"expected {needed} bytes, got {size}" if size < needed else ""


def audio_bytes(frame: Any) -> bytes:
    """The interleaved signed 16-bit samples of any accepted frame, exactly the declared number.

    Raises:
        TypeError: it is not an audio frame.
    """
    sound = to_audio_frame(frame)
    data = bytes(sound.data)
    size = sound.num_channels * sound.samples_per_channel * _SAMPLE_SIZE
    return data if len(data) == size else data[:size]


def _first(value: Any) -> Any:
    if isinstance(value, tuple) and value:
        return cast("tuple[Any, ...]", value)[0]
    return cast("Any", value)


def _is_audio(value: object) -> bool:
    return isinstance(value, AudioFrame) or has(
        value, "data", "sample_rate", "num_channels", "samples_per_channel"
    )


def _is_video(value: object) -> bool:
    return isinstance(value, VideoFrame) or has(value, "width", "height", "type", "data")


def _audio_key(frame: Any) -> tuple[int, int, int, bytes]:
    return (frame.sample_rate, frame.num_channels, frame.samples_per_channel, bytes(frame.data))


def _video_key(frame: Any) -> tuple[int, int, int, bytes]:
    return (frame.width, frame.height, _buffer_type(frame.type), bytes(frame.data))


def same_frame(a: Any, b: Any) -> bool:
    """Whether two frames, of any package, have the same content."""
    if a is b:
        return True
    if _is_audio(a) and _is_audio(b):
        return _audio_key(a) == _audio_key(b)
    if _is_video(a) and _is_video(b):
        return _video_key(a) == _video_key(b)
    return bool(a == b)


def _buffer_type(type: VideoBufferType | str | int) -> VideoBufferType:
    try:
        return VideoBufferType[type] if isinstance(type, str) else VideoBufferType(type)
    except (KeyError, ValueError):
        raise ValueError(
            f"VideoFrame.type: expected one of {', '.join(VideoBufferType.__members__)}, "
            f"got {type!r}"
        ) from None


def _buffer_size(type: VideoBufferType, width: int, height: int) -> int:
    luma = width * height
    half_width, half_height = (width + 1) // 2, (height + 1) // 2
    match type:
        case VideoBufferType.RGB24 | VideoBufferType.I444:
            return luma * 3
        case VideoBufferType.I420 | VideoBufferType.NV12:
            return luma + 2 * half_width * half_height
        case VideoBufferType.I420A:
            return 2 * luma + 2 * half_width * half_height
        case VideoBufferType.I422:
            return luma + 2 * half_width * height
        case VideoBufferType.I010:
            return 2 * (luma + 2 * half_width * half_height)
        case _:
            return luma * 4


def _require(fields: Mapping[str, Any], name: str, keys: tuple[str, ...]) -> None:
    missing = [key for key in keys if key not in fields]
    if missing:
        raise ValueError(f"{name}: expected the keys {', '.join(keys)}; missing: {missing}")


def _whole(value: object, name: str, least: int) -> int:
    try:
        number = -1 if isinstance(value, bool) else index(cast("SupportsIndex", value))
    except TypeError:
        number = -1
    if number < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    return number


def _bytes(data: object, name: str) -> bytes:
    if type(data) is bytes:
        return data  # immutable
    try:
        return bytes(memoryview(cast("Buffer", data)))
    except TypeError:
        raise TypeError(f"{name}.data: expected bytes, got {type(data).__name__}") from None


def _decoded(data: Any, name: str) -> bytes:
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(cast("Buffer", data))
    if isinstance(data, str):
        try:
            return base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"{name}.data: expected base64 text: {error}") from None
    raise ValueError(f"{name}.data: expected base64 text or bytes, got {type(data).__name__}")


# --- PyAV ---

# Format name without "p" -> (array code, zero level, full scale)
_PYAV_SAMPLES: dict[str, tuple[str, float, float]] = {
    "u8": ("B", 128.0, 128.0),
    "s16": ("h", 0.0, 32768.0),
    "s32": ("i", 0.0, 2147483648.0),
    "s64": ("q", 0.0, 9223372036854775808.0),
    "flt": ("f", 0.0, 1.0),
    "dbl": ("d", 0.0, 1.0),
}


def _from_pyav_audio(frame: Any) -> AudioFrame:
    name = str(frame.format.name)
    planar = name.endswith("p")
    known = _PYAV_SAMPLES.get(name.removesuffix("p"))
    if known is None:
        raise ValueError(
            f"PyAV audio frame: expected one of the formats {', '.join(_PYAV_SAMPLES)} "
            f"(packed or planar), got {name!r}; resample it first"
        )
    channels = int(frame.layout.nb_channels)
    count = int(frame.samples)
    interleaved = array("h", bytes(count * channels * _SAMPLE_SIZE))
    if planar:
        for channel in range(channels):
            interleaved[channel::channels] = _samples(frame.planes[channel], known, count)
    else:
        interleaved[:] = _samples(frame.planes[0], known, count * channels)
    return AudioFrame(interleaved.tobytes(), int(frame.sample_rate), channels, count)


def _samples(plane: Any, form: tuple[str, float, float], count: int) -> array[int]:
    code, zero, full = form
    raw: array[Any] = array(code)
    raw.frombytes(bytes(plane)[: count * raw.itemsize])  # planes are padded at their end
    if code == "h":
        return raw
    scale = 32768.0 / full
    return array("h", [_clipped((value - zero) * scale) for value in raw])


def _clipped(value: float) -> int:
    if value >= 32767.0:
        return 32767
    if value <= -32768.0:
        return -32768
    return round(value) if value == value else 0  # NaN is silence


def _from_pyav_video(frame: Any) -> VideoFrame:
    # PyAV converts the frame, because only PyAV knows its colour space.
    components = frame.format.components
    alpha = any(bool(read(component, "is_alpha")) for component in components)
    name, type, size = ("rgba", "RGBA", 4) if alpha else ("rgb24", "RGB24", 3)
    picture = frame if frame.format.name == name else frame.reformat(format=name)
    plane = picture.planes[0]
    row = int(picture.width) * size
    data = bytes(plane)
    if plane.line_size != row:  # rows are padded
        line = int(plane.line_size)
        data = b"".join(
            data[start : start + row] for start in range(0, line * int(picture.height), line)
        )
    return VideoFrame(int(picture.width), int(picture.height), type, data)


# --- pydantic ---


def _dump_audio(frame: Any) -> dict[str, Any]:
    return {
        "data": base64.b64encode(bytes(frame.data)).decode(),
        "sample_rate": frame.sample_rate,
        "num_channels": frame.num_channels,
        "samples_per_channel": frame.samples_per_channel,
    }


def _dump_video(frame: Any) -> dict[str, Any]:
    return {
        "width": frame.width,
        "height": frame.height,
        "type": _buffer_type(frame.type).name,
        "data": base64.b64encode(bytes(frame.data)).decode(),
    }


def _frame_schema(validate: Any, dump: Any, fields: dict[str, CoreSchema]) -> CoreSchema:
    mapping = core_schema.typed_dict_schema(
        {name: core_schema.typed_dict_field(schema) for name, schema in fields.items()}
    )
    validator = core_schema.no_info_plain_validator_function(validate)
    return core_schema.json_or_python_schema(
        json_schema=core_schema.chain_schema([mapping, validator]),
        python_schema=validator,
        serialization=core_schema.plain_serializer_function_ser_schema(dump, return_schema=mapping),
    )
