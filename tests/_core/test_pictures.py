"""Sizes and ends of pictures, told from their bytes and compared with what Pillow reads."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rejoinder._core.pictures import is_cut, size_of
from rejoinder._core.repair import repair
from rejoinder.llm.chat_context import ChatMessage, ImageContent

FORMATS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("GIF", {}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
]


def picture(kind: str, width: int, height: int, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize(("kind", "options"), FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (300, 7), (5, 8_100)])
def test_the_size_is_that_of_the_picture(
    kind: str, options: dict[str, Any], size: tuple[int, int]
) -> None:
    data = picture(kind, *size, **options)
    assert size_of(data) == size
    assert not is_cut(data)


@pytest.mark.parametrize(("kind", "options"), FORMATS)
def test_what_is_cut_is_seen(kind: str, options: dict[str, Any]) -> None:
    data = picture(kind, 64, 64, **options)
    for length in (20, len(data) // 2, len(data) - 12):
        assert is_cut(data[:length])


def test_bytes_behind_the_end_are_no_cut() -> None:
    for kind in ("PNG", "JPEG", "GIF"):
        assert not is_cut(picture(kind, 8, 8) + b"\0" * 500)


@given(
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF....WEBP", b"\xff\xd8"]),
    st.binary(max_size=64),
)
def test_no_bytes_are_too_odd(head: bytes, rest: bytes) -> None:
    size_of(head + rest)
    is_cut(head + rest)


def messages(*pictures: bytes) -> list[Any]:
    return [
        ChatMessage(role="user", content=["look", ImageContent.from_bytes(data)])
        for data in pictures
    ]


def told(provider: str, *pictures: bytes) -> list[str]:
    found, changes = repair(messages(*pictures), provider)
    assert repair(found, provider)[1] == []
    return [change.detail for change in changes]


def test_what_claude_refuses_is_told_in_words() -> None:
    assert "9000 x 50 pixels" in told("anthropic", picture("PNG", 9_000, 50))[0]
    assert told("openai", picture("PNG", 9_000, 50)) == []
    assert told("anthropic", picture("PNG", 8_000, 5)) == []
    for provider in ("anthropic", "openai", "google"):
        assert "truncated" in told(provider, picture("PNG", 64, 64)[:60])[0]


def test_many_pictures_may_not_be_large() -> None:
    large = picture("PNG", 2_100, 5)
    assert told("anthropic", *[large] * 20) == []
    assert len(told("anthropic", *[large] * 21)) == 21
