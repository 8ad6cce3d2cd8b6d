"""Plans of functions."""

# ruff: noqa: UP007, UP045  both spellings of optional are tested

from __future__ import annotations

import copy
import enum
import functools
import inspect
from math import inf, nan
from typing import Annotated, Any, Optional, Union

import pytest
from pydantic import Field, WithJsonSchema
from typing_extensions import Doc

from rejoinder._core import schema as schema_module
from rejoinder._core.arguments import bind_arguments
from rejoinder._core.frozen import Frozen
from rejoinder._core.schema import (
    build_plan,
    describe,
    is_context_type,
    is_optional_type,
)
from rejoinder._core.tools import RunContext

# -- plans ----------------------------------------------------------------------------------

Short = Annotated[str, Field(max_length=3)]


def test_a_shared_annotation_is_not_changed() -> None:
    """A description and default given to one function stay with that function."""

    def one(a: Short = "x") -> None:
        """One.

        Args:
            a: of one
        """

    def two(a: Short) -> None:
        """Two.

        Args:
            a: of two
        """

    first, second = build_plan(one).schema["properties"]["a"], build_plan(two).schema
    assert first == {
        "default": "x",
        "description": "of one",
        "maxLength": 3,
        "title": "A",
        "type": "string",
    }
    assert second["properties"]["a"] == {
        "description": "of two",
        "maxLength": 3,
        "title": "A",
        "type": "string",
    }
    assert second["required"] == ["a"]


def test_kinds_of_parameters() -> None:
    def mixed(a: int, /, b: int, *rest: int, c: int, d: int = 4, **more: str) -> None: ...

    plan = build_plan(mixed)
    assert list(plan.schema["properties"]) == ["a", "b", "rest", "c", "d", "more"]
    assert plan.schema["required"] == ["a", "b", "c"]
    assert plan.schema["properties"]["rest"]["items"] == {"type": "integer"}
    assert plan.schema["properties"]["more"]["additionalProperties"] == {"type": "string"}
    assert plan.why_not_strict is not None


def test_names_that_pydantic_keeps_for_itself() -> None:
    def reserved(copy: int, model_config: str, _private: int, __dunder: int = 3) -> None: ...

    plan = build_plan(reserved)
    assert list(plan.schema["properties"]) == ["copy", "model_config", "_private", "__dunder"]
    assert plan.schema["properties"]["copy"] == {"title": "Copy", "type": "integer"}


def test_defaults_that_json_cannot_write() -> None:
    def odd(
        a: Any = object(),  # noqa: B008  on purpose
        b: float = nan,
        c: float = -inf,
        d: float = 3.5,
    ) -> None: ...

    properties = build_plan(odd).schema["properties"]
    assert [name for name in properties if "default" in properties[name]] == ["d"]
    assert build_plan(odd).schema.get("required") is None


def test_functions_without_a_signature() -> None:
    with pytest.raises(TypeError, match="signature"):
        build_plan(type)


def test_describe() -> None:
    def documented() -> None:
        "Words."

    assert describe(documented) == ("Words.", {})
    assert describe(functools.partial(documented)) == ("Words.", {})
    assert describe(lambda: None) == (None, {})


def test_descriptions_in_annotations_and_of_further_arguments() -> None:
    def described(
        city: Annotated[str, "the city, in English"],
        day: Annotated[str, Doc("the day")] = "",
        both: Annotated[str, "its own text", Field(description="of the field")] = "",
        *names: Annotated[str, "each name"],
        **options: int,
    ) -> None:
        """Do.

        Args:
            city: of the docstring
            both: of the docstring
            **options: further options
        """

    properties = build_plan(described).schema["properties"]
    assert {name: entry.get("description") for name, entry in properties.items()} == {
        "city": "the city, in English",
        "day": "the day",
        "both": "of the field",
        "names": "each name",
        "options": "further options",
    }


def test_context_types() -> None:
    class Mine(RunContext[int]): ...

    class Theirs:
        """As a class of a LiveKit session would be."""

        __module__ = "livekit.agents.voice.events"
        __qualname__ = "RunContext"

    Theirs.__name__ = "RunContext"
    assert is_context_type(RunContext)
    assert is_context_type(RunContext[int])
    for other in (Mine, int, Optional[RunContext], "RunContext", Annotated[RunContext, 1], Theirs):
        assert not is_context_type(other)
    assert is_context_type(Mine, allow_subclasses=True)
    assert is_context_type(Theirs, allow_subclasses=True)
    assert not is_context_type(int, allow_subclasses=True)
    assert not is_context_type("RunContext", allow_subclasses=True)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (int, False),
        (Optional[int], True),
        (int | None, True),
        (Union[int, str], False),
        (Any, False),
        (None, False),
        (type(None), False),
        (Annotated[int | None, 1], True),
        (Optional[RunContext], True),
    ],
)
def test_optional(hint: Any, expected: bool) -> None:
    assert is_optional_type(hint) is expected


def test_frozen_gives_copies() -> None:
    class Colour(enum.Enum):
        RED = 1

    for value in ({"a": [1, {"b": None}]}, {"a": [Colour.RED]}):
        before = copy.deepcopy(value)
        frozen = Frozen(value)
        frozen.copy()["a"].append(3)
        value["a"].append(4)
        assert frozen.copy() == before


def test_docstrings_are_read_only_when_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import docstring_parser

    monkeypatch.setattr(docstring_parser, "parse_from_object", None)
    build_plan(lambda a: a)


def test_a_default_that_json_cannot_write_may_be_asked_for() -> None:
    class Handle:
        pass

    def f(
        a: float = inf,
        b: Annotated[object, WithJsonSchema({"type": "string"})] = Handle(),
        c: int = 1,
        *more: int,
    ) -> None: ...

    plan = build_plan(f)
    assert "default" not in plan.schema["properties"]["a"]
    strict = plan.strict.copy()["properties"]
    assert strict["a"]["type"] == ["number", "null"]
    assert strict["b"]["type"] == ["string", "null"]
    assert strict["c"]["type"] == ["integer", "null"]
    assert strict["more"]["type"] == "array"
    args, _ = bind_arguments(plan, '{"a": null, "b": null, "c": null}')
    assert args[0] == inf
    assert isinstance(args[1], Handle)


def test_the_room_calls_nothing() -> None:
    """Building a plan looks at functions without calling them."""

    def never(a: int = 1) -> None:
        raise AssertionError("called")

    build_plan(never)
    assert inspect.ismodule(schema_module)
