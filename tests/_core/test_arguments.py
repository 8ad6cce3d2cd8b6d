"""What a model wrote, and what the function gets for it."""

from __future__ import annotations

import contextlib
import enum
import json
from collections.abc import Callable, Iterable
from datetime import date
from functools import partial
from typing import Annotated, Any, Literal, Required, Unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator
from typing_extensions import TypedDict

from rejoinder._core.arguments import (
    bind_arguments,
    canonical_arguments,
    parse_arguments,
    validate_arguments,
)
from rejoinder._core.json_values import MAX_VALUES
from rejoinder._core.mending import repair_json
from rejoinder._core.schema import Plan, build_plan
from rejoinder._core.tools import RunContext, ToolError

BROKEN = repair_json("no JSON")
"""What `repair_json` gives for what it cannot read."""

# -- text -> object -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # as recorded of LiveKit Agents 1.7.0
        ('{"a":1}', {"a": 1}),
        ('{"a":1,}', {"a": 1}),
        ("{'a':1}", {"a": 1}),
        ('"{\\"a\\":1}"', {"a": 1}),
        ("null", {}),
        # LiveKit Agents 1.7.0 takes this mark out of the text, too
        ('{"a":"<|im_end|>hi"', {"a": "<|im_end|>hi"}),
        # quoted twice, by Gemma's quote too; the first as captured of a deployment
        ('{"order_id": ["<|\\"|\\"O_WAAB70<|\\"|\\"]}', {"order_id": ["O_WAAB70"]}),
        ('{"a": "<|\\"|>x, y<|\\"|>, "b": 2}', {"a": "x, y", "b": 2}),
        ('{"a": "<|\\"x<|\\" more"', None),
        ('{"a": "<|\\"x', None),
        ('{"order_id": ["<|\\"|\\"O_WAAB70<|\\"|\\""]}', {"order_id": ["O_WAAB70"]}),
        ('{"a":"<|\\"|>hi<|\\"|>"}', {"a": "hi"}),
        ('{"a":"<|\\"|it is \\"so\\"<|\\"|"}', {"a": 'it is "so"'}),
        ('{"<|\\"|>a<|\\"|>":{"b":["<|\\"x<|\\""]}}', {"a": {"b": ["x"]}}),
        ('{"a":"<|\\"|><|\\"|>"}', {"a": ""}),
        ('{"a":"the quote <|\\"|> of <|\\"|> Gemma"}', {"a": 'the quote <|"|> of <|"|> Gemma'}),
        ('{"a":"<|\\"|>"}', {"a": '<|"|>'}),
        ('{"a":"<|\\"|>half"}', {"a": '<|"|>half'}),
        # strict JSON is never touched
        ('{"a":"it\'s {1,}"}', {"a": "it's {1,}"}),
        ('{"a":1,"a":2}', {"a": 2}),
        ('{"a":"<|im_end|>"}', {"a": "<|im_end|>"}),
        # wrapped more than once, and wrapped and broken
        (json.dumps(json.dumps(json.dumps({"a": 1}))), {"a": 1}),
        (json.dumps("{'a': 1,}"), {"a": 1}),
        # code fences, chat templates
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('```\n{"a": 1,}\n```', {"a": 1}),
        ('{"a": 1}<|im_end|>', {"a": 1}),
        ('<tool_call>{"a": 1}</tool_call>', {"a": 1}),
        ('{"a": 1}<end_of_turn>', {"a": 1}),
        ('<s>[TOOL_CALLS] {"a": [1, 2]} </s></tool_call>', {"a": [1, 2]}),
        ('<tool_call>\n{"a": "x"\n</tool_call>', {"a": "x"}),
        ('{"a": 12</tool_call>', {"a": 12}),
        # what may be HTML is part of the text
        ('<tool_call>{"a": "<s>old</s>"}</tool_call>', {"a": "<s>old</s>"}),
        ('{"a": "x</s>",}', {"a": "x</s>"}),
        ('{"a": "<s>old</s>"', {"a": "<s>old</s>"}),
        ('{"a": 1, <s> "b": 2}', None),
        ('{a:<|"|>hi<|"|>}', {"a": "hi"}),
        # Python's way
        ("{'a': True, 'b': None, 'c': [False]}", {"a": True, "b": None, "c": [False]}),
        ("{'say': 'a \"b\"'}", {"say": 'a "b"'}),
        ("{'a': 'it\\'s'}", {"a": "it's"}),
        # names without quotes, line breaks in texts
        ("{city: 'x', n: 3}", {"city": "x", "n": 3}),
        ('{"a": "line\nline\ttab"}', {"a": "line\nline\ttab"}),
        # brackets at the end, missing or too many
        ('{"a": {"b": [1, 2', None),
        ('{"a": {"b": [1, 2]', {"a": {"b": [1, 2]}}),
        ('{"a": "x"', {"a": "x"}),
        ('{"a": 1}}', {"a": 1}),
        ('{"a": [1]}]}', {"a": [1]}),
        ('\ufeff{"a": 1}', {"a": 1}),
        # the same twice
        ('{"a": 1}{"a": 1}', {"a": 1}),
        ('{"a": 1}\n{"a": 1}', {"a": 1}),
        ('{"a": 1}{"a": 2}', None),
        # what can mean more than one thing stays broken
        ("{", None),
        ('{"a": [', None),
        ('{"a": 12', None),
        ('{"a": "x", ', None),
        ('{"a": "x', None),
        ('{"a":', None),
        ('{"a"', None),
        ('{"a" "b"}', None),
        ("{'a': 'it's'}", None),
        ('{"a": 1} trailing', None),
        ('{"a": x}', None),
        ("{'a': 1, 'a': 2}", None),
        ('{"a": 1 "b": 2}', None),
        ("garbage", None),
        ("", None),
        ("   ", None),
        # JSON, but no object
        ("[1]", None),
        ("5", None),
        ('"x"', None),
        ("true", None),
    ],
)
def test_parse(text: str, expected: dict[str, Any] | None) -> None:
    for given_text in (text, text.encode()):
        if expected is None:
            with pytest.raises(ToolError):
                parse_arguments(given_text)
        else:
            assert parse_arguments(given_text) == expected


