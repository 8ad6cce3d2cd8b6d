"""One bad tool, part or answer costs itself and nothing else."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mcp_raw as raw
from providers.conversation import IMAGE, PNG
from rejoinder.errors import APIError
from rejoinder.llm import mcp
from rejoinder.llm.tool_context import ToolError
from rejoinder.mcp import mending
from rejoinder.mcp.guards import Check

GOOD = raw.TOOL
OBJECT = {"type": "object"}

BAD_TOOLS: dict[str, tuple[Any, dict[str, Any] | None]] = {
    # name: (the definition, the schema it is offered with or None if it is left out)
    "no schema": ({"name": "u"}, {"type": "object", "properties": {}}),
    "schema null": ({"name": "u", "inputSchema": None}, {"type": "object", "properties": {}}),
    "schema a list": ({"name": "u", "inputSchema": []}, {"type": "object", "properties": {}}),
    "schema without type": (
        {"name": "u", "inputSchema": {"properties": {"x": {"type": "string"}}}},
        {"type": "object", "properties": {"x": {"type": "string"}}},
    ),
    "schema of a text": ({"name": "u", "inputSchema": {"type": "string"}}, None),
    "output schema an array": (
        {"name": "u", "inputSchema": OBJECT, "outputSchema": {"type": "array"}},
        OBJECT,
    ),
    "output schema nonsense": (
        {"name": "u", "inputSchema": OBJECT, "outputSchema": {"type": "x", "properties": 5}},
        OBJECT,
    ),
    "description a number": ({"name": "u", "inputSchema": OBJECT, "description": 5}, OBJECT),
    "annotation a text": (
        {"name": "u", "inputSchema": OBJECT, "annotations": {"readOnlyHint": "perhaps"}},
        OBJECT,
    ),
    "icons a text": ({"name": "u", "inputSchema": OBJECT, "icons": "x.png"}, OBJECT),
    "no name": ({"inputSchema": OBJECT}, None),
    "name a number": ({"name": 5, "inputSchema": OBJECT}, None),
    "null": (None, None),
    "a text": ("u", None),
}


@pytest.mark.parametrize("name", BAD_TOOLS)
async def test_a_bad_tool_costs_itself(name: str, caplog: pytest.LogCaptureFixture) -> None:
    bad, schema = BAD_TOOLS[name]
    events: list[mcp.MCPEvent] = []
    async with raw.stdio(
        tools=[GOOD, bad, {**GOOD, "name": "v"}], on_event=events.append
    ) as server:
        tools = {tool.info.name: tool.info.raw_schema for tool in await server.list_tools()}
        assert list(tools) == (["t", "v"] if schema is None else ["t", "u", "v"])
        if schema is not None:
            assert tools["u"]["parameters"] == schema
        if "output schema" not in name:
            (event,) = events
            assert event.type == "bad_tool"
            assert ("was left out" in event.message) is (schema is None)
            if isinstance(bad, dict) and isinstance(bad.get("name"), str):
                assert "`u`" in event.message
            assert event.message in caplog.text
        assert "fine" in await server.call_tool("t")


async def test_a_list_that_is_no_list_is_an_error() -> None:
    async with raw.stdio(tools={"t": GOOD}) as server:
        with pytest.raises(APIError, match=r"tools.*list"):
            await server.list_tools()


FITS = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
STRICT = {**FITS, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "structured", "told"),
    [
        (FITS, {"n": 42}, None),
        (FITS, None, "no structured content"),
        (STRICT, {"n": 1, "more": "x"}, "'more'"),
        (FITS, {"n": "1"}, "not of type integer"),
        (FITS, {}, "lacks 'n'"),
        ({"type": "nonsense", "properties": 5}, {"n": 1}, None),
        ({"type": "object", "properties": {"n": {"$ref": "#/$defs/Missing"}}}, {"n": 1}, None),
        ({"type": "object", "properties": {"n": {"pattern": "(a+)+$"}}}, {"n": "a" * 40}, None),
    ],
)
async def test_a_result_is_not_void_because_its_schema_says_otherwise(
    schema: Any, structured: Any, told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    result = dict(raw.FINE)
    if structured is not None:
        result["structuredContent"] = structured
    async with raw.stdio(tools=[{**GOOD, "outputSchema": schema}], call=result) as server:
        await server.list_tools()
        for _ in range(2):
            output = await server.call_tool("t")
        assert "fine" in output
        assert output.structured == structured
        if structured:  # the text does not tell it, so it stands beside it
            assert json.loads(output)[1] == {"structuredContent": structured}
    logged = [r.getMessage() for r in caplog.records if "output schema" in r.getMessage()]
    assert len(logged) == (told is not None)
    assert told is None or told in logged[0]


TEXT = {"type": "text", "text": "fine", "annotations": None, "meta": None}


@pytest.mark.parametrize(
    ("result", "parts"),
    [
        ({"content": "plain"}, [{**TEXT, "text": "plain"}]),
        ({"content": ["a", raw.FINE["content"][0]]}, [{**TEXT, "text": "a"}, TEXT]),
        ({"content": [{"type": "text", "text": None}]}, [{**TEXT, "text": ""}]),
        ({"content": [{"type": "text", "text": 5}]}, [{**TEXT, "text": "5"}]),
        (
            {"content": [{"type": "chart", "spec": {"a": 1}}, raw.FINE["content"][0]]},
            [{**TEXT, "text": '{"type":"chart","spec":{"a":1}}'}, TEXT],
        ),
        (
            {"content": [{"type": "text", "text": "fine", "annotations": {"priority": 7}}]},
            [TEXT],
        ),
        (
            {"content": [{"type": "image", "data": 5}]},
            [{**TEXT, "text": '{"type":"image","data":5}'}],
        ),
        ({"content": [raw.FINE["content"][0], None]}, [TEXT, {**TEXT, "text": "null"}]),
        ({**raw.FINE, "_meta": "x", "more": 1}, [TEXT]),
        ({**raw.FINE, "isError": None}, [TEXT]),
    ],
)
async def test_a_bad_part_costs_itself(
    result: Any, parts: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with raw.stdio(call=result) as server:
        output = await server.call_tool("t")
        assert output.result.parts == parts
        assert output.result.raw.content
        assert json.loads(output) == (parts[0] if len(parts) == 1 else parts)


async def test_a_picture_without_a_type_has_that_of_its_bytes() -> None:
    picture = {"type": "image", "data": PNG}
    async with raw.stdio(call={"content": [picture]}) as server:
        output = await server.call_tool("t")
        assert [(image.mime_type, image.image) for image in output.images] == [("image/png", IMAGE)]
        assert PNG not in output
    for data in ("A", "é", "AAAA" * 9):
        async with raw.stdio(call={"content": [{"type": "image", "data": data}]}) as server:
            output = await server.call_tool("t")
            assert output.images == []


async def test_a_result_without_content_is_its_structured_data() -> None:
    for result in (
        {"structuredContent": {"n": 1}},
        {"content": None, "structuredContent": {"n": 1}},
    ):
        async with raw.stdio(call=result) as server:
            assert await server.call_tool("t") == '{"n":1}'


async def test_content_that_is_one_part_is_a_list_of_it() -> None:
    async with raw.stdio(call={"content": {"type": "text", "text": "x"}}) as server:
        assert json.loads(await server.call_tool("t"))["text"] == "x"


async def test_content_that_is_neither_is_an_error_that_quotes_nothing() -> None:
    async with raw.stdio(call={"content": {"secret": "x"}}) as server:
        with pytest.raises(ToolError, match="could not be used") as caught:
            await server.call_tool("t")
        assert "content" in str(caught.value.__cause__)
        assert "secret" not in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"jsonrpc":"2.0","id":ID,"error":"boom"}', "boom"),
        ('{"jsonrpc":"2.0","id":ID,"error":{"message":"boom"}}', "boom"),
        ('{"id":ID,"error":{"code":"x","message":"boom"}}', "boom"),
        ('{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"boom"}]},"error":null}', "boom"),
        ('{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"caf\xe9 boom"}]}}', "caf\ufffd boom"),
        ('{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"\\ud83d boom"}]}}', " boom"),
        ('{"jsonrpc":"2.0","id":ID,"result":[]}', "without a result"),
        ('{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"boom"}],"structuredContent":{"n":NaN}}}', "boom"),
    ],
)  # fmt: skip
async def test_an_answer_that_is_almost_json_rpc_ends_its_call(line: str, expected: str) -> None:
    async with raw.stdio(lines={"tools/call": line}) as server:
        try:
            told = await server.call_tool("t")
        except ToolError as error:
            told = str(error)
        assert expected in told


@pytest.mark.parametrize("kind", ["resources", "prompts"])
async def test_other_lists_lose_only_their_bad_entries(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = {"uri": "x://a", "name": "a"} if kind == "resources" else {"name": "a"}
    entries = [good, None, {**good, "description": 5}, {"title": "nameless"}]
    lines = {f"{kind}/list": json.dumps({"jsonrpc": "2.0", "id": 0, "result": {kind: entries}})}
    lines[f"{kind}/list"] = lines[f"{kind}/list"].replace('"id": 0', '"id": ID')
    async with raw.stdio(lines=lines) as server:
        found = await (server.list_resources() if kind == "resources" else server.list_prompts())
        assert [entry.name for entry in found] == ["a", "a"]
    assert caplog.text.count("left out") == 2


# properties ----------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "type", "text", "data", "uri", "resource", "inputSchema", "annotations"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
TYPED = st.dictionaries(
    st.sampled_from(["text", "data", "mimeType", "uri", "_meta"]), JSON
).flatmap(
    lambda part: st.sampled_from(["text", "image", "audio", "resource", "resource_link", "x"]).map(
        lambda kind: {**part, "type": kind}
    )
)


@given(st.lists(JSON | TYPED, max_size=4), st.integers(0, 4))
def test_every_list_of_parts_becomes_one_that_the_sdk_takes(parts: list[Any], at: int) -> None:
    part = {"type": "text", "text": "kept"}
    parts.insert(at, part)
    check = Check("tools/call", "2025-11-25")
    view, whole, _ = mending.mend_call({"content": parts}, check, trusting=True)
    check(view)
    assert len(whole["content"]) == len(parts)
    assert part in whole["content"]
    assert mending.mend_call(whole, check)[1] == whole  # nothing is left to mend


@given(st.lists(JSON, max_size=4), st.integers(0, 4))
def test_every_list_of_tools_keeps_its_good_ones(tools: list[Any], at: int) -> None:
    tools.insert(at, GOOD)
    check = Check("tools/list", "2025-11-25")
    mended, flaws = mending.mend_list("tools/list", {"tools": tools}, check)
    check(mended)
    assert GOOD in mended["tools"]
    assert len(flaws) >= len(tools) - len(mended["tools"])


async def test_nothing_is_mended_where_nothing_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "rejoinder.mcp"):
        async with raw.stdio() as server:
            await server.list_tools()
            await server.call_tool("t")
    assert caplog.text == ""
