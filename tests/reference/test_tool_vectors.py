"""Schemas and arguments of tools, against what LiveKit Agents 1.2.17 and 1.7.0 made of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reference import oracle, tools
from rejoinder.llm import utils
from rejoinder.llm.tool_context import function_tool

SCHEMAS: dict[str, dict[str, Any]] = json.loads((oracle.HERE / "tool_schemas.json").read_text())


@pytest.mark.parametrize("key", oracle.keys("schema"))
def test_schema(key: str) -> None:
    _, builder, name = key.split(":")
    assert ["ok", getattr(utils, builder)(tools.VECTOR_TOOLS[name])] in oracle.expected(key)


@pytest.mark.parametrize("key", oracle.keys("args"))
def test_arguments(key: str) -> None:
    _, name, text = key.split(":", 2)
    try:
        args, kwargs = utils.prepare_function_arguments(
            fnc=tools.VECTOR_TOOLS[name], json_arguments=text
        )
        result = ["ok", [[str(a) for a in args], {k: str(v) for k, v in kwargs.items()}]]
    except Exception as error:
        result = ["raise", type(error).__name__]
    assert result in oracle.expected(key)


FORMS = [(name, form) for name, forms in SCHEMAS.items() for form in forms]


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_schema_of_parameter(name: str, form: str) -> None:
    """Each kind of parameter alone; the strict forms are those of 1.7.0 where it mended them."""
    build = getattr(utils, f"build_{form}_openai_schema")
    spec = build(function_tool(getattr(tools, name)))["function"]
    assert spec["name"] == name
    assert spec["parameters"] == SCHEMAS[name][form]