def test_only_text_is_parsed() -> None:
    with pytest.raises(TypeError, match="dict"):
        parse_arguments({"a": 1})  # type: ignore[arg-type]  # on purpose


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(), values, max_size=4)


@given(objects)
def test_json_comes_back(value: dict[str, Any]) -> None:
    assert parse_arguments(json.dumps(value)) == value
    assert parse_arguments(json.dumps(value, ensure_ascii=False)) == value
    assert parse_arguments(json.dumps(json.dumps(value))) == value


simple = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab c.", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc", min_size=1), simple, max_size=4))
def test_python_way_is_understood(value: dict[str, Any]) -> None:
    assert parse_arguments(repr(value)) == value


@given(objects, st.data())
def test_a_cut_text_is_never_read_as_something_else(
    value: dict[str, Any], data: st.DataObject
) -> None:
    """Cut anywhere, it is refused, or read as the part that was complete: no value is changed."""
    text = json.dumps(value)
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    try:
        read = parse_arguments(cut)
    except ToolError:
        return
    assert is_part_of(read, value)


def is_part_of(part: Any, whole: Any) -> bool:
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and is_part_of(part[key], whole[key]) for key in part)
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) <= len(whole) and all(map(is_part_of, part, whole))
    return bool(part == whole)


@given(st.text(st.sampled_from("{}[]\"':,\\ntu1 .<|>`"), max_size=40))
def test_any_text(text: str) -> None:
    """For any text: an object, or a `ToolError`."""
    with contextlib.suppress(ToolError):
        assert isinstance(parse_arguments(text), dict)


