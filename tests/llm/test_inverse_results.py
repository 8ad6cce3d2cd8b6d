"""What a tool's result holds comes back in its order; its pictures are pictures of the result."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from providers.conversation import IMAGE, PNG
from rejoinder._core import dialects
from rejoinder._core.changes import Change
from rejoinder._core.families import find_family
from rejoinder._core.history_rules import fitted_dialect
from rejoinder._core.hosts import HOSTS
from rejoinder._core.repair import repair
from rejoinder.llm.chat_context import ChatContext, FunctionCallOutput, ImageContent

GIF = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
OTHER = f"data:image/gif;base64,{GIF}"
PICTURES = {"picture": IMAGE, "another": OTHER}
KINDS = ["text", "picture", "another", "unknown", "named", "json"]
FORMS = ["anthropic", "google", "aws", "openai", "openai.responses", "mistralai"]
SHOWING = ["anthropic", "google", "aws", "openai.responses"]


def anthropic(kind: str, text: str) -> Any:
    if kind in ("picture", "another", "named"):
        data, mime = (GIF, "gif") if kind == "another" else (PNG, "png")
        source = {"type": "base64", "data": data, "media_type": f"image/{mime}"}
        block = {"type": "image", "source": source}
        return {**block, "title": "more"} if kind == "named" else block
    return {"type": "text", "text": text} if kind == "text" else {"type": "hologram", "of": text}


def bedrock(kind: str, text: str) -> Any:
    if kind in PICTURES or kind == "named":
        data, mime = (GIF, "gif") if kind == "another" else (PNG, "png")
        return {"image": {"format": mime, "source": {"bytes": b64decode(data)}}}
    if kind == "json":
        return {"json": {"a": [text]}}
    return {"text": text} if kind == "text" else {"hologram": {"of": text}}


def gemini(kind: str, text: str) -> Any:
    if kind in PICTURES or kind == "named":
        data, mime = (GIF, "gif") if kind == "another" else (PNG, "png")
        if kind == "named":
            return {"inlineData": {"mimeType": "image/png", "data": PNG, "displayName": text}}
        return {"inlineData": {"mimeType": f"image/{mime}", "data": b64decode(data)}}
    return {"hologram": {"of": text}}


def completions(kind: str, text: str) -> Any:
    if kind in PICTURES:
        return {"type": "image_url", "image_url": {"url": PICTURES[kind], "detail": "auto"}}
    if kind == "named":
        return {"type": "image_url", "image_url": {"url": IMAGE, "format": text}}
    return {"type": "text", "text": text} if kind == "text" else {"type": "hologram", "of": text}


def responses(kind: str, text: str) -> Any:
    if kind in PICTURES:
        return {"type": "input_image", "image_url": PICTURES[kind], "detail": "auto"}
    if kind == "named":
        return {"type": "input_image", "image_url": IMAGE, "file_id": text, "detail": "auto"}
    if kind == "text":
        return {"type": "input_text", "text": text}
    return {"type": "hologram", "of": text}


PARTS: dict[str, Callable[[str, str], Any]] = {
    "anthropic": anthropic,
    "aws": bedrock,
    "google": gemini,
    "openai": completions,
    "openai.responses": responses,
    "mistralai": completions,
}


def messages_of(form: str, content: list[Any], text: str) -> list[Any]:
    """A call whose result holds `content`; with Gemini a text stands beside it."""
    name = "call00001"
    if form == "anthropic":
        use: Any = {"id": name, "type": "tool_use", "name": "f", "input": {}}
        result = {"tool_use_id": name, "type": "tool_result", "content": content, "is_error": False}
        return [
            {"role": "user", "content": [{"type": "text", "text": "q"}]},
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [result]},
        ]
    if form == "aws":
        return [
            {"role": "user", "content": [{"text": "q"}]},
            {
                "role": "assistant",
                "content": [{"toolUse": {"toolUseId": name, "name": "f", "input": {}}}],
            },
            {
                "role": "user",
                "content": [
                    {"toolResult": {"toolUseId": name, "content": content, "status": "success"}}
                ],
            },
        ]
    if form == "google":
        response: Any = {"id": name, "name": "f", "response": {"output": text}, "parts": content}
        return [
            {"role": "user", "parts": [{"text": "q"}]},
            {"role": "model", "parts": [{"function_call": {"id": name, "name": "f", "args": {}}}]},
            {"role": "user", "parts": [{"function_response": response}]},
        ]
    if form == "openai.responses":
        return [
            {"role": "user", "content": "q"},
            {"type": "function_call", "call_id": name, "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": name, "output": content},
        ]
    call = {"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return [
        {"role": "user", "content": "q"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": name, "content": content},
    ]


SERVED: dict[str, tuple[str, str, Any]] = {
    "anthropic": ("claude-sonnet-4-5", "anthropic", "messages"),
    "google": ("gemini-3-flash-preview", "gemini", "gemini"),
    "aws": ("anthropic.claude-sonnet-4-5-20250929-v1:0", "bedrock", "converse"),
    "openai": ("gpt-5", "openai", "chat"),
    "openai.responses": ("gpt-5", "openai", "responses"),
    "mistralai": ("mistral-large-latest", "mistral", "mistral"),
}


def served(context: ChatContext, form: str) -> tuple[Any, list[Change]]:
    """What a model of this API is sent, and what was changed for it."""
    model, host, api = SERVED[form]
    dialect = fitted_dialect(dialects.find(form), find_family(model), HOSTS[host], api)
    mended, changes = repair(context.items, dialect)
    return dialects.to_provider_format(form, mended)[0], changes


def times(picture: str, sent: str) -> int:
    """How often it is sent, as base64 or as bytes."""
    return sent.count(picture) + sent.count(repr(b64decode(picture)))


def read(form: str, messages: Any) -> tuple[ChatContext, FunctionCallOutput]:
    context = ChatContext.from_provider_format(form, deepcopy(messages))
    (output,) = [item for item in context.items if isinstance(item, FunctionCallOutput)]
    assert [item.type for item in context.items if item is not output] == [
        "message",
        "function_call",
    ]
    return context, output


texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=6)


@st.composite
def contents(draw: st.DrawFn, form: str) -> tuple[list[str], list[Any]]:
    """The kinds of the parts of a result, and the parts. One text is written as one text, and of
    texts in a row one is made, so there is neither."""
    kinds: list[str] = []
    for kind in draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5)):
        if not (kind == "text" and kinds and kinds[-1] == "text"):
            kinds.append(kind)
    if form != "google" and form != "aws" and kinds == ["text"]:
        kinds.append("picture")
    return kinds, [PARTS[form](kind, draw(texts)) for kind in kinds]


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
def test_a_result_comes_back_equal(form: str, data: st.DataObject) -> None:
    kinds, content = data.draw(contents(form))
    messages = messages_of(form, content, data.draw(texts))
    context, output = read(form, messages)
    wanted = [PICTURES.get(kind, IMAGE) for kind in kinds if kind in (*PICTURES, "named")]
    assert [picture.image for picture in output.images] == wanted
    assert PNG not in output.output
    assert context.to_provider_format(form)[0] == messages
    stored = ChatContext.from_dict(json.loads(json.dumps(context.to_dict(exclude_image=False))))
    assert stored.to_provider_format(form)[0] == messages


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
def test_pictures_that_were_changed_are_sent_as_they_are_now(
    form: str, data: st.DataObject
) -> None:
    kinds, content = data.draw(contents(form))
    assume({*PICTURES, "named"} & {*kinds})
    messages = messages_of(form, content, "t")
    context, output = read(form, messages)
    output.images = [ImageContent(image=OTHER) for _ in output.images]
    sent = repr(context.to_provider_format(form)[0])
    assert (times(GIF, sent), times(PNG, sent)) == (len(output.images), 0)
    output.images = []
    sent = repr(context.to_provider_format(form)[0])
    assert (times(GIF, sent), times(PNG, sent)) == (0, 0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("other", FORMS)
@given(data=st.data())
def test_a_result_reaches_every_other_provider(form: str, other: str, data: st.DataObject) -> None:
    _, content = data.draw(contents(form))
    messages = messages_of(form, content, "t")
    context, output = read(form, messages)
    sent = repr(served(context, other)[0])
    if other in SHOWING:
        shown = sum(picture.image == IMAGE for picture in output.images)
        assert times(PNG, sent) == shown
        if other == form and other != "google":  # which takes no GIF
            assert served(context, form) == (messages, [])
    else:
        assert PNG not in sent
        assert sent.count("that cannot be shown here") == len(output.images)


@pytest.mark.parametrize("form", ["anthropic", "openai.responses"])
def test_the_address_of_a_picture_stays_one_where_results_may_hold_it(form: str) -> None:
    url = "https://example.com/a.png"
    part: Any = {"type": "image", "source": {"type": "url", "url": url}}
    if form != "anthropic":
        part = {"type": "input_image", "image_url": url, "detail": "auto"}
    messages = messages_of(form, [part], "")
    context, output = read(form, messages)
    assert [picture.image for picture in output.images] == [url]
    sent, changes = served(context, form)
    assert changes == []
    assert sent == messages
    for other in ("google", "aws", "openai"):
        assert f"(a picture: {url})" in repr(served(context, other)[0])
