"""The schemas of structured replies, as they are sent."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from pydantic import AnyUrl, BaseModel

from rejoinder.errors import ConfigurationError
from rejoinder.providers.asking.replies import completions_response_format, reply_schema
from rejoinder.types import NOT_GIVEN

OWN = {"title": "T", "type": "object", "properties": {"a": {"type": "string"}}}


class Page(BaseModel):
    url: AnyUrl
    size: int = 1


class Counts(BaseModel):
    by_name: dict[str, int]


def test_schemas_for_answers() -> None:
    closed = {**OWN, "additionalProperties": False}
    assert reply_schema(OWN, "anthropic") == ("T", closed)
    wrapped = {"type": "json_schema", "json_schema": {"name": "n", "schema": OWN}}
    assert reply_schema(wrapped, "anthropic") == ("n", closed)
    assert reply_schema(NOT_GIVEN, "anthropic") == ("", None)
    assert reply_schema({"type": "text"}, "anthropic") == ("", None)
    for wrong in ({"type": "json_object"}, {"type": "json_schema"}, 5, object()):
        with pytest.raises(ConfigurationError, match="response_format"):
            reply_schema(wrong, "anthropic")


def test_types_are_strict_where_that_says_the_same() -> None:
    sent = completions_response_format(Page)
    assert sent is not None
    held = sent["json_schema"]
    assert (held["name"], held["strict"]) == ("Page", True)
    assert held["schema"]["required"] == ["url", "size"]
    assert "format" not in held["schema"]["properties"]["url"]
    assert "uri" in held["schema"]["properties"]["url"]["description"]

    sent = completions_response_format(Counts)
    assert sent is not None
    assert sent["json_schema"]["strict"] is False
    assert sent["json_schema"]["schema"]["properties"]["by_name"]["additionalProperties"]


def test_a_type_that_is_no_object() -> None:
    sent = completions_response_format(list[int])
    assert sent is not None
    assert sent["json_schema"]["schema"]["properties"].keys() == {"value"}


@pytest.mark.parametrize(
    "given",
    [{"type": "json_object"}, {"type": "text"}, {"type": "structural_tag", "structures": []}],
)
def test_other_shapes_of_the_api_are_sent_as_they_are(given: dict[str, Any]) -> None:
    assert completions_response_format(given) == given


def test_a_schema_of_somebody_else_is_compiled() -> None:
    older = {"type": "object", "properties": {"a": {"items": [{"type": "string"}]}}}
    sent = completions_response_format(older)
    assert sent is not None
    assert sent["json_schema"]["schema"]["properties"]["a"] == {"prefixItems": [{"type": "string"}]}
    assert "strict" not in sent["json_schema"]

    inner = {"name": "n", "strict": True, "description": "d", "schema": OWN}
    sent = completions_response_format({"type": "json_schema", "json_schema": inner})
    assert sent is not None
    assert sent["json_schema"]["schema"]["additionalProperties"] is False
    assert sent["json_schema"]["description"] == "d"


def test_what_is_lost_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    class Once(BaseModel):
        address: AnyUrl

    with caplog.at_level(logging.INFO, "rejoinder"):
        for _ in range(3):
            completions_response_format(Once)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "'Once'" in line
    assert "`format: uri`" in line