@pytest.mark.parametrize(
    "unit",
    ["\n", " ", "<s>", "<|", "<|a", "```\n", "[TOOL_CALLS]", '"', "\\", "{'a':", "[", "{a:1,"],
)
@pytest.mark.parametrize("start", ["", "```\n", '{"a":'])
def test_nothing_is_searched_again_and_again(start: str, unit: str) -> None:
    """Were it, each of these would take longer than the time that a test has."""
    repair_json(start + unit * 1_000_000 + "x")


def crowd(entry: str, count: int = MAX_VALUES) -> str:
    return '{"names":[' + f"{entry}," * count + f"{entry}]}}"


@pytest.mark.parametrize("text", [crowd("7"), crowd("null"), crowd("'7'"), crowd("{}", 50_000)])
def test_more_values_than_can_be_read_at_once_are_refused(text: str) -> None:
    def count(names: list[int]) -> None: ...

    readers: list[Callable[..., Any]] = [
        partial(validate_arguments, build_plan(count)),
        parse_arguments,
    ]
    for read in readers:
        for written in (text, text.encode()):
            with pytest.raises(ToolError, match="more than 65536 values"):
                read(written)
    assert canonical_arguments(text) == text
    fewer = parse_arguments(json.dumps({"names": [7] * (MAX_VALUES - 8)}))
    assert len(fewer["names"]) == MAX_VALUES - 8


def test_a_long_text_is_one_value_and_is_not_read_as_many() -> None:
    def note(text: str, names: list[int] | None = None) -> None: ...

    inner = crowd("7")
    told = {"text": inner}
    assert validate_arguments(build_plan(note), json.dumps(told))["text"] == inner
    with pytest.raises(ToolError, match=r"\$\.names: expected a valid array"):
        validate_arguments(build_plan(note), json.dumps({**told, "names": inner[9:-1]}))
    with pytest.raises(ToolError, match="must be a JSON object"):
        parse_arguments(json.dumps(inner))


def test_deep_nesting_is_refused() -> None:
    for text in ("[" * 100_000, "{'a':" * 5000 + "1"):
        assert repair_json(text) is BROKEN


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('{"a":1,  "b":2}', '{"a":1,  "b":2}'),
        ('{"a": 1,}', '{"a": 1}'),
        ('"{\\"a\\": 5}"', '{"a": 5}'),
        ("null", "{}"),
        ("[1]", "[1]"),
        ("garbage", "garbage"),
        ('{"ä": "ö",}', '{"ä": "ö"}'),
    ],
)
def test_canonical(text: str, expected: str) -> None:
    assert canonical_arguments(text) == expected


# -- object -> values -----------------------------------------------------------------------


class Sub(BaseModel):
    x: int
    y: str = "def"


class Rec(BaseModel):
    name: str
    size: int = 1
    children: list[Rec] = []


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    lives: int | None = 1


class Colour(enum.Enum):
    RED = "red"


class LooseStyle(TypedDict, total=False):
    bold: bool


class Style(LooseStyle, total=False):
    bold: Required[bool]  # type: ignore[misc]  # on purpose


class Strict(BaseModel):
    day: date = Field(strict=True)


class Checked(BaseModel):
    model_config = ConfigDict(extra="forbid")
    x: int

    @field_validator("x")
    @classmethod
    def positive(cls, x: int) -> int:
        if x < 0:
            raise ValueError("must be positive")
        return x


