"""A picture that a tool returns reaches the model as a picture, or as a few words, never as base64."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.conversation import IMAGE, PNG, sent
from rejoinder._core.estimates import estimate_tokens
from rejoinder._core.repair import repair
from rejoinder._core.results import without_pictures
from rejoinder._core.trimming import render_for_summary
from rejoinder.llm import ChatContext, FunctionCall, FunctionCallOutput, ImageContent
from rejoinder.llm.utils import compute_chat_ctx_diff, make_function_call_output
from rejoinder.mcp.results import CallResult, output_of
from rejoinder.providers import anthropic, aws, google, mistralai, openai

PICTURE = IMAGE
BIG = PNG[:-12] + "A" * 400
GIF = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
TOLD = "(a picture (image/png) that cannot be shown here)"


def answered(output: str, *, is_error: bool = False, extra: Any = None) -> ChatContext:
    context = ChatContext.empty()
    context.add_message(role="user", content="Show me.")
    context.insert(
        [
            FunctionCall(call_id="call_0001", name="draw", arguments="{}", extra=extra or {}),
            FunctionCallOutput(call_id="call_0001", name="draw", output=output, is_error=is_error),
        ]
    )
    return context


def claude(url: str) -> Any:
    return anthropic.LLM(api_key="k", base_url=url)


def converse(model: str) -> Callable[[str], Any]:
    return lambda url: aws.LLM(model=model, api_key="k", api_secret="s", base_url=url)


def gemini(model: str) -> Callable[[str], Any]:
    return lambda url: google.LLM(model=model, api_key="k", base_url=url)


def gpt(**options: Any) -> Callable[[str], Any]:
    return lambda url: openai.LLM(api_key="k", base_url=f"{url}/v1", **options)


RESPONSES = gpt(model="gpt-5", api="responses")
SHOWN: list[tuple[Callable[[str], Any], Any]] = [
    (
        claude,
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
    ),
    (
        converse("anthropic.claude-sonnet-4-5-20250929-v1:0"),
        {"image": {"format": "png", "source": {"bytes": PNG}}},
    ),
    (gemini("gemini-3-flash-preview"), {"inlineData": {"mimeType": "image/png", "data": PNG}}),
    (RESPONSES, {"type": "input_image", "image_url": IMAGE, "detail": "auto"}),
]
TOLD_ONLY: list[Callable[[str], Any]] = [
    gpt(model="gpt-5"),
    gpt(model="grok-4", api="responses"),
    converse("meta.llama3-1-70b-instruct-v1:0"),
    gemini("gemini-2.5-flash"),
    lambda url: mistralai.LLM(api_key="k", base_url=f"{url}/v1"),
]


def holds(value: Any, part: Any) -> bool:
    if value == part:
        return True
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(holds(entry, part) for entry in inner)


@pytest.mark.parametrize(("make", "part"), SHOWN)
async def test_where_the_api_takes_one_it_stays_a_picture(
    make: Callable[[str], Any], part: Any
) -> None:
    body = (await sent(make, answered(PICTURE))).json()
    assert holds(body, part)
    assert json.dumps(body).count(PNG) == 1


@pytest.mark.parametrize("make", TOLD_ONLY)
async def test_elsewhere_it_is_told_in_words(make: Callable[[str], Any]) -> None:
    text = json.dumps((await sent(make, answered(PICTURE))).json())
    assert PNG not in text
    assert TOLD in text


@pytest.mark.parametrize("make", [make for make, _ in SHOWN])
@pytest.mark.parametrize(
    "output",
    [
        json.dumps({"picture": IMAGE, "note": "done"}),
        f"before {IMAGE} behind",
        json.dumps([{"type": "image", "data": BIG, "mimeType": "image/png"}]),
        "data:image/png;base64,iVBORw0KGgo",  # cut
    ],
)
async def test_base64_among_other_text_is_never_sent(
    make: Callable[[str], Any], output: str
) -> None:
    text = json.dumps((await sent(make, answered(output))).json())
    assert "iVBORw0KGgo" not in text
    assert TOLD in text


def test_what_was_changed_is_told() -> None:
    _, changes = repair(answered(PICTURE).items, "openai")
    assert [change.kind for change in changes] == ["image"]
    assert "a picture in a result became text" in changes[0].detail


async def test_a_failure_shows_no_picture() -> None:
    """Claude takes text alone in a result with ``is_error``."""
    body = (await sent(claude, answered(PICTURE, is_error=True))).json()
    assert TOLD in json.dumps(body)


async def test_a_picture_under_a_wrong_name_gets_its_own() -> None:
    body = (await sent(claude, answered(f"data:image/jpeg;base64,{PNG}"))).json()
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    assert holds(body, {"type": "image", "source": source})


def test_a_tool_may_return_an_image() -> None:
    call = FunctionCall(call_id="call_0001", name="draw", arguments="{}")

    def output(image: Any) -> FunctionCallOutput | None:
        made = make_function_call_output(fnc_call=call, output=image, exception=None)
        return made.fnc_call_out

    shown = output(ImageContent(image=IMAGE))
    assert shown is not None
    assert shown.output == IMAGE
    address = output(ImageContent(image="https://example.com/a.png"))
    assert address is not None
    assert address.output == "https://example.com/a.png"
    broken = output(ImageContent(image="data:nothing"))
    assert broken is not None
    assert broken.is_error


def of_tool(returned: Any) -> FunctionCallOutput:
    call = FunctionCall(call_id="call_0001", name="draw", arguments="{}")
    made = make_function_call_output(fnc_call=call, output=returned, exception=None)
    assert made.fnc_call_out is not None
    return made.fnc_call_out


def with_result(output: FunctionCallOutput) -> ChatContext:
    context = answered("")
    context.items[-1] = output
    return ChatContext.from_dict(context.to_dict(exclude_image=False))


OTHER = f"data:image/gif;base64,{GIF}"
MIXED = [
    ["First", ImageContent(image=IMAGE), {"n": 1}, ImageContent(image=OTHER)],
    output_of(
        CallResult(
            [
                {"type": "text", "text": "First"},
                {"type": "image", "data": PNG, "mimeType": "image/png"},
                {"type": "resource", "resource": {"uri": "a://b", "blob": GIF, "mimeType": "image/gif"}},
            ]
        ),
        limit=1000,
    ),
]  # fmt: skip


@pytest.mark.parametrize("returned", MIXED)
@pytest.mark.parametrize("make", [make for make, _ in SHOWN])
async def test_pictures_among_other_parts_are_shown_in_order(
    make: Callable[[str], Any], returned: Any
) -> None:
    text = json.dumps((await sent(make, with_result(of_tool(returned)))).json())
    assert text.count(PNG) == 1
    place = text.index("First")
    assert place < text.index(PNG)
    if make is SHOWN[2][0]:  # Gemini takes no GIF
        assert GIF not in text
        assert "(a picture (image/gif) that cannot be shown here)" in text
    else:
        assert text.index(PNG) < text.index(GIF)


@pytest.mark.parametrize("returned", MIXED)
@pytest.mark.parametrize("make", TOLD_ONLY)
async def test_elsewhere_pictures_among_other_parts_are_told(
    make: Callable[[str], Any], returned: Any
) -> None:
    text = json.dumps((await sent(make, with_result(of_tool(returned)))).json())
    assert "First" in text
    assert PNG not in text
    assert GIF not in text
    assert text.count("that cannot be shown here") == 2


def test_a_picture_of_a_failed_or_a_second_output_is_told() -> None:
    failed = of_tool(MIXED[0])
    failed.is_error = True
    for items in ([failed], [of_tool("x"), of_tool(MIXED[0])]):
        context = answered("")
        context.items[-1:] = items
        for provider in ("anthropic", "google", "aws", "openai.responses"):
            repaired, changes = repair(context.items, provider)
            output = repaired[-1]
            assert output.type == "function_call_output"
            assert output.images == []
            assert "First" in output.output
            assert output.output.count("that cannot be shown here") == 2
            assert "image" in [change.kind for change in changes]


def test_pictures_of_an_output_are_stored_where_images_are() -> None:
    context = with_result(of_tool(MIXED[0]))
    output = context.items[-1]
    assert output.type == "function_call_output"
    assert [picture.image for picture in output.images] == [IMAGE, OTHER]
    assert "images" not in context.to_dict()["items"][-1]
    assert "images" not in answered("x").to_dict(exclude_image=False)["items"][-1]


def test_the_address_of_a_picture_in_a_list_stays_text() -> None:
    address = "https://example.com/a.png"
    output = of_tool(["See", ImageContent(image=address)])
    assert (output.output, output.images) == (f"See\n{address}", [])


@given(before=st.text(max_size=9), behind=st.text(" ,\"'\n)é", max_size=9))
def test_the_text_around_a_picture_stays(before: str, behind: str) -> None:
    text = f"{before} {IMAGE}{behind}"
    assert without_pictures(text) == f"{before} {TOLD}{behind}"


@given(st.text())
def test_text_without_a_picture_stays(text: str) -> None:
    assert without_pictures(text) == text


def test_pictures_of_an_output_count_where_contexts_are_compared_and_shortened() -> None:
    plain, shown = of_tool("First"), of_tool("First")
    shown.id = plain.id
    shown.images = [ImageContent(image=IMAGE)]
    changed = compute_chat_ctx_diff(ChatContext([plain]), ChatContext([shown]))
    assert [new for _, new in changed.to_update] == [plain.id]
    assert estimate_tokens(shown) - estimate_tokens(plain) == 1000
    assert estimate_tokens(of_tool(ImageContent(image=IMAGE + "A" * 90_000))) < 1100
    assert "[image]" in render_for_summary([shown])
