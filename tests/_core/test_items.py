"""Items: copies, images, and parts that are not known."""

from __future__ import annotations

import base64
import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import PrivateAttr, ValidationError

from rejoinder._core.images import serialize_image
from rejoinder._core.items import (
    AgentHandoff,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
    dump_items,
    load_items,
    with_fields,
)
from rejoinder._core.pictures import type_of_address
from rejoinder.llm.chat_context import ChatContext


class Noted(FunctionCall):
    """An item of somebody's own."""

    note: str = ""
    _secret: dict[str, int] = PrivateAttr(default_factory=dict)


def items() -> list[Any]:
    noted = Noted(call_id="c", arguments="{}", name="n", note="mine")
    noted._secret["a"] = 1
    return [
        ChatMessage(role="user", content=["x", ImageContent(image="https://x/y.png")], hash=b"h"),
        FunctionCall(call_id="c", arguments="{}", name="n", extra={"a": {"b": 1}}),
        FunctionCallOutput(call_id="c", output="o", is_error=False),
        AgentHandoff(new_agent_id="a"),
        noted,
    ]


@pytest.mark.parametrize("item", items(), ids=lambda item: type(item).__name__)
def test_a_copy_is_what_pydantic_would_copy(item: Any) -> None:
    before = item.model_dump()
    copied = with_fields(item, created_at=7.0)
    assert type(copied) is type(item)
    assert copied == item.model_copy(update={"created_at": 7.0})
    assert with_fields(item) == item
    assert pickle.loads(pickle.dumps(copied)) == copy.deepcopy(copied) == copied
    copied.id = "other"
    assert item.model_dump() == before


def test_values_are_taken_as_they_are() -> None:
    message = ChatMessage(role="user", content=["x"])
    content: list[Any] = ["y"]
    copied = with_fields(message, content=content, role="nobody")
    assert copied.content is content
    assert copied.role == "nobody"  # type: ignore[comparison-overlap]  # on purpose
    assert copied.extra is message.extra


def test_what_was_set_is_known_of_each_copy_by_itself() -> None:
    message = ChatMessage(role="user", content=["x"])
    copied = with_fields(message, interrupted=True)
    copied.transcript_confidence = 0.5
    assert "transcript_confidence" not in message.model_fields_set
    assert {"interrupted", "transcript_confidence"} <= copied.model_fields_set
    noted = items()[-1]
    with_fields(noted)._secret = {"b": 2}
    assert noted._secret == {"a": 1}


def test_content_that_was_set_to_one_text_is_one_text() -> None:
    listed = ChatMessage(id="m", role="user", content=["Hello there"])
    message = ChatMessage(id="m", role="user", content=[])
    message.content = "Hello there"  # type: ignore[assignment]
    assert message.text_content == "Hello there"
    assert ChatContext([message]).to_dict() == ChatContext([listed]).to_dict()


# -- images from files and pictures -----------------------------------------------------------

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def test_images_from_bytes_and_files(tmp_path: Path) -> None:
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    low = ImageContent.from_bytes(PNG, inference_detail="low")
    assert (low.image, low.inference_detail) == (url, "low")
    for image in (
        ImageContent(image=PNG),  # type: ignore[arg-type]  # it is converted
        ImageContent(image=path),  # type: ignore[arg-type]  # it is converted
        ImageContent.from_file(path),
        ImageContent.from_file(str(path)),
    ):
        assert image.image == url
    assert ImageContent.from_bytes(b"%PDF-1.7").image == "data:application/pdf;base64,JVBERi0xLjc="
    assert (
        ImageContent.from_bytes(b"x", mime_type="text/plain").image == "data:text/plain;base64,eA=="
    )
    with pytest.raises(ValueError, match="mime_type="):
        ImageContent.from_bytes(b"what is this?")
    with pytest.raises(FileNotFoundError):
        ImageContent.from_file(tmp_path / "none.png")


def test_images_of_pillow() -> None:
    pictures = pytest.importorskip("PIL.Image")
    for mode, kind in (
        ("RGB", "jpeg"),
        ("L", "jpeg"),
        ("CMYK", "jpeg"),
        ("RGBA", "png"),
        ("P", "png"),
    ):
        picture = pictures.new(mode, (2, 2))
        for image in (ImageContent.from_pil(picture), ImageContent(image=picture)):
            assert isinstance(image.image, str)
            assert image.image.startswith(f"data:image/{kind};base64,")
            assert serialize_image(image).mime_type == f"image/{kind}"


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://e.x/a.PNG?x=1.jpg#y", "image/png"),
        ("gs://b/a.jpeg", "image/jpeg"),
        ("https://e.x/a.webp", "image/webp"),
        ("https://e.x/png", None),
        ("https://e.x/", None),
    ],
)
def test_an_address_may_tell_its_type(url: str, kind: str | None) -> None:
    assert type_of_address(url) == kind


# -- parts that are not known -----------------------------------------------------------------


def test_instructions_for_voice_and_writing_are_the_text_for_voice() -> None:
    """As LiveKit Agents before 1.8 wrote them."""
    given = {"type": "instructions", "audio": "Be brief.", "text": "Use lists."}
    data = [
        {"id": "1", "type": "message", "role": "system", "content": [given, {"type": "new"}, "a"]},
        {"id": "2", "type": "agent_config_update", "instructions": given},
        {"id": "3", "type": "message", "role": "system", "content": ["b"]},
    ]
    before = copy.deepcopy(data)
    message, update, other = load_items(data)
    assert data == before
    assert isinstance(message, ChatMessage)
    assert isinstance(other, ChatMessage)
    assert message.content == ["Be brief.", "a"]
    assert message.extra["rejoinder"]["content"] == [[1, {"type": "new"}]]
    assert update.instructions == "Be brief."  # type: ignore[union-attr]
    assert other.content == ["b"]


def test_instructions_for_writing_alone_are_that_text() -> None:
    given = {"type": "instructions", "text": "Use lists."}
    item = {"id": "1", "type": "message", "role": "system", "content": [given]}
    (message,) = load_items([item])
    assert isinstance(message, ChatMessage)
    assert message.content == ["Use lists."]


def test_unknown_parts_are_kept_and_written_back() -> None:
    marker = {"type": "cache_breakpoint"}
    video = {"type": "video_content", "url": "https://e.x/v", "more": [1]}
    data = [
        {
            "id": "item_1",
            "type": "message",
            "role": "system",
            "content": ["You are helpful.", marker, "More.", video],
            "interrupted": False,
            "extra": {"openai": {"a": 1}},
            "created_at": 1.0,
        },
        {"id": "2", "type": "message", "role": "user", "content": ["hi"], "interrupted": False, "created_at": 2.0},
    ]  # fmt: skip
    before = copy.deepcopy(data)
    items = load_items(data)
    assert data == before
    assert isinstance(items[0], ChatMessage)
    assert items[0].content == ["You are helpful.", "More."]
    dumped = dump_items(items, image=False, audio=False, timestamp=True, metrics=True)
    assert dumped == data
    assert load_items(dumped) == items


def test_a_broken_part_of_a_known_kind_is_still_told() -> None:
    data = [
        {"type": "message", "role": "user", "content": [{"type": "image_content"}, {"type": "x"}]}
    ]
    with pytest.raises(ValidationError, match="image"):
        load_items(data)
