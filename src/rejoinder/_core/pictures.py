"""What the bytes of a picture tell without decoding it: its size, and whether they were cut.

Law: pure, and quick: a few bytes at the start and the end are looked at.
"""

from __future__ import annotations

import struct

__all__ = ["is_cut", "size_of"]

_PNG = b"\x89PNG\r\n\x1a\n"
# Markers of JPEG that carry the size: start of frame, but not those of tables between them.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TAIL = 1_024
"""Bytes at the end in which the end mark of a JPEG is looked for: cameras write behind it."""


def size_of(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels of a PNG, JPEG, GIF or WebP; ``None``: they cannot be told."""
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
        if marker == 0xFF:  # a byte that fills
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
