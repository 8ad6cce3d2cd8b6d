"""Type and size of pictures, from their bytes or URL, and ``data:`` URLs of pictures.

Pure and quick: it reads only a few bytes at the start and the end, and decodes nothing.
"""

from __future__ import annotations

import base64
import io
import struct
from typing import Any

__all__ = ["data_url", "data_url_of_picture", "is_cut", "shown_type", "size_of", "type_of_address"]

_PNG = b"\x89PNG\r\n\x1a\n"
# Markers of JPEG that carry the size: start of frame, but not those of tables between them.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TAIL = 1_024
"""Number of bytes at the end in which the end mark of a JPEG is searched: cameras write data after it."""
_BY_ENDING = {
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif"), "image/jpeg"),
    **{ending: f"image/{ending}" for ending in ("png", "webp", "gif", "heic", "heif", "bmp")},
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
}


def type_of_address(url: str) -> str | None:
    """The type by the extension of a URL's path, if it has one."""
    path = url.partition("#")[0].partition("?")[0]
    _, dot, ending = path.rpartition("/")[2].rpartition(".")
    return _BY_ENDING.get(ending.lower()) if dot else None


def data_url(data: bytes | bytearray, mime_type: str | None = None) -> str:
    """A ``data:`` URL of the bytes of a file.

    Args:
        mime_type: default: detected from the first bytes.

    Raises:
        ValueError: `mime_type` was not passed, and the bytes have no known type.
    """
    raw = bytes(data)
    kind = mime_type or shown_type(raw) or ("application/pdf" if raw[:5] == b"%PDF-" else "")
    if not kind:
        raise ValueError(
            f"image: expected the bytes of a JPEG, PNG, GIF or WebP, got {raw[:12]!r}...; name "
            "another type with mime_type="
        )
    return f"data:{kind};base64,{base64.b64encode(raw).decode('ascii')}"


def data_url_of_picture(picture: Any) -> str:
    """A ``data:`` URL of a Pillow image: a JPEG, or a PNG if it is transparent."""
    out = io.BytesIO()
    if picture.mode in ("RGB", "L"):
        picture.save(out, "JPEG", quality=90)
    elif picture.mode in ("CMYK", "YCbCr", "HSV", "LAB"):
        picture.convert("RGB").save(out, "JPEG", quality=90)
    else:
        picture.convert("RGBA").save(out, "PNG")
    return data_url(out.getvalue())


def shown_type(data: bytes) -> str:
    """The type by the first bytes; empty if unknown."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((mime_type for start, mime_type in _STARTS.items() if data.startswith(start)), "")


_STARTS = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"GIF8": "image/gif"}


def size_of(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels of a PNG, JPEG, GIF or WebP; ``None`` if unknown."""
    try:
        if data.startswith(_PNG):
            return struct.unpack_from(">II", data, 16)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return struct.unpack_from("<HH", data, 6)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _size_of_webp(data)
        if data.startswith(b"\xff\xd8"):
            return _size_of_jpeg(data)
    except (struct.error, IndexError):
        return None
    return None


def _size_of_webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        return width, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def _size_of_jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if marker == 0xDA:
            return None
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def is_cut(data: bytes) -> bool:
    """Whether a PNG, JPEG, GIF or WebP lacks its end; ``False`` for anything else."""
    if data.startswith(_PNG):
        return b"IEND" not in data[-_TAIL:]
    if data.startswith((b"GIF87a", b"GIF89a")):
        return b"\x3b" not in data[-_TAIL:]
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data) + 1
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data[-_TAIL:]
    return False
