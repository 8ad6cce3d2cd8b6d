from __future__ import annotations

import base64
import json

import pytest

from rejoinder._core.items import ImageContent
from rejoinder.mcp import results
from rejoinder.mcp.results import CallResult, ToolSpec

PNG = base64.b64encode(b"\x89PNG not really").decode()
TEXT = {"type": "text", "text": "3", "annotations": None, "meta": None}
IMAGE = {"type": "image", "data": PNG, "mimeType": "image/png", "annotations": None, "meta": None}


def output(*parts: dict[str, object], **more: object) -> str | None:
    return results.output_of(CallResult(list(parts), **more), limit=1000)  # type: ignore[arg-type]


def test_one_part_is_its_json_as_in_livekit_agents() -> None:
    assert output(TEXT) == '{"type":"text","text":"3","annotations":null,"meta":null}'


def test_several_parts_are_a_json_list() -> None:
    assert json.loads(output(TEXT, TEXT) or "") == [TEXT, TEXT]


def test_nothing_is_nothing_but_a_structured_result_is_something() -> None:
    assert output() is None
    assert output(structured={"n": 1}) == '{"n":1}'


def test_a_picture_is_described_to_the_model_and_kept_for_the_program() -> None:
    made = results.output_of(CallResult([TEXT, IMAGE]), limit=1000)
    assert made is not None
    assert PNG not in made
    assert '"bytes":15' in made
    assert '"mimeType":"image/png"' in made
    (image,) = made.images
    assert image.image == f"data:image/png;base64,{PNG}"
    assert made.result.parts[1]["data"] == PNG


def test_contents_for_a_message() -> None:
    blob = {"type": "resource", "resource": {"uri": "x://a", "mimeType": "image/gif", "blob": PNG}}
    inner = {"type": "resource", "resource": {"uri": "x://b", "text": "inside"}}
    sound = {"type": "audio", "data": "AAAA", "mimeType": "audio/wav"}
    link = {"type": "resource_link", "uri": "x://c", "name": "see"}
    content = results.content_of([TEXT, IMAGE, blob, inner, sound, link])
    assert content[0] == "3"
    assert isinstance(content[1], ImageContent)
    assert isinstance(content[2], ImageContent)
    assert content[3:] == ["inside", "[audio/wav, 3 bytes]", "[resource see: x://c]"]


@pytest.mark.parametrize("parts", [1, 2, 500])
def test_the_text_is_bounded_and_says_so(parts: int) -> None:
    long = {**TEXT, "text": "x" * 100_000}
    made = results.output_of(CallResult([long] * parts), limit=5000)
    assert made is not None
    assert len(made) < 20_000
    assert "characters left out]" in made
    if parts < 10:
        json.loads(made)  # cut inside of the text, so it is still JSON


def test_large_fields_other_than_text_are_bounded_too() -> None:
    made = results.output_of(CallResult([{"type": "x", "y": ["z" * 100] * 10_000}]), limit=5000)
    assert made is not None
    assert len(made) < 6000


def test_an_error_is_its_text() -> None:
    assert results.error_text(CallResult([TEXT, TEXT], is_error=True), limit=100) == "3\n3"
    assert "gave no reason" in results.error_text(CallResult([], is_error=True), limit=100)


def test_changes_are_found_by_definition() -> None:
    def spec(name: str, text: str) -> ToolSpec:
        return ToolSpec(name, text, {"type": "object"})

    old = [spec("same", "a"), spec("other", "a"), spec("gone", "a")]
    new = [spec("new", "a"), spec("other", "b"), spec("same", "a")]
    change = results.tools_change(old, new)
    assert (change.added, change.removed, change.changed) == (("new",), ("gone",), ("other",))
    assert not results.tools_change(old, list(reversed(old)))
