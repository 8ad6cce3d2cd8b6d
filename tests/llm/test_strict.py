"""The strict schema of models."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, TypeAdapter

from rejoinder.llm._strict import to_strict_json_schema


class Model(BaseModel):
    a: int = 3


class Tree(BaseModel):
    children: list[Tree]


def test_models_and_adapters() -> None:
    expected = {
        "properties": {"a": {"type": ["integer", "null"]}},
        "type": "object",
        "additionalProperties": False,
        "required": ["a"],
    }
    assert to_strict_json_schema(Model) == expected
    assert to_strict_json_schema(TypeAdapter(Model)) == expected
    plain = to_strict_json_schema(Model, null_for_default=False)
    assert plain["properties"] == {"a": {"type": "integer"}}


def test_a_model_that_contains_itself() -> None:
    schema = to_strict_json_schema(Tree)
    assert schema["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}
    assert schema["$defs"]["Tree"]["additionalProperties"] is False


def test_something_else() -> None:
    with pytest.raises(TypeError, match="got 3"):
        to_strict_json_schema(3)  # type: ignore[arg-type]  # on purpose