def checked(c: Checked) -> None: ...
def f(a: int, b: str = "bb", *, c: int | None = 5) -> None: ...
def anything(a: Any, b: Any = 3) -> None: ...
def annotated(a: Annotated[int, Field(default=7)]) -> None: ...
def field_default(a: int = Field(7, ge=5, description="d")) -> None: ...
def aliased(a: Annotated[int, Field(alias="aa")]) -> None: ...
def positional_only(a: int, b: int = 2, /, *, c: int = 3) -> None: ...
def many(a: int, *rest: int, **more: str) -> None: ...
def nested(s: Sub, l: list[Sub] = [], d: dict[str, Sub] = {}) -> None: ...  # noqa: B006, E741
def recursive(r: Rec) -> None: ...
def either(p: Cat | Dog) -> None: ...
def strict(s: Strict) -> None: ...
def places(
    t: tuple[Sub, int] | None = None,
    many: list[Cat | Dog] = [],  # noqa: B006
    loose: dict[str, str | Sub] = {},  # noqa: B006
    colour: Colour = Colour.RED,
    word: Literal["a"] = "a",
    none_ok: Literal["a", None] = "a",  # noqa: PYI061  both spellings
    number_or_text: int | str = 3,
    nothing: None = None,
) -> None: ...
def reserved(copy: str, json: int = 1, _x: int = 2, model_config: str = "m") -> None: ...
def number(x: float) -> None: ...
def unannotated(a, b=2) -> None: ...  # type: ignore[no-untyped-def]  # on purpose
def unpacked(*point: *tuple[int, str], **more: Unpack[Style]) -> None: ...
def unpacked_loose(**more: Unpack[LooseStyle]) -> None: ...
def named(colour: Literal[Colour.RED], tags: Iterable[int] = ()) -> None: ...


def bind(function: Any, arguments: Any) -> Any:
    text = arguments if isinstance(arguments, str | bytes) else json.dumps(arguments)
    return bind_arguments(build_plan(function), text)


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        # as recorded
        (f, {"a": 1}, ((1, "bb"), {"c": 5})),
        (f, {"a": 1, "b": "z", "c": None}, ((1, "z"), {"c": None})),
        (f, {"a": "7"}, ((7, "bb"), {"c": 5})),
        (f, {"a": 1.0}, ((1, "bb"), {"c": 5})),
        (f, {"a": 1, "b": None}, ((1, "bb"), {"c": 5})),
        (f, {"a": 1, "zzz": 2}, ((1, "bb"), {"c": 5})),
        (f, {"a": True}, ((1, "bb"), {"c": 5})),
        (f, '{"a":1,"a":2}', ((2, "bb"), {"c": 5})),
        (f, b'{"a":1}', ((1, "bb"), {"c": 5})),
        (f, '"{\\"a\\": 5}"', ((5, "bb"), {"c": 5})),
        (f, '{"a": "7"<|tool|>', ((7, "bb"), {"c": 5})),
        (f, "  {'a': 7}", ((7, "bb"), {"c": 5})),
        (anything, {"a": None}, ((None, 3), {})),
        (anything, {"a": [1, {"b": None}], "b": None}, (([1, {"b": None}], None), {})),
        (annotated, {}, ((7,), {})),
        (annotated, {"a": None}, ((7,), {})),
        (field_default, {}, ((7,), {})),
        (field_default, {"a": None}, ((7,), {})),
        (aliased, {"aa": 1}, ((1,), {})),
        # mended
        (positional_only, {"a": 1}, ((1, 2), {"c": 3})),
        (many, {"a": 1}, ((1,), {})),
        (many, {"a": 1, "rest": ["2", 3], "more": {"k": "v"}}, ((1, 2, 3), {"k": "v"})),
        (nested, {"s": {"x": 1, "y": None}}, ((Sub(x=1), [], {}), {})),
        (
            nested,
            {"s": {"x": 1}, "l": [{"x": 2, "y": None}], "d": {"k": {"x": 3, "y": None}}},
            ((Sub(x=1), [Sub(x=2)], {"k": Sub(x=3)}), {}),
        ),
        (
            recursive,
            {"r": {"name": "a", "size": None, "children": [{"name": "b", "size": None}]}},
            ((Rec(name="a", children=[Rec(name="b")]),), {}),
        ),
        (either, {"p": {"kind": "cat", "lives": None}}, ((Cat(),), {})),
        (either, {"p": {"kind": "dog", "lives": None}}, ((Dog(lives=None),), {})),
        (places, {}, ((None, [], {}, Colour.RED, "a", "a", 3, None), {})),
        (
            places,
            dict.fromkeys(
                ["t", "many", "loose", "colour", "word", "none_ok", "number_or_text", "nothing"]
            ),
            ((None, [], {}, Colour.RED, "a", None, 3, None), {}),
        ),
        (
            places,
            {
                "t": [{"x": 1, "y": None}, 2],
                "many": [{"kind": "cat", "lives": None}, {"kind": "dog", "lives": None}],
                "loose": {"a": "text", "b": {"x": 1, "y": None}},
            },
            (
                (
                    (Sub(x=1), 2),
                    [Cat(), Dog(lives=None)],
                    {"a": "text", "b": Sub(x=1)},
                    Colour.RED,
                    "a",
                    "a",
                    3,
                    None,
                ),
                {},
            ),
        ),
        (strict, {"s": {"day": "2026-01-02"}}, ((Strict(day=date(2026, 1, 2)),), {})),
        (reserved, {"copy": "c", "_x": 5}, (("c", 1, 5, "m"), {})),
        (reserved, {"copy": "c", "_x": None, "json": None}, (("c", 1, 2, "m"), {})),
        (unannotated, {"a": [1]}, (([1], 2), {})),
        (
            unpacked,
            {"point": ["1", "x"], "more": {"bold": 1}},
            ((1, "x"), {"bold": True}),
        ),
        (unpacked_loose, {}, ((), {})),
        (unpacked_loose, {"more": {"bold": False}}, ((), {"bold": False})),
        (named, {"colour": "red", "tags": ["1"]}, ((Colour.RED, [1]), {})),
    ],
)
def test_bind(function: Any, arguments: Any, expected: Any) -> None:
    assert bind(function, arguments) == expected


