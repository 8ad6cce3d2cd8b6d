"""Images as providers take them, with frames of all three kinds and the real Pillow."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import logging
import os
import pickle
import subprocess
import sys
from typing import Any

import av
import pytest
from livekit import rtc
from PIL import Image

from rejoinder._core import images
from rejoinder._core.images import (
    EncodeOptions,
    ResizeOptions,
    SerializedImage,
    encode,
    needs_preparing,
    prepare,
    serialize_image,
)
from rejoinder.llm.chat_context import ChatMessage, FunctionCall, ImageContent
from rejoinder.media import VideoBufferType, VideoFrame
from work import calls

PNG = b"\x89PNGdata"
DATA = "data:image/png;base64," + base64.b64encode(PNG).decode()


def opened(data: bytes | None) -> Image.Image:
    assert data is not None
    return Image.open(io.BytesIO(data))


def plain(red: int, green: int, blue: int, width: int = 4, height: int = 2) -> VideoFrame:
    return VideoFrame(width, height, "RGB24", bytes((red, green, blue)) * (width * height))


# --- addresses and data URLs ---


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"image": "https://x/y.png"}, ("auto", None, None, "https://x/y.png")),
        (
            {"image": "https://x/y.png", "mime_type": "image/bmp", "inference_detail": "low"},
            ("low", "image/bmp", None, "https://x/y.png"),
        ),
        ({"image": "foo"}, ("auto", None, None, "foo")),
        (
            {"image": "DATA:image/png;base64,AA=="},
            ("auto", None, None, "DATA:image/png;base64,AA=="),
        ),
        ({"image": DATA}, ("auto", "image/png", PNG, None)),
        ({"image": DATA, "mime_type": "image/png"}, ("auto", "image/png", PNG, None)),
        ({"image": DATA, "mime_type": "image/webp"}, ("auto", "image/webp", PNG, None)),
        (
            {"image": "data:image/svg+xml;base64,YWJj", "mime_type": "image/png"},
            ("auto", "image/png", b"abc", None),
        ),
        ({"image": "data:image/png,YWJj"}, ("auto", "image/png", b"abc", None)),
        ({"image": "data:image/png;x=y;base64,YWJj"}, ("auto", "image/png", b"abc", None)),
        ({"image": "data:image/png;base64,%%%"}, ("auto", "image/png", b"", None)),
        ({"image": "data:image/png;base64,-_-_"}, ("auto", "image/png", b"\xfb\xff\xbf", None)),
        ({"image": "data:image/png;base64,YW\r\nJj"}, ("auto", "image/png", b"abc", None)),
        (
            {"image": "data:image/png;base64,%2B%2f%2BA"},
            ("auto", "image/png", b"\xfb\xff\x80", None),
        ),
        ({"image": "data:image/png;base64,YW!Jj"}, ("auto", "image/png", b"abc", None)),
    ],
)
@pytest.mark.parametrize("use_cache", [True, False])
def test_text(fields: dict[str, Any], expected: tuple[Any, ...], use_cache: bool) -> None:
    result = serialize_image(ImageContent(**fields), use_cache=use_cache)
    assert result == SerializedImage(*expected)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"image": "data:image/png"}, ValueError, "no comma"),
        ({"image": "data:image/bmp;base64,YWJj"}, ValueError, "image/bmp"),
        ({"image": "data:,YWJj"}, ValueError, "image/jpeg"),
        ({"image": DATA, "mime_type": "image/bmp"}, ValueError, "image/bmp"),
        ({"image": "data:image/png;base64,YWJ", "id": "i1"}, binascii.Error, "image i1: .*padding"),
        ({"image": "data:image/png;base64,é", "id": "i1"}, ValueError, "image i1: .*ASCII"),
    ],
)
def test_broken_text(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        serialize_image(ImageContent(**fields))


def test_contradiction_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "rejoinder"):
        serialize_image(ImageContent(id="img_1", image=DATA, mime_type="image/webp"))
    assert "img_1" in caplog.text
    assert "image/webp" in caplog.text


def test_not_an_image() -> None:
    with pytest.raises(AttributeError, match="expected an ImageContent, got str"):
        serialize_image("https://x")  # type: ignore[arg-type]
    image = ImageContent(image="x")
    image.image = 7  # type: ignore[assignment]
    with pytest.raises(ValueError, match="int"):
        serialize_image(image)


# --- frames ---


@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((None, None), (4, 2)),
        ((8, 8), (8, 4)),
        ((2, 8), (2, 1)),
        ((8, None), (4, 2)),
        ((1, 1), (1, 1)),
    ],
)
def test_frames_become_jpegs(box: tuple[Any, Any], size: tuple[int, int]) -> None:
    image = ImageContent(
        image=plain(9, 9, 9), inference_width=box[0], inference_height=box[1], mime_type="image/png"
    )
    result = serialize_image(image)
    assert (result.mime_type, result.external_url) == ("image/jpeg", None)
    picture = opened(result.data_bytes)
    assert (picture.format, picture.size, picture.mode) == ("JPEG", size, "RGB")


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (90, 160, 40)]


def close(pixel: Any, colour: tuple[int, int, int], tolerance: int) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, colour, strict=True))


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize(
    ("type", "order"), [("RGBA", "rgba"), ("BGRA", "bgra"), ("ARGB", "argb"), ("ABGR", "abgr")]
)
def test_colours_of_packed_frames(colour: tuple[int, int, int], type: str, order: str) -> None:
    values = dict(zip("rgba", (*colour, 77), strict=True))
    data = bytes(values[channel] for channel in order) * 16
    for frame in (
        VideoFrame(4, 4, type, data),
        rtc.VideoFrame(4, 4, rtc.VideoBufferType.Value(type), data),
    ):
        pixel = opened(encode(frame, EncodeOptions(format="PNG"))).getpixel((2, 2))
        assert pixel == colour


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("type", ["I420", "I420A", "I422", "I444", "NV12", "I010"])
def test_colours_of_planar_frames(colour: tuple[int, int, int], type: str) -> None:
    """Against LiveKit's own conversion of the same frame, where it can; else against the colour."""
    width, height = 5, 3  # odd, so that chroma is rounded up
    red, green, blue = colour
    luma = 16 + (65.738 * red + 129.057 * green + 25.064 * blue) / 256
    u = 128 + (-37.945 * red - 74.494 * green + 112.439 * blue) / 256
    v = 128 + (112.439 * red - 94.154 * green - 18.285 * blue) / 256
    half_width = {"I444": width}.get(type, (width + 1) // 2)
    half_height = {"I444": height, "I422": height}.get(type, (height + 1) // 2)
    area, chroma = width * height, half_width * half_height
    if type == "NV12":
        data = bytes([round(luma)]) * area + bytes([round(u), round(v)]) * chroma
    elif type == "I010":
        data = b"".join(
            round(value * 4).to_bytes(2, "little") * count
            for value, count in ((luma, area), (u, chroma), (v, chroma))
        )
    else:
        data = bytes([round(luma)]) * area + bytes([round(u)]) * chroma + bytes([round(v)]) * chroma
        if type == "I420A":
            data += b"\x80" * area
    frame = VideoFrame(width, height, type, data)
    picture = opened(encode(frame, EncodeOptions(format="PNG")))
    assert picture.size == (width, height)
    for x in range(width):
        for y in range(height):
            assert close(picture.getpixel((x, y)), colour, 4), (picture.getpixel((x, y)), colour)


def test_a_picture_is_not_turned_or_mixed_up() -> None:
    """Left red, right blue; top bright, bottom dark."""
    rows = [[(255, 0, 0), (0, 0, 255)], [(100, 0, 0), (0, 0, 100)]]
    data = b"".join(bytes((*pixel, 255)) for row in rows for pixel in row)
    picture = opened(encode(VideoFrame(2, 2, "RGBA", data), EncodeOptions(format="PNG")))
    assert [[picture.getpixel((x, y)) for x in range(2)] for y in range(2)] == rows


def test_pyav_frames() -> None:
    frame = av.VideoFrame(6, 4, "rgb24")
    frame.planes[0].update((b"\xff\0\0" * 6).ljust(frame.planes[0].line_size, b"\0") * 4)
    image = ImageContent(image=frame.reformat(format="yuv420p"))  # type: ignore[arg-type]
    picture = opened(serialize_image(image).data_bytes)
    assert picture.size == (6, 4)
    assert close(picture.getpixel((3, 2)), (255, 0, 0), 12)


@pytest.mark.parametrize(
    ("strategy", "size"),
    [
        ("scale_aspect_fit", (8, 4)),
        ("center_aspect_fit", (8, 8)),
        ("scale_aspect_cover", (16, 8)),
        ("center_aspect_cover", (8, 8)),
        ("skew", (8, 8)),
    ],
)
def test_strategies(strategy: Any, size: tuple[int, int]) -> None:
    options = EncodeOptions(format="PNG", resize_options=ResizeOptions(8, 8, strategy))
    picture = opened(encode(plain(200, 0, 0), options))
    assert picture.size == size
    corner, centre = picture.getpixel((0, 0)), picture.getpixel((size[0] // 2, size[1] // 2))
    assert centre == (200, 0, 0)
    assert corner == ((0, 0, 0) if strategy == "center_aspect_fit" else (200, 0, 0))


def test_wrong_options() -> None:
    frame = plain(0, 0, 0)
    for options, message in [
        (EncodeOptions(format="GIF"), "'JPEG' or 'PNG'"),  # type: ignore[arg-type]
        (EncodeOptions(resize_options=ResizeOptions(1, 1, "stretch")), "skew"),  # type: ignore[arg-type]
        (EncodeOptions(resize_options=ResizeOptions(0, 1)), "positive"),
    ]:
        with pytest.raises(ValueError, match=message):
            encode(frame, options)


def test_quality() -> None:
    noise = VideoFrame(64, 64, "RGB24", os.urandom(64 * 64 * 3))
    assert len(encode(noise, EncodeOptions(quality=10))) < len(encode(noise)) / 2


def test_missing_pillow_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "from rejoinder._core.images import encode\n"
        "from rejoinder.media import VideoFrame\n"
        "try: encode(VideoFrame(1, 1, 'RGB24', b'abc'))\n"
        "except ImportError as error: assert 'rejoinder[images]' in str(error)\n"
        "else: raise SystemExit(1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- caches ---


def test_results_are_kept_and_changes_noticed() -> None:
    image = ImageContent(image=DATA)
    first = serialize_image(image)
    assert serialize_image(image) is first
    assert serialize_image(image, use_cache=False) is not first
    for change in (
        {"image": "https://other"},
        {"inference_detail": "low"},
        {"mime_type": "image/gif"},
    ):
        for name, value in change.items():
            setattr(image, name, value)
        result = serialize_image(image)
        assert result == serialize_image(image, use_cache=False)
    frame = ImageContent(image=plain(1, 2, 3), inference_width=8, inference_height=8)
    assert opened(serialize_image(frame).data_bytes).size == (8, 4)
    frame.inference_width = 2
    assert opened(serialize_image(frame).data_bytes).size == (2, 1)
    frame.image = plain(1, 2, 3, width=2, height=2)
    assert opened(serialize_image(frame).data_bytes).size == (2, 2)


def test_without_cache_nothing_is_written() -> None:
    image = ImageContent(image=DATA)
    serialize_image(image, use_cache=False)
    assert needs_preparing([ChatMessage(role="user", content=[image])])


def test_equality_and_pickles_ignore_the_cache() -> None:
    one, other = ImageContent(id="i", image=DATA), ImageContent(id="i", image=DATA)
    serialize_image(one)
    assert one == other
    assert pickle.dumps(one) == pickle.dumps(other)
    loaded = pickle.loads(pickle.dumps(one))
    assert loaded == one
    assert serialize_image(loaded).data_bytes == PNG


def test_equal_frames_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0
    original = images.encode

    def counting(*args: Any) -> bytes:
        nonlocal count
        count += 1
        return original(*args)

    monkeypatch.setattr(images, "encode", counting)
    data = os.urandom(48)
    made = [
        ImageContent(image=VideoFrame(4, 4, "RGB24", data)),
        ImageContent(image=rtc.VideoFrame(4, 4, rtc.VideoBufferType.RGB24, data)),  # type: ignore[arg-type]
        ImageContent(image=VideoFrame(4, 4, "RGB24", data), mime_type="x", inference_detail="low"),
    ]
    results = [serialize_image(image).data_bytes for image in made]
    assert results[0] == results[1] == results[2]
    assert count == 1
    smaller = ImageContent(image=made[0].image, inference_width=2, inference_height=2)
    serialize_image(smaller)
    serialize_image(ImageContent(image=VideoFrame(2, 8, "RGB24", data)))
    assert count == 3


def test_the_store_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_STORE_BYTES", 4000)
    for _ in range(30):
        serialize_image(ImageContent(image=VideoFrame(16, 16, "RGB24", os.urandom(768))))
    assert sum(map(len, images._store.values())) == images._store_size <= 4000


def test_preparing() -> None:
    broken = ImageContent(image="data:nothing")
    items = [
        ChatMessage(
            role="user",
            content=[
                "x",
                ImageContent(image="http://x"),
                ImageContent(image=plain(1, 1, 1)),
                broken,
            ],
        ),
        FunctionCall(call_id="c", name="n", arguments=""),
    ]
    assert needs_preparing(items)
    prepare(items)
    assert list(images._unprepared(items)) == [broken]
    assert not needs_preparing([items[1], ChatMessage(role="user", content=["x"])])


async def test_preparing_in_a_thread_leaves_nothing_for_the_loop() -> None:
    """Ten pictures of 200 kB and a large frame: what remains for the loop is looking up."""
    contents = [
        ImageContent(
            image="data:image/png;base64," + base64.b64encode(os.urandom(200_000)).decode()
        )
        for _ in range(10)
    ]
    contents.append(
        ImageContent(image=VideoFrame(1280, 720, VideoBufferType.RGBA, os.urandom(1280 * 720 * 4)))
    )
    items = [ChatMessage(role="user", content=list(contents))]
    await asyncio.to_thread(prepare, items)
    prepared = [serialize_image(image) for image in contents]
    assert all(image.data_bytes for image in prepared)
    called = calls(lambda: [needs_preparing(items), *map(serialize_image, contents)])
    assert not needs_preparing(items)
    assert not {"b64decode", "a2b_base64", "b2a_base64", "encode", "decode", "tobytes"} & set(
        called
    )
    assert called.total() < 30 * len(contents), called
