"""Images as providers take them: bytes of a known type, or an address.

Law: pure functions of an image; no loop, no network. Decoding and encoding take milliseconds, so code
with an event loop first calls `prepare` in a thread; then `serialize_image` only looks up the result.
Pillow is imported only to encode a frame.

Results have two caches. The `ImageContent` holds one, keyed by the identity of the image, its size,
type and detail. Encoded frames are also in a small store, keyed by content and size, so that a
conversation that was copied or reloaded is not encoded again. Replacing the image of a content is
noticed; changing the bytes of a frame in place is not.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast
from urllib.parse import unquote

from rejoinder._core.items import ChatItem, ImageContent
from rejoinder._core.pictures import shown_type
from rejoinder._sections import explained
from rejoinder.media import VideoBufferType, VideoFrameLike, to_video_frame

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "EncodeOptions",
    "ResizeOptions",
    "SerializedImage",
    "data_of",
    "encode",
    "needs_preparing",
    "prepare",
    "serialize_image",
]

logger = logging.getLogger("rejoinder")

SUPPORTED_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif")

Strategy: TypeAlias = Literal[
    "center_aspect_fit", "center_aspect_cover", "scale_aspect_fit", "scale_aspect_cover", "skew"
]


@dataclass
class SerializedImage:
    """An image, ready for a provider: either `data_bytes` or `external_url`."""

    inference_detail: str
    mime_type: str | None
    data_bytes: bytes | None = None
    external_url: str | None = None


@dataclass(frozen=True)
class ResizeOptions:
    """The target size in pixels, and what to do if the proportions differ."""

    width: int
    height: int
    strategy: Strategy = "scale_aspect_fit"
    """``center_aspect_fit``: fit, with black borders; ``center_aspect_cover``: fill, cut the rest;
    ``scale_aspect_fit``: the largest size inside; ``scale_aspect_cover``: the smallest size around;
    ``skew``: exactly this size."""


@dataclass(frozen=True)
class EncodeOptions:
    """The encoding of a frame as a file."""

    format: Literal["JPEG", "PNG"] = "JPEG"
    resize_options: ResizeOptions | None = None
    quality: int = 75
    """Quality of a JPEG, 0 to 95."""


def serialize_image(image: ImageContent, *, use_cache: bool = True) -> SerializedImage:
    """An image in the form that providers take.

    A ``data:`` URL is decoded, a frame becomes a JPEG (scaled to fit if both `inference_width` and
    `inference_height` are set), and any other text counts as a URL.

    Args:
        image: the image; its cache is used and filled.
        use_cache: with false the cache is neither read nor written.

    Raises:
        ValueError: a ``data:`` URL without a comma, with broken base64, or of a type that no
            provider accepts; or an image that is neither text nor a frame. (Characters outside
            base64 are ignored.)
        AttributeError: `image` is not an `ImageContent`.
        ImportError: Pillow is needed and missing.
    """
    if not isinstance(cast("object", image), ImageContent):
        raise AttributeError(
            f"serialize_image: expected an ImageContent, got {type(image).__name__}; write "
            "ImageContent(image=...)"
        )
    return (_remembered(image) if use_cache else _serialized(image, stored=False))[0]


def data_of(image: ImageContent) -> tuple[bytes, str, bool]:
    """The bytes in an image's ``data:`` URL, their type by the first bytes (empty if unknown), and
    whether the URL had no ignored characters.

    Raises:
        ValueError: nothing can be read from it.
    """
    try:
        read, whole = _remembered(image)
        data = read.data_bytes or b""
    except ValueError:
        # Perhaps only the declared type is wrong.
        _, data, whole = _decode_data_url(str(image.image), image.id)
    return data, shown_type(data), whole


def _remembered(image: ImageContent) -> _Read:
    cached = _cached(image)
    if cached is None:
        cached = _serialized(image, stored=True)
        # One entry, written at once: copies of an image share the cache, even between threads.
        image._cache["serialized_image"] = (image.image, _shape(image), cached)
    return cached


def needs_preparing(items: Iterable[ChatItem]) -> bool:
    """Whether `prepare` has anything to do that takes time."""
    return any(True for _ in _unprepared(items))


def prepare(items: Iterable[ChatItem]) -> None:
    """Decode and encode what is not yet cached. Meant for a thread.

    Skips an image that cannot be serialized; the error is raised where the image is used.
    """
    for image in _unprepared(items):
        try:
            serialize_image(image)
        except (ValueError, TypeError, ImportError):
            continue


def _unprepared(items: Iterable[ChatItem]) -> Iterable[ImageContent]:
    for item in items:
        if item.type != "message":
            continue
        for part in item.content:
            if isinstance(part, str) or part.type != "image_content":
                continue
            if isinstance(part.image, str) and not part.image.startswith("data:"):
                continue
            if _cached(part) is None:
                yield part


_Read: TypeAlias = tuple[SerializedImage, bool]
"""The facts about an image that a provider needs, and whether all of them could be read."""


def _cached(image: ImageContent) -> _Read | None:
    entry: tuple[object, object, _Read] | None = image._cache.get("serialized_image")
    if entry is None or entry[1] != _shape(image):
        return None
    source = image.image
    if entry[0] is source or (isinstance(source, str) and entry[0] == source):
        return entry[2]
    return None


def _shape(image: ImageContent) -> tuple[object, ...]:
    return (
        image.inference_width,
        image.inference_height,
        image.inference_detail,
        image.mime_type,
    )


def _serialized(image: ImageContent, *, stored: bool) -> _Read:
    source: Any = image.image
    detail = image.inference_detail
    if isinstance(source, str):
        if not source.startswith("data:"):
            read = SerializedImage(
                inference_detail=detail, mime_type=image.mime_type, external_url=source
            )
            return read, True
        mime_type, data, whole = _decode_data_url(source, image.id)
        if image.mime_type and image.mime_type != mime_type:
            logger.warning(
                "image %s: its mime_type is %s, its data URL has %s; sent as %s",
                image.id,
                image.mime_type,
                mime_type,
                image.mime_type,
            )
            mime_type = image.mime_type
        if mime_type not in SUPPORTED_TYPES:
            raise ValueError(
                f"image {image.id}: expected one of {', '.join(SUPPORTED_TYPES)}, got {mime_type!r}"
            )
        read = SerializedImage(inference_detail=detail, mime_type=mime_type, data_bytes=data)
        return read, whole
    try:
        frame = to_video_frame(source)
    except TypeError as error:
        raise ValueError(
            f"image {image.id}: expected a URL, a data URL or a video frame, "
            f"got {type(source).__name__}"
        ) from error
    width, height = image.inference_width, image.inference_height
    resize = ResizeOptions(width, height) if width and height else None
    options = EncodeOptions(resize_options=resize)
    data = _encode_stored(frame, options) if stored else encode(frame, options)
    read = SerializedImage(inference_detail=detail, mime_type="image/jpeg", data_bytes=data)
    return read, True


def _decode_data_url(url: str, image_id: str) -> tuple[str, bytes, bool]:
    """Type and bytes, and whether no characters were ignored."""
    header, comma, payload = url.partition(",")
    if not comma:
        raise ValueError(
            f"image {image_id}: expected a data URL like 'data:<type>;base64,<data>', got no comma "
            f"in {url[:40]!r}"
        )
    mime_type = header.split(";", 1)[0].split(":", 1)[1]
    try:
        return mime_type, base64.b64decode(payload, validate=True), True
    except ValueError:
        pass
    # In a URL, base64 may be escaped, use the URL alphabet, or contain line breaks.
    plain = "".join(unquote(payload).split()).translate(_PLAIN_ALPHABET)
    try:
        return mime_type, base64.b64decode(plain, validate=True), True
    except ValueError:
        pass
    try:
        return mime_type, base64.b64decode(plain), False
    except ValueError as error:
        what = f"image {image_id}: its data URL is not valid base64: {error}"
        raise (
            binascii.Error(what) if isinstance(error, binascii.Error) else ValueError(what)
        ) from None


_PLAIN_ALPHABET = str.maketrans("-_", "+/")


# --- encoding ---

_STORE_BYTES = 16 * 1024 * 1024
_store: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
_store_size = 0
_store_lock = threading.Lock()


def _encode_stored(frame: VideoFrameLike, options: EncodeOptions) -> bytes:
    global _store_size
    content = hashlib.blake2b(frame.data, digest_size=20).digest()
    key = (content, frame.width, frame.height, int(frame.type), options)
    with _store_lock:
        data = _store.get(key)
        if data is not None:
            _store.move_to_end(key)
            return data
    data = encode(frame, options)
    with _store_lock:
        if key not in _store:
            _store[key] = data
            _store_size += len(data)
            while _store_size > _STORE_BYTES:
                _store_size -= len(_store.popitem(last=False)[1])
    return data


def encode(frame: Any, options: EncodeOptions | None = None) -> bytes:
    """A video frame as a JPEG or PNG file.

    Args:
        frame: a video frame of rejoinder, ``livekit.rtc`` or PyAV.
        options: format, size and quality; a JPEG of the frame's own size by default.

    Raises:
        ImportError: Pillow is missing.
        ValueError: an unknown format or strategy, or a size that is not positive.
    """
    options = options or EncodeOptions()
    if options.format not in ("JPEG", "PNG"):
        raise ValueError(f"image format: expected 'JPEG' or 'PNG', got {options.format!r}")
    picture = _rgb(to_video_frame(frame))
    if options.resize_options is not None:
        picture = _resized(picture, options.resize_options)
    file = io.BytesIO()
    if options.format == "JPEG":
        picture.save(file, format="JPEG", quality=options.quality)
    else:
        picture.save(file, format="PNG")
    return file.getvalue()


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            explained(
                "encoding a video frame needs Pillow: pip install 'rejoinder[images]'",
                "missing package",
            )
        ) from error
    return Image


def _rgb(frame: VideoFrameLike) -> Image:
    module = _pillow()
    size = (frame.width, frame.height)
    data = frame.data
    kind = VideoBufferType(frame.type)
    layout = _PACKED.get(kind)
    if layout is None:
        return _rgb_of_yuv(module, frame, kind)
    return module.frombytes("RGB", size, bytes(data), "raw", layout)


# In Pillow's names; X is the byte of the alpha channel, which is dropped.
_PACKED = {
    VideoBufferType.RGBA: "RGBX",
    VideoBufferType.BGRA: "BGRX",
    VideoBufferType.ARGB: "XRGB",
    VideoBufferType.ABGR: "XBGR",
    VideoBufferType.RGB24: "RGB",
}

# BT.601 in studio range, as WebRTC sends it, stretched to the full range Pillow expects.
_LUMA = [min(255, max(0, round((value - 16) * 255 / 219))) for value in range(256)]
_CHROMA = [min(255, max(0, round((value - 128) * 255 / 224 + 128))) for value in range(256)]


def _rgb_of_yuv(module: Any, frame: VideoFrameLike, kind: VideoBufferType) -> Image:
    width, height = frame.width, frame.height
    data = memoryview(frame.data).cast("B")
    half_width, half_height = (width + 1) // 2, (height + 1) // 2
    if kind is VideoBufferType.I010:
        # Ten bits in two little-endian bytes: the upper eight of the ten are enough.
        data = memoryview(bytes(_ten_to_eight(data)))
    chroma_size = {
        VideoBufferType.I422: (half_width, height),
        VideoBufferType.I444: (width, height),
    }.get(kind, (half_width, half_height))
    luma = width * height
    area = chroma_size[0] * chroma_size[1]
    if kind is VideoBufferType.NV12:
        both = data[luma : luma + 2 * area]
        planes = (bytes(both[0::2]), bytes(both[1::2]))
    else:
        planes = (bytes(data[luma : luma + area]), bytes(data[luma + area : luma + 2 * area]))
    y = module.frombytes("L", (width, height), bytes(data[:luma])).point(_LUMA)
    chroma = [module.frombytes("L", chroma_size, plane).point(_CHROMA) for plane in planes]
    if chroma_size != (width, height):
        full = (2 * chroma_size[0], height if chroma_size[1] == height else 2 * chroma_size[1])
        chroma = [
            plane.resize(full, module.Resampling.BILINEAR).crop((0, 0, width, height))
            for plane in chroma
        ]
    return module.merge("YCbCr", (y, *chroma)).convert("RGB")


def _ten_to_eight(data: memoryview) -> bytes:
    low = int.from_bytes(data[0::2].tobytes(), "little")
    high = int.from_bytes(data[1::2].tobytes(), "little")
    size = len(data) // 2
    mask = int.from_bytes(b"\x3f" * size, "little")
    return (
        ((low >> 2) & mask) | ((high & int.from_bytes(b"\x03" * size, "little")) << 6)
    ).to_bytes(size, "little")


def _resized(picture: Image, options: ResizeOptions) -> Image:
    module = _pillow()
    width, height = options.width, options.height
    if width <= 0 or height <= 0:
        raise ValueError(f"image size: expected positive numbers, got {width}x{height}")
    if options.strategy == "skew":
        return picture.resize((width, height))
    if options.strategy in ("scale_aspect_fit", "center_aspect_fit"):
        fitted = picture.resize(_fit(picture.size, width, height))
        if options.strategy == "scale_aspect_fit":
            return fitted
        canvas = module.new("RGB", (width, height))
        canvas.paste(fitted, ((width - fitted.width) // 2, (height - fitted.height) // 2))
        return canvas
    if options.strategy in ("scale_aspect_cover", "center_aspect_cover"):
        covering = picture.resize(_cover(picture.size, width, height))
        if options.strategy == "scale_aspect_cover":
            return covering
        left, top = (covering.width - width) // 2, (covering.height - height) // 2
        return covering.crop((left, top, left + width, top + height))
    raise ValueError(
        "resize strategy: expected center_aspect_fit, center_aspect_cover, scale_aspect_fit, "
        f"scale_aspect_cover or skew, got {options.strategy!r}"
    )


def _fit(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    new_width, new_height = width, int(size[1] * width / size[0])
    if new_height > height:
        new_width, new_height = int(size[0] * height / size[1]), height
    return max(1, new_width), max(1, new_height)


def _cover(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    new_width, new_height = width, int(size[1] * width / size[0])
    if new_height < height:
        new_width, new_height = int(size[0] * height / size[1]), height
    return max(width, new_width), max(height, new_height)
