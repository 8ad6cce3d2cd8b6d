"""Running one call, structured replies, and what `utils` gathers."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from datetime import date
from typing import Any, NotRequired, Optional, Required

import pydantic.dataclasses
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel, TypeAdapter
from typing_extensions import ReadOnly, TypedDict

from rejoinder import telemetry
from rejoinder.llm import utils
from rejoinder.llm.chat_context import FunctionCall
from rejoinder.llm.llm import FunctionToolCall
from rejoinder.llm.tool_context import (
    RunContext,
    StopResponse,
    ToolContext,
    ToolError,
    function_tool,
)
from rejoinder.llm.utils import (
    execute_function_call,
    function_arguments_to_pydantic_model,
    make_function_call_output,
    parse_function_arguments,
    prepare_function_arguments,
    to_openai_response_format,
    to_response_format_param,
    validated_arguments,
)

# -- execute_function_call ------------------------------------------------------------------


class Answer(BaseModel):
    text: str
    day: date


@dataclasses.dataclass
class Plain:
    n: int


class Suit(str, enum.Enum):  # noqa: UP042  members are texts
    HEARTS = "hearts"


class Mute(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise ValueError("secret")


@function_tool
async def add(a: int, b: int = 2) -> int:
    return a + b


RETURNS: dict[str, Any] = {
    "none": None,
    "zero": 0,
    "false": False,
    "empty_list": [],
    "empty_text": "",
    "lst": [1, {"a": None}],
    "nested": {"a": (1, {2.5}), None: {"b": frozenset()}},
    "complex": 1j,
    "model": Answer(text="x", day=date(2026, 1, 2)),
    "plain": Plain(3),
    "models": [Answer(text="x", day=date(2026, 1, 2))],
    "day": date(2026, 1, 2),
    "object": object(),
    "objects": [object()],
    "mute": Mute(),
    "stop_value": StopResponse(),
    "error_value": ToolError("returned"),
    "other_error_value": ValueError("secret"),
    "suit": [Suit.HEARTS],
    "class": Plain,
}


@function_tool(name="give")
async def give(what: str) -> Any:
    return RETURNS[what]


@function_tool
async def terr() -> None:
    raise ToolError("visible")


@function_tool
async def err() -> None:
    raise ValueError("secret")


@function_tool
async def stop() -> None:
    raise StopResponse


@function_tool
async def leave() -> None:
    raise SystemExit(3)


@function_tool
def syncf() -> str:
    return threading.current_thread().name


@function_tool(threaded=True)
def in_thread() -> str:
    return threading.current_thread().name


@function_tool
async def needs(ctx: RunContext) -> str:
    return ctx.function_call.call_id


async def raw_function(raw_arguments: dict[str, object]) -> dict[str, object]:
    return raw_arguments


raw = function_tool(raw_function, raw_schema={"name": "raw", "parameters": {}})
TOOLS = ToolContext([add, give, terr, err, stop, leave, syncf, in_thread, needs, raw])


async def run(name: str, arguments: str = "{}") -> utils.FunctionCallResult:
    call = FunctionToolCall(name=name, arguments=arguments, call_id="c1")
    result = await execute_function_call(call, TOOLS)
    out = result.fnc_call_out
    assert (out.name, out.call_id, result.fnc_call.call_id) == (name, "c1", "c1")
    return result


@pytest.mark.parametrize(
    ("name", "arguments", "output", "written"),
    [
        # as recorded of LiveKit Agents 1.7.0
        ("add", '{"a":1}', "3", '{"a":1}'),
        ("add", '{"a":1,"b":null}', "3", '{"a":1,"b":null}'),
        ("add", '{"a":1,}', "3", '{"a": 1}'),
        ("add", '"{\\"a\\": 5}"', "7", '{"a": 5}'),
        ("add", '{"a": "7"<|tool|>', "9", '{"a": "7"}'),
        ("give", '{"what": "none"}', "", '{"what": "none"}'),
        ("give", '{"what": "lst"}', "[1, {'a': None}]", '{"what": "lst"}'),
        ("raw", '{"z":1}', "{'z': 1}", '{"z":1}'),
        # what is falsy is not nothing
        ("give", '{"what": "zero"}', "0", '{"what": "zero"}'),
        ("give", '{"what": "false"}', "False", '{"what": "false"}'),
        ("give", '{"what": "empty_list"}', "[]", '{"what": "empty_list"}'),
        ("give", '{"what": "empty_text"}', "", '{"what": "empty_text"}'),
        ("give", '{"what": "complex"}', "1j", '{"what": "complex"}'),
        # structures
        ("give", '{"what": "model"}', '{"text":"x","day":"2026-01-02"}', '{"what": "model"}'),
        ("give", '{"what": "plain"}', '{"n":3}', '{"what": "plain"}'),
        ("give", '{"what": "models"}', '[{"text":"x","day":"2026-01-02"}]', '{"what": "models"}'),
        ("give", '{"what": "day"}', '"2026-01-02"', '{"what": "day"}'),
        ("needs", "", "c1", "{}"),
        ("syncf", "null", "MainThread", "{}"),
    ],
)
async def test_values(name: str, arguments: str, output: str, written: str) -> None:
    result = await run(name, arguments)
    out = result.fnc_call_out
    assert (out.output, out.is_error, out.reply_required) == (output, False, True)
    assert result.fnc_call.arguments == written
    assert result.raw_exception is None


@pytest.mark.parametrize(
    ("name", "arguments", "says", "exception", "written"),
    [
        ("add", "{}", "$.a", ToolError, "{}"),
        ("add", "", "$.a", ToolError, "{}"),
        ("add", "null", "$.a", ToolError, "{}"),
        ("add", "[1]", "JSON object", ToolError, "[1]"),
        ("add", '{"a":"x"}', "$.a", ToolError, '{"a":"x"}'),
        ("add", "garbage", "not valid JSON", ToolError, "garbage"),
        ("nope", "{}", "`add`", ValueError, "{}"),
        ("ad", "{}", "Did you mean `add`?", ValueError, "{}"),
        ("terr", "{}", "visible", ToolError, "{}"),
        ("err", "{}", "internal error", ValueError, "{}"),
        ("leave", "{}", "internal error", SystemExit, "{}"),
        ("give", '{"what": "error_value"}', "returned", ToolError, '{"what": "error_value"}'),
        ("give", '{"what": "no key"}', "internal error", KeyError, '{"what": "no key"}'),
    ],
)
async def test_failures(
    name: str, arguments: str, says: str, exception: type[BaseException], written: str
) -> None:
    result = await run(name, arguments)
    out = result.fnc_call_out
    assert out.is_error
    assert says in out.output
    assert "secret" not in out.output
    assert type(result.raw_exception) is exception
    assert result.raw_output is None
    assert result.fnc_call.arguments == written
    assert not result.stop


async def test_a_tool_with_a_deadline_does_not_end_the_program() -> None:
    call = FunctionToolCall(name="leave", arguments="{}", call_id="c1")
    result = await execute_function_call(call, TOOLS, timeout=10)
    assert isinstance(result.raw_exception, SystemExit)
    assert "internal error" in result.fnc_call_out.output


async def test_values_that_have_no_text(caplog: pytest.LogCaptureFixture) -> None:
    for what in ("object", "objects", "mute", "class", "other_error_value"):
        result = await run("give", f'{{"what": "{what}"}}')
        assert result.fnc_call_out.is_error
        assert "secret" not in result.fnc_call_out.output
    assert "expected text, numbers" in caplog.text
    assert "secret" in caplog.text, "people see in the log what the model does not"


async def test_stop() -> None:
    for result in (await run("stop"), await run("give", '{"what": "stop_value"}')):
        out = result.fnc_call_out
        assert (out.output, out.is_error, out.reply_required) == ("", False, False)
        assert result.stop
        assert isinstance(result.raw_exception, StopResponse)


async def test_threads() -> None:
    assert (await run("in_thread")).raw_output != "MainThread"


async def test_items_stay_themselves() -> None:
    call = FunctionCall(call_id="c", name="add", arguments='{"a": 1,}', extra={"google": 1})
    result = await execute_function_call(call, TOOLS)
    assert result.fnc_call is call
    streamed = FunctionToolCall(name="add", arguments="{}", call_id="c", extra={"google": 1})
    assert (await execute_function_call(streamed, TOOLS)).fnc_call.extra == {"google": 1}


async def test_given_context() -> None:
    call = FunctionCall(call_id="mine", name="needs", arguments="{}")
    other = RunContext(FunctionCall(call_id="other", name="x", arguments="{}"))
    result = await execute_function_call(call, TOOLS, call_ctx=other)
    assert result.raw_output == "other"


@pytest.mark.looptime
async def test_cancelling_the_caller_cancels_the_tool() -> None:
    ended: list[str] = []

    def made(seconds: float | None) -> Any:
        @function_tool(timeout=seconds)
        async def slow() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("ended")

        return slow

    for seconds in (None, 30.0):
        tools = ToolContext([made(seconds)])
        call = FunctionToolCall(name="slow", arguments="{}", call_id="c")
        task = asyncio.create_task(execute_function_call(call, tools))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert ended == ["ended", "ended"]


async def test_a_time_out_of_the_tool_itself_is_its_own_failure() -> None:
    @function_tool(timeout=60)
    async def asks() -> None:
        raise TimeoutError("secret")

    call = FunctionToolCall(name="asks", arguments="{}", call_id="c")
    result = await execute_function_call(call, ToolContext([asks]))
    assert "internal error" in result.fnc_call_out.output
    assert "60" not in result.fnc_call_out.output


def test_make_function_call_output(caplog: pytest.LogCaptureFixture) -> None:
    call = FunctionCall(call_id="c", name="n", arguments="{}")
    with caplog.at_level(logging.ERROR):
        made = make_function_call_output(fnc_call=call, output=3, exception=None)
        assert (made.fnc_call_out.output, made.raw_output) == ("3", 3)
        cyclic: list[Any] = []
        cyclic.append(cyclic)
        assert make_function_call_output(
            fnc_call=call, output=cyclic, exception=None
        ).fnc_call_out.is_error


# -- arguments ------------------------------------------------------------------------------


def test_parse_function_arguments() -> None:
    assert parse_function_arguments("{'a':1,}") == {"a": 1}
    for wrong in ("", "[1]", "x"):
        with pytest.raises(ValueError, match=r"JSON|empty"):
            parse_function_arguments(wrong)


def test_validated_arguments() -> None:
    assert validated_arguments(add, '{"a": "1"}') == {"a": 1, "b": 2}
    assert validated_arguments(raw, '{"z": 1}') == {"z": 1}


def test_arguments_of_something_else() -> None:
    with pytest.raises(ValueError, match="expected a FunctionTool"):
        prepare_function_arguments(fnc=len, json_arguments="{}")  # type: ignore[arg-type]


def test_model_of_arguments() -> None:
    model = function_arguments_to_pydantic_model(add)
    assert model.__name__ == "AddArgs"
    assert list(model.model_fields) == ["a", "b"]
    assert model(a=1).b == 2  # type: ignore[attr-defined,call-arg]

    def undecorated(a: int) -> None: ...

    assert list(function_arguments_to_pydantic_model(undecorated).model_fields) == ["a"]


# -- structured replies ---------------------------------------------------------------------


class RF(BaseModel):
    a: int
    b: Optional[str] = None  # noqa: UP045  as recorded
    c: list[Plain] = []
    d: str = "x"


class TD(TypedDict):
    a: int
    b: NotRequired[str]
    c: ReadOnly[str]


class Partial(TypedDict, total=False):
    a: Required[int]
    b: str
    c: int | None


class TD2(TypedDict):
    a: int
    c: str


@pydantic.dataclasses.dataclass
class PD:
    a: int
    b: str = "x"


class Dictish(dict[str, Any]):
    a: int


def strict(t: type[Any]) -> dict[str, Any]:
    made = to_openai_response_format(t)
    assert made["type"] == "json_schema"
    assert made["json_schema"]["name"] == t.__name__
    assert made["json_schema"]["strict"] is True
    return made["json_schema"]["schema"]


def test_response_formats() -> None:
    assert strict(RF) == {
        "$defs": {
            "Plain": {
                "properties": {"n": {"type": "integer"}},
                "type": "object",
                "additionalProperties": False,
                "required": ["n"],
            }
        },
        "properties": {
            "a": {"type": "integer"},
            "b": {"type": ["string", "null"]},
            "c": {"items": {"$ref": "#/$defs/Plain"}, "type": "array"},
            "d": {"type": "string"},
        },
        "type": "object",
        "additionalProperties": False,
        "required": ["a", "b", "c", "d"],
    }
    for t in (TD2, PD):
        assert strict(t)["required"] == list(strict(t)["properties"])
    assert strict(Plain)["properties"] == {"n": {"type": "integer"}}
    assert strict(Dictish)["required"] == ["a"]


@pytest.mark.parametrize(("t", "optional"), [(TD, "b"), (Partial, "b")])
def test_fields_of_a_typed_dict_that_may_be_absent(t: type[Any], optional: str) -> None:
    schema = strict(t)
    assert schema["required"] == ["a", "b", "c"]
    assert schema["properties"][optional] == {"type": ["string", "null"]}
    assert schema["properties"]["a"] == {"type": "integer"}
    _, model = to_response_format_param(t)
    assert isinstance(model, type)
    assert model.model_validate({"a": 1, "b": None, "c": "1" if t is TD else None})


def test_to_response_format_param() -> None:
    assert to_response_format_param(RF) == ("RF", RF)
    name, model = to_response_format_param(TD2)
    assert name == "TD2"
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    for t in (PD, Plain):
        name, adapter = to_response_format_param(t)
        assert name == t.__name__
        assert isinstance(adapter, TypeAdapter)


@pytest.mark.parametrize(
    "wrong",
    [{"type": "json_object"}, {}, int, dict, list[int], RF(a=1), Plain(1), None, "RF"],
)
def test_no_response_format(wrong: Any) -> None:
    with pytest.raises(TypeError, match="expected a pydantic model, a TypedDict or a dataclass"):
        to_response_format_param(wrong)


def test_is_typed_dict() -> None:
    assert [utils.is_typed_dict(t) for t in (TD, Dictish, dict, RF, 3)] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_exports() -> None:
    assert all(hasattr(utils, name) for name in utils.__all__)


# -- spans ----------------------------------------------------------------------------------


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.set_tracer_provider(provider)
    yield exporter
    telemetry.set_tracer_provider(None)
    telemetry.capture_content(None)


@pytest.mark.parametrize("captured", [False, True])
async def test_spans(spans: InMemorySpanExporter, captured: bool) -> None:
    telemetry.capture_content(captured)
    await run("add", '{"a": 40}')
    await run("err")
    good, bad = spans.get_finished_spans()
    assert good.name == bad.name == "function_tool"
    assert good.attributes is not None
    assert bad.attributes is not None
    assert good.attributes["lk.function_tool.name"] == "add"
    assert good.attributes["gen_ai.tool.call.id"] == "c1"
    assert (good.status.is_ok, bad.status.is_ok) == (True, False)
    assert bad.attributes["lk.function_tool.is_error"] is True
    assert bad.attributes["exception.type"] == "ValueError"
    arguments, secret = str(dict(good.attributes)), str(dict(bad.attributes))
    assert ("40" in arguments, "secret" in secret) == (captured, captured)
    if captured:
        assert good.attributes["lk.function_tool.output"] == "42"


async def test_the_span_of_a_tool_that_is_cancelled_ends(spans: InMemorySpanExporter) -> None:
    @function_tool
    async def slow() -> None:
        await asyncio.Event().wait()

    call = FunctionToolCall(name="slow", arguments="{}", call_id="c")
    task = asyncio.create_task(execute_function_call(call, ToolContext([slow])))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    assert len(spans.get_finished_spans()) == 1


async def test_tools_in_threads_need_no_place_in_the_pool_of_the_loop() -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    hang = threading.Event()
    asking = ContextVar[str]("asking")

    @function_tool(threaded=True)
    def who() -> str:
        return asking.get()

    waiting = loop.run_in_executor(None, hang.wait)
    try:
        asking.set("the caller")
        call = FunctionToolCall(name="who", arguments="{}", call_id="c1")
        async with asyncio.timeout(10):
            result = await execute_function_call(call, ToolContext([who]))
    finally:
        hang.set()
        await waiting
    assert result.raw_output == "the caller"