def test_what_an_unpacked_type_demands_is_demanded() -> None:
    for wrong in ({}, {"point": [1, "x"]}, {"point": [1], "more": {"bold": True}}):
        with pytest.raises(ToolError, match=r"\$\.(point|more)"):
            bind(unpacked, wrong)


def test_further_keywords_cannot_give_a_parameter_a_second_value() -> None:
    def send(to: str, /, body: str, *, loud: bool = False, **more: Any) -> None: ...

    assert bind(send, {"to": "a", "body": "b", "more": {"to": "c"}}) == (
        ("a", "b"),
        {"loud": False, "to": "c"},
    )
    for taken in ("body", "loud"):
        with pytest.raises(ToolError, match=rf"\$\.more\.{taken}: .* as \$\.{taken}"):
            bind(send, {"to": "a", "body": "b", "more": {taken: "c"}})


def test_numbers_that_json_has_no_word_for() -> None:
    assert bind(number, '{"x": Infinity}') == ((float("inf"),), {})
    # also where the text has to be mended first
    assert bind(number, '{"x": Infinity, "y": null}') == ((float("inf"),), {})


def test_defaults_are_not_shared() -> None:
    plan = build_plan(nested)
    first = bind_arguments(plan, '{"s": {"x": 1}}')[0][1]
    first.append("dirt")
    assert bind_arguments(plan, '{"s": {"x": 1}}')[0][1] == []
    assert nested.__defaults__ == ([], {})


def test_validate_gives_values_by_name() -> None:
    plan = build_plan(positional_only)
    assert validate_arguments(plan, '{"a": "1"}') == {"a": 1, "b": 2, "c": 3}


# -- context parameters ---------------------------------------------------------------------


class MyContext(RunContext[int]):
    pass


def with_context(ctx: RunContext[str], a: int) -> None: ...
def with_subclass(a: int, *, ctx: MyContext) -> None: ...
def with_optional(a: int, ctx: RunContext | None = None) -> None: ...
def with_annotated(ctx: Annotated[RunContext, "note"], a: int) -> None: ...


def with_either(a: int, ctx: MyContext | None = None) -> None: ...


@pytest.mark.parametrize("function", [with_context, with_subclass, with_optional, with_annotated])
def test_context_is_given_and_not_shown(function: Any) -> None:
    plan = build_plan(function)
    assert list(plan.schema["properties"]) == ["a"]
    context = MyContext()
    args, kwargs = bind_arguments(plan, '{"a": 1, "ctx": "evil"}', call_ctx=context)
    assert {"ctx": context, **kwargs} == {"ctx": context}
    assert set(map(id, args)) | {id(context)} == {id(1), id(context)}


def test_context_that_is_missing() -> None:
    assert bind_arguments(build_plan(with_optional), '{"a": 1}') == ((1, None), {})
    other = RunContext()
    assert bind_arguments(build_plan(with_either), '{"a": 1}', call_ctx=other) == ((1, None), {})
    with pytest.raises(TypeError, match=r"with_subclass.*a MyContext, got a RunContext"):
        bind_arguments(build_plan(with_subclass), '{"a": 1}', call_ctx=other)
    with pytest.raises(TypeError, match=r"with_context.*`ctx`.*got nothing.*call_ctx"):
        bind_arguments(build_plan(with_context), '{"a": 1}')


# -- what the model is told -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "arguments", "says"),
    [
        (f, {}, ["`f`", "$.a", "expected a value (integer)", "got nothing"]),
        (f, {"a": None}, ["$.a", "expected a valid integer", "got null"]),
        (f, {"a": 1.5}, ["$.a", "expected a valid integer", "got number 1.5"]),
        (named, {"colour": "blue"}, ["$.colour: expected 'red', got text \"blue\""]),
        (f, {"A": 1}, ["$.a", "$.A: no such argument, did you mean `a`?"]),
        (f, {"wholly_other": 1}, ["$.wholly_other: no such argument; there are `a`, `b`, `c`"]),
        (f, {"a": "x" * 5000}, ["$.a", 'got text "xxx', "..."]),
        (f, "[1]", ["JSON object", "array: [1]"]),
        (f, "", ["empty"]),
        (f, "garbage", ["not valid JSON", "garbage"]),
        (f, '{"a": ' + "9" * 5000 + "}", ["number out of range"]),
        (checked, {"c": {"x": -1}}, ["$.c.x: must be positive, got number -1"]),
        (checked, {"c": {"x": 1, "z": 2}}, ["$.c.z: Extra inputs are not permitted, got number 2"]),
        (field_default, {"a": 3}, ["$.a", "greater than or equal to 5", "number 3"]),
        (nested, {"s": {"x": "no"}}, ["$.s.x", "integer", 'text "no"']),
        (nested, {"s": {"x": 1}, "l": [{"x": 1}, {"y": "q"}]}, ["$.l[1].x", "got nothing"]),
        (either, {"p": {"kind": "cow"}}, ["'cat'", "'dog'", '"cow"']),
        (aliased, {"a": 1}, ["$.aa"]),
        (reserved, {"copy": 3}, ["$.copy", "string"]),
    ],
)
def test_errors_name_place_expectation_and_value(
    function: Any, arguments: Any, says: list[str]
) -> None:
    with pytest.raises(ToolError) as caught:
        bind(function, arguments)
    for words in says:
        assert words in caught.value.message
    assert len(caught.value.message) < 1500
    assert "pydantic" not in caught.value.message


def test_unpaired_surrogates_can_be_shown() -> None:
    with pytest.raises(ToolError, match="integer"):
        bind(f, '{"a": "\\ud800"}')


def test_a_plan_is_built_once_for_many_calls() -> None:
    plan: Plan = build_plan(nested)
    first = plan.fitter
    bind_arguments(plan, '{"s": {"x": 1, "y": null}}')
    made = plan.fitter
    bind_arguments(plan, '{"s": {"x": 1, "y": null}}')
    assert first is None
    assert plan.fitter is made is not None
